// Package cgrouptest makes cgroups for tests. Only tests import it, and what
// runs in them is theirs.
package cgrouptest

import (
	"os"
	"testing"

	"profile/internal/cgroup"
)

// Make makes a cgroup below the root, with a name that make clean-kernel
// knows, and removes it when the test has ended. It takes root.
func Make(t testing.TB) cgroup.Group {
	t.Helper()
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root.Dir, "profile-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove the test's cgroup: %v", err)
		}
	})
	group, err := cgroup.Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	return group
}
