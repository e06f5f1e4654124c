package profiler

import (
	"os"
	"path/filepath"
	"testing"
)

// What is gone is known by its name and its directory's; what is there, by what
// is in it.
func TestCanariesAreKnownByTheirNamesOnlyWhenTheyAreGone(t *testing.T) {
	for path, want := range map[string]bool{
		"/run/x.canary/profile-canary-learn":        true,
		"/run/canary-17/profile-canary-learn":       true,
		"/tmp/profile-canary-17/profile-canary-arm": true,
		"/tmp/other/profile-canary-learn":           false,
		"/run/canary-17/curl":                       false,
		"/opt/canary/bin/tool":                      false,
		"/usr/bin/gone":                             false,
	} {
		if got := isCanary(path); got != want {
			t.Errorf("isCanary(%q) = %v", path, got)
		}
		if got := seemsCanary(path); got != want {
			t.Errorf("seemsCanary(%q) = %v", path, got)
		}
	}
	file := filepath.Join(t.TempDir(), "x.canary", "profile-canary-learn")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if isCanary(file) {
		t.Error("another program under a canary's name is taken for one")
	}
}
