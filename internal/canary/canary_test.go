package canary

import (
	"bytes"
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"profile/internal/regular/regulartest"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it creates cgroups and mounts")
	}
}

func install(t *testing.T) *Canary {
	t.Helper()
	c, err := Install(t.TempDir(), "canary")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noexecMount mounts a tmpfs that nothing can be run from.
func noexecMount(t *testing.T) string {
	t.Helper()
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	return at
}

func TestProgramsStandAlone(t *testing.T) {
	for name, machine := range map[string]elf.Machine{
		"canary_amd64.elf": elf.EM_X86_64,
		"canary_arm64.elf": elf.EM_AARCH64,
	} {
		t.Run(name, func(t *testing.T) {
			f, err := elf.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Machine != machine || f.Type != elf.ET_EXEC {
				t.Errorf("%v %v, want %v %v", f.Machine, f.Type, machine, elf.ET_EXEC)
			}
			for _, p := range f.Progs {
				switch {
				case p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC:
					t.Errorf("has a segment %v: it is not static", p.Type)
				case p.Type == elf.PT_GNU_STACK && p.Flags&elf.PF_X != 0:
					t.Error("its stack is executable")
				case p.Type == elf.PT_LOAD && p.Align < 65536:
					t.Errorf("a segment is aligned to %d: arm64 may have pages of 65536", p.Align)
				}
			}
			if info, err := os.Stat(name); err != nil || info.Size() > 4096 {
				t.Errorf("size %d, error %v: want at most 4096 bytes", info.Size(), err)
			}
		})
	}
}

func TestInstallWritesAnExecutableUnderItsResolvedPath(t *testing.T) {
	real := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	c, err := Install(link, "one")
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(real, "one")
	if c.Path() != want {
		t.Errorf("Path() = %q, want %q", c.Path(), want)
	}
	info, err := os.Lstat(want)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o700 {
		t.Errorf("mode %v, want %v", info.Mode(), fs.FileMode(0o700))
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the directory holds %v, want the canary alone", entries)
	}
}

func TestInstallReplacesWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "one"), []byte("#!/bin/false\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := Install(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	if is, err := Is(c.Path()); err != nil || !is {
		t.Errorf("Is = %v, %v after Install", is, err)
	}
}

func TestInstallRefuses(t *testing.T) {
	deep := t.TempDir()
	for len(deep) <= maxPath {
		deep = filepath.Join(deep, strings.Repeat("d", 20))
	}
	foreign := filepath.Join(t.TempDir(), "\xff")
	for _, dir := range []string{deep, foreign} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ what, dir, name, says string }{
		{"a name with a slash", t.TempDir(), "a/b", "is not a file name"},
		{"no name", t.TempDir(), "", "is not a file name"},
		{"the parent", t.TempDir(), "..", "is not a file name"},
		{"a directory that is not there", filepath.Join(t.TempDir(), "none"), "one", "no such file"},
		{"a path too long for a policy", deep, "one", "no policy can name"},
		{"a path that is not UTF-8", foreign, "one", `no policy can name`},
	} {
		t.Run(c.what, func(t *testing.T) {
			_, err := Install(c.dir, c.name)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}

func TestInstallRefusesNoexec(t *testing.T) {
	needRoot(t)
	_, err := Install(noexecMount(t), "one")
	if err == nil || !strings.Contains(err.Error(), "noexec") {
		t.Errorf("error %v, want one that says noexec", err)
	}
}

func TestIsKnowsCopiesAndNothingElse(t *testing.T) {
	c := install(t)
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(program)
	changed[len(changed)-1] ^= 1
	for _, tc := range []struct {
		what, path string
		want       bool
	}{
		{"the installed one", c.Path(), true},
		{"a copy", file("copy", program), true},
		{"one byte changed", file("changed", changed), false},
		{"one byte more", file("longer", append(bytes.Clone(program), 0)), false},
		{"one byte less", file("shorter", program[:len(program)-1]), false},
		{"an empty file", file("empty", nil), false},
		{"true", "/bin/true", false},
		{"a directory", dir, false},
		{"a named pipe", fifo, false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			got, err := Is(tc.path)
			if err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("Is(%q) = %v, want %v", tc.path, got, tc.want)
			}
		})
	}
	if regulartest.Opened(t, fifo, func() { Is(fifo) }) {
		t.Error("a named pipe was opened")
	}
	if _, err := Is(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Is of a missing file: error %v, want fs.ErrNotExist", err)
	}
}

func TestRemoveTwice(t *testing.T) {
	c := install(t)
	for range 2 {
		if err := c.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(c.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove: %v, want fs.ErrNotExist", err)
	}
}
