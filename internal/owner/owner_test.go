package owner

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeAll(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func mustOwn(t *testing.T, root string, owned map[string][]Package) {
	t.Helper()
	for path, want := range owned {
		got, err := Of(context.Background(), root, path)
		if err != nil {
			t.Errorf("%q: %v", path, err)
		}
		if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
			t.Errorf("%q belongs to (-want +got):\n%s", path, diff)
		}
	}
}

// mustNotTell wants an error, since nothing that could tell is there.
func mustNotTell(t *testing.T, root, path, why string) {
	t.Helper()
	if got, err := Of(t.Context(), root, path); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("%q belongs to %+v (%v), want an error with %q", path, got, err, why)
	}
}

func merged(t *testing.T, root string, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
}

var dpkgOfTest = map[string]string{
	"var/lib/dpkg/info/coreutils.list":    "/.\n/bin\n/bin/ls\n/usr/bin/tail\n",
	"var/lib/dpkg/info/libc6:amd64.list":  "/.\n/usr/lib/x86_64-linux-gnu/libc.so.6\n/usr/share/doc/libc6\n/usr/share/doc/libc6/copyright\n",
	"var/lib/dpkg/info/libc6:i386.list":   "/.\n/usr/share/doc/libc6/copyright\n",
	"var/lib/dpkg/info/tool:amd64.list":   "/.\n/opt/tool\n/usr/sbin/tool\n/lib/tool/help\n/usr/lib/plugin\n",
	"var/lib/dpkg/info/extra.list":        "/.\n/etc/passwd\n/usr/lib/plugin\n",
	"var/lib/dpkg/info/tool:amd64.md5sum": "/opt/other\n",
	"var/lib/dpkg/status": "Package: coreutils\nVersion: 9.1-1\n\nPackage: tool-extra\nVersion: 7\n\n" +
		"Package: tool\nDescription: x\n Version: no\nVersion: 2:3.4\n\nPackage: libc6\nVersion: 2.36\n",
}

func TestOfDpkg(t *testing.T) {
	root := t.TempDir()
	writeAll(t, root, dpkgOfTest)
	merged(t, root, "bin", "sbin", "lib")
	coreutils, tool := Package{"coreutils", "9.1-1", "dpkg"}, Package{"tool", "2:3.4", "dpkg"}
	mustOwn(t, root, map[string][]Package{
		"/usr/bin/tail":                  {coreutils},
		"/usr/bin/ls":                    {coreutils}, // listed as /bin/ls
		"/usr/sbin/tool":                 {tool},
		"/usr/lib/tool/help":             {tool},
		"/usr/share/doc/libc6/copyright": {{"libc6", "2.36", "dpkg"}}, // of two architectures
		"/usr/lib/plugin":                {{"extra", "", "dpkg"}, tool},
		"/usr/lib/tool":                  nil, // only the beginning of a path
		"/opt/other":                     nil,
		"/usr/etc/passwd":                nil, // /etc is no symlink
		"/usr/bin/tail\n/opt":            nil,
	})
}

func TestOfDpkgWhereBinIsNotMerged(t *testing.T) {
	root := t.TempDir()
	writeAll(t, root, dpkgOfTest)
	if err := os.Symlink("opt/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	mustOwn(t, root, map[string][]Package{
		"/usr/lib/tool/help": nil, // it lists /lib/tool/help

		"/bin/ls":     {{"coreutils", "9.1-1", "dpkg"}},
		"/usr/bin/ls": nil, // another file
		"/bin/tail":   nil,
	})
}

// As Debian has them, see dpkg-divert(1).
func TestOfDpkgWhereFilesWereDiverted(t *testing.T) {
	root := t.TempDir()
	merged(t, root, "bin")
	writeAll(t, root, map[string]string{
		"var/lib/dpkg/info/linux-base.list":        "/usr/bin/perf\n/usr/bin/other\n",
		"var/lib/dpkg/info/linux-perf:amd64.list":  "/usr/bin/perf\n",
		"var/lib/dpkg/info/dash.list":              "/bin/dash\n/bin/sh\n",
		"var/lib/dpkg/info/bash.list":              "/bin/bash\n/bin/sh\n",
		"var/lib/dpkg/info/unrelated:amd64.list":   "/usr/bin/unrelated\n",
		"var/lib/dpkg/info/wireless-tools:x2.list": "/usr/bin/iwconfig\n",
		"var/lib/dpkg/status":                      "",
		"var/lib/dpkg/diversions": "/usr/bin/perf\n/usr/bin/perf.wrapper\nlinux-perf\n" +
			"/bin/sh\n/bin/sh.distrib\ndash\n" + "/usr/bin/iwconfig\n/usr/bin/iwconfig.real\n:\n",
	})
	mustOwn(t, root, map[string][]Package{
		"/usr/bin/perf":          {{"linux-perf", "", "dpkg"}},
		"/usr/bin/perf.wrapper":  {{"linux-base", "", "dpkg"}},
		"/usr/bin/sh":            {{"dash", "", "dpkg"}},
		"/usr/bin/sh.distrib":    {{"bash", "", "dpkg"}},
		"/usr/bin/iwconfig":      nil, // the administrator's own
		"/usr/bin/iwconfig.real": {{"wireless-tools", "", "dpkg"}},
		"/usr/bin/unrelated":     {{"unrelated", "", "dpkg"}},
	})
}

// A diversion and the lists may have a path by either of its names.
func TestOfDpkgWhereADiversionHasAnOtherName(t *testing.T) {
	root := t.TempDir()
	merged(t, root, "sbin")
	writeAll(t, root, map[string]string{
		"var/lib/dpkg/info/init.list":  "/usr/sbin/halt\n/sbin/reboot\n",
		"var/lib/dpkg/info/guard.list": "/usr/sbin/halt\n/usr/sbin/reboot\n",
		"var/lib/dpkg/diversions":      "/sbin/halt\n/sbin/halt.real\nguard\n/usr/sbin/reboot\n/usr/sbin/reboot.real\nguard\n",
	})
	init, guard := []Package{{"init", "", "dpkg"}}, []Package{{"guard", "", "dpkg"}}
	mustOwn(t, root, map[string][]Package{
		"/usr/sbin/halt": guard, "/usr/sbin/halt.real": init,
		"/usr/sbin/reboot": guard, "/usr/sbin/reboot.real": init,
	})
}

func TestOfNoPackageManager(t *testing.T) {
	mustNotTell(t, t.TempDir(), "/usr/bin/ls", "neither dpkg nor rpm")
}
