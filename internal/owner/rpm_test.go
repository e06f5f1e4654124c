package owner

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// spec is of a package with a file in /bin, by its old name, and one that
// another package has too.
const spec = `Name: %s
Version: 1.2
Release: 3
%s
Summary: none
License: none
BuildArch: noarch
%%description
%%install
mkdir -p %%{buildroot}/bin %%{buildroot}/usr/bin
echo x >%%{buildroot}/bin/old-%[1]s
echo x >%%{buildroot}/usr/bin/%[1]s
echo x >%%{buildroot}/usr/bin/shared
%%files
/bin/old-%[1]s
/usr/bin/%[1]s
/usr/bin/shared
`

// tool runs a program of rpm, with a home of its own.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, text)
	}
}

// installed makes a root in which rpm has installed two packages; CI has rpm.
func installed(t *testing.T, db string) (root string) {
	t.Helper()
	if _, err := exec.LookPath("rpmbuild"); err != nil && os.Getenv("CI") == "" {
		t.Skip("no rpmbuild to make packages with")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: rpm changes its root directory")
	}
	t.Setenv("HOME", t.TempDir())
	root, top := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	merged(t, root, "bin")
	for name, epoch := range map[string]string{"one": "", "two": "Epoch: 7"} {
		file := filepath.Join(top, name+".spec")
		writeAll(t, top, map[string]string{name + ".spec": fmt.Sprintf(spec, name, epoch)})
		tool(t, "rpmbuild", "-bb", "--define", "_topdir "+top, file)
		tool(t, "rpm", "--root", root, "--dbpath", db, "-i", "--nodeps", filepath.Join(top, "RPMS/noarch", name+"-1.2-3.noarch.rpm"))
	}
	return root
}

func TestOfRPM(t *testing.T) {
	for _, db := range []string{"/var/lib/rpm", "/usr/lib/sysimage/rpm"} {
		root := installed(t, db)
		one, two := Package{"one", "1.2-3", "rpm"}, Package{"two", "7:1.2-3", "rpm"}
		writeAll(t, root, map[string]string{"opt/nobodys": "x"})
		mustOwn(t, root, map[string][]Package{
			"/usr/bin/one":     {one},
			"/usr/bin/two":     {two},
			"/usr/bin/old-one": {one}, // listed as /bin/old-one
			"/usr/bin/shared":  {one, two},
			"/opt/nobodys":     nil,
			"/opt/missing":     nil,
		})
		// A database of dpkg beside it is asked first.
		writeAll(t, root, map[string]string{"var/lib/dpkg/info/debs.list": "/opt/nobodys\n"})
		mustOwn(t, root, map[string][]Package{"/opt/nobodys": {{"debs", "", "dpkg"}}, "/usr/bin/one": {one}})
	}
}

func TestOfRPMThatCannotTell(t *testing.T) {
	root := installed(t, "/var/lib/rpm")
	if err := os.WriteFile(filepath.Join(root, "var/lib/rpm/rpmdb.sqlite"), []byte(strings.Repeat("no database", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Of(context.Background(), root, "/usr/bin/one"); err == nil {
		t.Errorf("belongs to %+v by a database that is broken, without an error", got)
	}
}

// Asked where it has no database, rpm makes one.
func TestOfRPMWithoutDatabaseMakesNone(t *testing.T) {
	if _, err := exec.LookPath("rpm"); err != nil && os.Getenv("CI") == "" {
		t.Skip("no rpm")
	}
	home, root := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	writeAll(t, root, map[string]string{"opt/nobodys": "x"})
	mustOwn(t, root, map[string][]Package{"/opt/nobodys": nil})
	mustOwn(t, "/", map[string][]Package{filepath.Join(root, "opt/nobodys"): nil})
	for _, dir := range []string{home, filepath.Join(root, "var")} {
		if files, err := os.ReadDir(dir); err == nil && len(files) > 0 {
			t.Errorf("%s has now %v", dir, files)
		}
	}
}
