// Package canary is a tiny program that proves that a window is watched, or
// that a policy acts: it execs, forks and opens a network socket, and says what
// came of it. The package installs the program, runs it in a cgroup, and knows
// its copies again. When one is run, and what its fate means, is decided above.
package canary

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"profile/internal/regular"
)

//go:generate ./build.sh x86_64-linux-gnu canary_amd64.elf
//go:generate ./build.sh aarch64-linux-gnu canary_arm64.elf

// maxPath is the longest path that a policy can name.
const maxPath = 255

// Canary is an installed copy of the program. It is safe for concurrent use.
type Canary struct {
	path string
}

// Install writes the program as an executable file dir/name, taking the place
// of one that is there in one step. It refuses a directory mounted noexec, and
// a path that no policy could name. A directory of Dir's that is gone is made
// again: another command that is done with it removes it, once it is empty.
func Install(dir, name string) (*Canary, error) {
	for tries := 0; ; tries++ {
		c, err := installIn(dir, name)
		if !errors.Is(err, fs.ErrNotExist) || !isDir(dir) || tries == maxTries {
			return c, err
		}
		if _, err := private(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("install canary: %w", err)
		}
	}
}

const maxTries = 10

func installIn(dir, name string) (*Canary, error) {
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return nil, fmt.Errorf("install canary: %q is not a file name", name)
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("install canary: %w", err)
	}
	path := filepath.Join(dir, name)
	if err := nameable(path); err != nil {
		return nil, fmt.Errorf("install canary: %w", err)
	}
	if err := allowsExec(dir); err != nil {
		return nil, fmt.Errorf("install canary: %w", err)
	}
	if err := write(dir, path); err != nil {
		return nil, fmt.Errorf("install canary: %w", err)
	}
	return &Canary{path: path}, nil
}

func write(dir, path string) (err error) {
	// A fork elsewhere in this process would inherit the descriptor until its
	// exec, and until then running the file would fail with ETXTBSY.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := os.CreateTemp(dir, ".canary-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(program)
	err = errors.Join(err, f.Chmod(0o700), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Path is the resolved path of the file, as the kernel reports it.
func (c *Canary) Path() string { return c.path }

// Remove deletes the file, if it is still there. The directory stays.
func (c *Canary) Remove() error {
	if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove canary: %w", err)
	}
	return nil
}

// Is reports whether the file at path is, byte for byte, this program. It
// reads regular files only, and no more of one than the program is long.
func Is(path string) (bool, error) {
	f, err := regular.Open(path)
	if errors.Is(err, regular.ErrOther) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("compare with the canary: %w", err)
	}
	return isCanary(f)
}

// isIn is Is of a file in a directory that is open.
func isIn(dir *os.Root, name string) (bool, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	return isCanary(f)
}

// isCanary compares a file, and closes it.
func isCanary(f *os.File) (bool, error) {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("compare with the canary: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() != int64(len(program)) {
		return false, nil
	}
	got, err := io.ReadAll(io.LimitReader(f, int64(len(program))+1))
	if err != nil {
		return false, fmt.Errorf("compare %q with the canary: %w", f.Name(), err)
	}
	return bytes.Equal(got, program), nil
}

func nameable(path string) error {
	if len(path) > maxPath || !utf8.ValidString(path) {
		return fmt.Errorf("no policy can name %q: a path is at most %d bytes of UTF-8", path, maxPath)
	}
	return nil
}

func allowsExec(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if st.Flags&unix.MS_NOEXEC != 0 { // ST_NOEXEC has the same value
		return fmt.Errorf("%q is mounted noexec: nothing can be run from there", dir)
	}
	return nil
}
