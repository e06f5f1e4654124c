package canary

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxName leaves room for a canary's name in a path that a policy can name.
const maxName = 64

// Dir makes, or finds again, a directory for the canaries of one database,
// readable by its owner alone: beside the database (its path with ".canary"
// behind it), else in /run/profile, else in the directory for temporary files,
// in both under a name taken from the database's path. What is mounted noexec,
// cannot be written, or belongs to another user is passed over; the error has
// the reason for each. The directory is the caller's to remove.
func Dir(dbPath string) (string, error) {
	return dir(dbPath, "/run/profile", os.TempDir())
}

// candidates are the directories that Dir tries, in that order.
func candidates(dbPath, run, temp string) ([]string, error) {
	db, err := resolve(dbPath)
	if err != nil {
		return nil, fmt.Errorf("find a directory for the canary: %w", err)
	}
	sum := sha256.Sum256([]byte(db))
	name := "canary-" + hex.EncodeToString(sum[:8])
	return []string{db + ".canary", filepath.Join(run, name), filepath.Join(temp, "profile-"+name)}, nil
}

// isDir reports whether a path is named as Dir names them.
func isDir(path string) bool {
	name := filepath.Base(path)
	return strings.HasSuffix(name, ".canary") || strings.HasPrefix(name, "canary-") || strings.HasPrefix(name, "profile-canary-")
}

func dir(dbPath, run, temp string) (string, error) {
	paths, err := candidates(dbPath, run, temp)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, path := range paths {
		if filepath.Dir(path) == run {
			// Shared by all databases, and whoever can open it can lock it. A
			// failure shows in the next step.
			_ = os.Mkdir(run, 0o711)
		}
		resolved, err := private(path)
		if err == nil {
			return resolved, nil
		}
		errs = append(errs, fmt.Errorf("%q: %w", path, err))
	}
	return "", fmt.Errorf("no directory can hold the canary: %w", errors.Join(errs...))
}

// resolve gives a database one name, whatever links lead to it, so that a
// later command finds the same canary.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved, nil
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(parent, filepath.Base(path)), nil
	}
	return path, nil
}

// private makes the directory at path and resolves it. One that is there must
// be the caller's own, since a program in it will be run.
func private(path string) (string, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	path = filepath.Join(parent, filepath.Base(path))
	if err := nameable(filepath.Join(path, strings.Repeat("x", maxName))); err != nil {
		return "", err
	}
	if err := allowsExec(parent); err != nil {
		return "", err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !ownDirectory(info) {
		return "", errors.New("what is there is not a directory of this user's")
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return "", err
	}
	return path, nil
}

// Clear removes the canaries of one database that a killed command left, and
// their directories. Nobody may be using them.
func Clear(dbPath string) error { return clearDirs(dbPath, "/run/profile", os.TempDir()) }

func clearDirs(dbPath, run, temp string) error {
	paths, err := candidates(dbPath, run, temp)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, clearDir(path))
	}
	return errors.Join(errs...)
}

// clearDir stays in the directory that it has found to be the caller's: whoever
// may write beside it could put a link to another in its place meanwhile.
func clearDir(path string) error {
	owned, err := os.Lstat(path)
	if err != nil || !ownDirectory(owned) {
		return nil // there is none, or it is not for us to clear
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("clear canaries: %w", err)
	}
	defer dir.Close()
	if opened, err := dir.Stat("."); err != nil || !os.SameFile(owned, opened) {
		return errors.Join(err, fmt.Errorf("clear canaries: %q is not what it was", path))
	}
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return fmt.Errorf("clear canaries: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if is, err := isIn(dir, entry.Name()); err == nil && is {
			errs = append(errs, dir.Remove(entry.Name()))
		}
	}
	_ = os.Remove(path) // fails if something else is in it
	return errors.Join(errs...)
}

func ownDirectory(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return info.IsDir() && ok && int(owner.Uid) == os.Geteuid()
}
