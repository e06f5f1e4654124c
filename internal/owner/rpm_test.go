package owner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// needsRPM skips where the tests' user has no rpm of his own; CI has it.
func needsRPM(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("rpmbuild"); err != nil && os.Getenv("CI") == "" {
		t.Skip("no rpmbuild to make packages with")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: rpm changes its root directory")
	}
}

// installed makes a root in which rpm has installed two packages; CI has rpm.
func installed(t *testing.T, db string) (root string) {
	t.Helper()
	needsRPM(t)
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

// The database in testdata/bdb holds the package one, in the format that rpm
// had until 2020: db_load(1) made it of the table Packages and of Basenames, as
// sqlite has them.
func TestOfRPMWithADatabaseOfBerkeleyDB(t *testing.T) {
	needsRPM(t)
	root := t.TempDir()
	dir := filepath.Join(root, "var/lib/rpm")
	if err := os.CopyFS(dir, os.DirFS("testdata/bdb")); err != nil {
		t.Fatal(err)
	}
	writeAll(t, root, map[string]string{"opt/nobodys": "x"})
	mustOwn(t, root, map[string][]Package{
		"/usr/bin/one":                     {{"one", "1.2-3", "rpm"}},
		"/opt/nobodys":                     nil,
		filepath.Join(root, "opt/nobodys"): nil,
	})
	if err := os.Remove(filepath.Join(dir, "Basenames")); err != nil {
		t.Fatal(err)
	}
	mustNotTell(t, root, filepath.Join(root, "opt/nobodys"), "Basenames")
}

// Whether the path is there or not, rpm says no more of a database that it
// cannot read than of one in which the path is nobody's.
func TestOfRPMThatCannotTell(t *testing.T) {
	needsRPM(t)
	for _, format := range rpmFormats {
		root := t.TempDir()
		dir := filepath.Join(root, "var/lib/rpm")
		writeAll(t, dir, map[string]string{format.file: strings.Repeat("no database", 1000)})
		for _, path := range []string{"/etc/passwd", "/usr/bin/missing"} {
			mustNotTell(t, root, path, "/var/lib/rpm/"+format.file)
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if name := file.Name(); name != format.file && name != ".rpm.lock" {
				t.Errorf("beside %s there is now %s", format.file, name)
			}
		}
	}
}

func TestOfADatabaseThatNoRPMReads(t *testing.T) {
	root, bin := t.TempDir(), t.TempDir()
	writeAll(t, root, map[string]string{"var/lib/rpm/rpmdb.sqlite": "x", "var/lib/dpkg/info/tool.list": "/usr/bin/tool\n"})
	t.Setenv("PATH", bin)
	mustNotTell(t, root, "/usr/bin/one", "not found")
	mustOwn(t, root, map[string][]Package{"/usr/bin/tool": {{"tool", "", "dpkg"}}})
}

func TestAnRPMThatHangsIsNotWaitedFor(t *testing.T) {
	root, bin := t.TempDir(), t.TempDir()
	writeAll(t, root, map[string]string{"var/lib/rpm/rpmdb.sqlite": "x"})
	// What it has started holds its output open.
	if err := os.WriteFile(filepath.Join(bin, "rpm"), []byte("#!/bin/sh\n/bin/sleep 20 &\nwait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if got, err := Of(ctx, root, "/usr/bin/one"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("belongs to %+v (%v), want that its time was over", got, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("rpm was waited for %s", took)
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
	mustNotTell(t, root, "/opt/nobodys", "neither dpkg nor rpm")
	mustOwn(t, "/", map[string][]Package{filepath.Join(root, "opt/nobodys"): nil})
	for _, dir := range []string{home, filepath.Join(root, "var")} {
		if files, err := os.ReadDir(dir); err == nil && len(files) > 0 {
			t.Errorf("%s has now %v", dir, files)
		}
	}
}
