package owner

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestOfDpkg(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"info/coreutils.list":    "/.\n/bin\n/bin/ls\n/usr/bin/tail\n",
		"info/libc6:amd64.list":  "/.\n/usr/lib/x86_64-linux-gnu/libc.so.6\n",
		"info/tool:amd64.list":   "/.\n/opt/tool\n/usr/sbin/tool\n/lib/tool/help\n",
		"info/tool:amd64.md5sum": "/opt/other\n",
		"status":                 "Package: coreutils\nVersion: 9.1-1\n\nPackage: tool-extra\nVersion: 7\n\nPackage: tool\nDescription: x\n Version: no\nVersion: 2:3.4\n",
	} {
		file := filepath.Join(root, "var/lib/dpkg", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]Package{
		"/usr/bin/tail":       {"coreutils", "9.1-1", "dpkg"},
		"/usr/bin/ls":         {"coreutils", "9.1-1", "dpkg"}, // listed as /bin/ls
		"/usr/sbin/tool":      {"tool", "2:3.4", "dpkg"},
		"/sbin/tool":          {"tool", "2:3.4", "dpkg"},
		"/usr/lib/tool/help":  {"tool", "2:3.4", "dpkg"},
		"/usr/lib/tool":       {}, // only the beginning of a path
		"/opt/other":          {},
		"/usr/bin/tail\n/opt": {},
	} {
		got, err := Of(context.Background(), root, path)
		if err != nil || got != want {
			t.Errorf("%q belongs to %+v, %v; want %+v", path, got, err, want)
		}
	}
}

func TestOfNoPackageManager(t *testing.T) {
	if got, err := Of(context.Background(), t.TempDir(), "/bin/ls"); err != nil || got != (Package{}) {
		t.Errorf("belongs to %+v, %v", got, err)
	}
}
