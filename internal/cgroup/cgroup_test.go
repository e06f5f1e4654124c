package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// child re-executes the test binary as the named helper.
const childEnv = "PROFILE_TEST_CGROUP_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		_, err := Root()
		fmt.Printf("%v %v\n", errors.Is(err, ErrNoCgroup2), err)
		return
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it creates cgroups and namespaces")
	}
}

// newGroup creates a cgroup below the root and a child of it, and removes both.
func newGroup(t *testing.T) (root Group, parent, child string) {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	parent, err = os.MkdirTemp(root.Dir, "profile-test-*")
	if err != nil {
		t.Fatal(err)
	}
	child = filepath.Join(parent, "a b")
	t.Cleanup(func() {
		for _, dir := range []string{child, parent} {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	return root, parent, child
}

// handleID is the cgroup's id as the kernel's file handle carries it.
func handleID(t *testing.T, dir string) uint64 {
	t.Helper()
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(handle.Bytes())
}

func TestRootIsTheRootOfTheHierarchy(t *testing.T) {
	g, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if g.Path != "/" || g.Level != 0 || g.ID != handleID(t, g.Dir) {
		t.Errorf("Root() = %+v, want path /, level 0, id %d", g, handleID(t, g.Dir))
	}
	if _, err := os.Stat(filepath.Join(g.Dir, "cgroup.controllers")); err != nil {
		t.Error(err)
	}
}

func TestFindByDirectoryAndByPath(t *testing.T) {
	needRoot(t)
	root, parent, child := newGroup(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(child, link); err != nil {
		t.Fatal(err)
	}
	t.Chdir(parent)
	name := filepath.Base(parent)
	for _, c := range []struct {
		what, arg, dir, path string
		level                int
	}{
		{"directory", parent, parent, "/" + name, 1},
		{"trailing slash", parent + "/", parent, "/" + name, 1},
		{"nested directory", child, child, "/" + name + "/a b", 2},
		{"symlink", link, child, "/" + name + "/a b", 2},
		{"relative directory", "a b", child, "/" + name + "/a b", 2},
		{"this directory", ".", parent, "/" + name, 1},
		{"parent directory", "..", root.Dir, "/", 0},
		{"root directory", root.Dir, root.Dir, "/", 0},
		{"hierarchy path", "/" + name + "/a b", child, "/" + name + "/a b", 2},
		{"hierarchy path, trailing slash", "/" + name + "/", parent, "/" + name, 1},
		{"hierarchy path, unclean", "//" + name + "/./a b/..", parent, "/" + name, 1},
		{"hierarchy path without slash", name, parent, "/" + name, 1},
		{"hierarchy root", "/", root.Dir, "/", 0},
		{"hierarchy path above the root", "/../../" + name, parent, "/" + name, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, err := Find(c.arg)
			if err != nil {
				t.Fatal(err)
			}
			want := Group{Path: c.path, Dir: c.dir, ID: handleID(t, c.dir), Level: c.level}
			if got != want {
				t.Errorf("Find(%q) = %+v, want %+v", c.arg, got, want)
			}
		})
	}
}

func TestFindRefuses(t *testing.T) {
	needRoot(t)
	root, parent, _ := newGroup(t)
	for _, c := range []struct {
		what, arg, says string
		notExist        bool
	}{
		{"nothing", "", "empty", false},
		{"another directory", t.TempDir(), "is not a directory of the cgroup2 tree", true},
		{"a file of the tree", filepath.Join(parent, "cgroup.procs"), "is not a directory of the cgroup2 tree", true},
		{"a directory that is not there", filepath.Join(root.Dir, "profile-test-none"), "does not exist", true},
		{"a path that is not there", "/profile-test-none/x", "does not exist", true},
		{"a name with a newline", "/profile-test\nnone", `profile-test\nnone`, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			g, err := Find(c.arg)
			if err == nil {
				t.Fatalf("Find(%q) = %+v, want an error", c.arg, g)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
			if errors.Is(err, fs.ErrNotExist) != c.notExist {
				t.Errorf("error %q: is fs.ErrNotExist %v, want %v", err, !c.notExist, c.notExist)
			}
		})
	}
}

func TestFindThroughABindMountOfASubtree(t *testing.T) {
	needRoot(t)
	_, parent, child := newGroup(t)
	at := t.TempDir()
	if err := unix.Mount(parent, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	got, err := Find(filepath.Join(at, "a b"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Dir != child || got.Path != "/"+filepath.Base(parent)+"/a b" || got.Level != 2 {
		t.Errorf("Find through the bind mount = %+v, want the group at %q", got, child)
	}
}

func TestRootOfANamespaceIsNotTheMachine(t *testing.T) {
	needRoot(t)
	for what, script := range map[string]string{
		// The shell mounts the hierarchy as its cgroup namespace shows it, and
		// hides every other mount of it.
		"mounted in it": `set -e; mount -t cgroup2 none "$1"
			awk '$3 == "cgroup2" && $2 != "'"$1"'" {print $2}' /proc/mounts | while read m; do umount -l "$m"; done
			exec /proc/$PPID/exe`,
		"mounted outside": `exec /proc/$PPID/exe`,
	} {
		t.Run(what, func(t *testing.T) { mustBeOfANamespace(t, script) })
	}
}

// mustBeOfANamespace runs a shell in a cgroup namespace, which is to become this
// program.
func mustBeOfANamespace(t *testing.T, script string) {
	_, parent, _ := newGroup(t)
	dir, err := os.Open(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	at := t.TempDir()
	cmd := exec.Command("sh", "-c", script, "sh", at)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD:  true,
		CgroupFD:     int(dir.Fd()),
		Unshareflags: unix.CLONE_NEWCGROUP | unix.CLONE_NEWNS,
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := string(out); !strings.HasPrefix(got, "true ") || !strings.Contains(got, "cgroup namespace") {
		t.Errorf("Root in a cgroup namespace: %q", got)
	}
}

func TestNoCgroup2Mounted(t *testing.T) {
	needRoot(t)
	script := `set -e
		awk '$3 == "cgroup2" {print $2}' /proc/mounts | while read m; do umount -l "$m"; done
		exec /proc/$PPID/exe`
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := string(out); !strings.HasPrefix(got, "true ") || !strings.Contains(got, "mount one") {
		t.Errorf("Root without a cgroup2 mount: %q", got)
	}
}
