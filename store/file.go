package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// ErrNotDatabase is returned for a file that is not a database of profile.
var ErrNotDatabase = errors.New("not a database of profile")

// ErrUnsafe is returned for a database that others than its user and root can
// write or replace: what is in it decides what is killed.
var ErrUnsafe = errors.New("others can write it")

// ErrBusy is returned when another process holds the database for too long.
// Nothing was done; the call may be made again.
var ErrBusy = errors.New("held by another process")

// retry is the pause between two attempts to lock the file.
const retry = 10 * time.Millisecond

// smallest is the size of two pages, which every bbolt file has at least.
const smallest = 2 * 4096

// file is one opening of the database. The os.File is bbolt's own.
type file struct {
	db *bbolt.DB
	os *os.File
}

// with opens the file, begins a transaction, calls fn, and closes all of it,
// also if fn panics. What fn has not committed is rolled back.
func (s *Store) with(ctx context.Context, writable bool, fn func(*bbolt.Tx) error) error {
	f, err := s.open(ctx, writable)
	if err != nil {
		return err
	}
	var tx *bbolt.Tx
	defer func() { f.close(tx) }()
	err = guard(func() (err error) {
		tx, err = f.db.Begin(writable)
		if err != nil {
			return err
		}
		return f.checkSize(tx)
	})
	if err != nil {
		return fmt.Errorf("open database %s: %w", s.path, err)
	}
	return fn(tx)
}

// open waits for its turn. It polls, since bbolt's own wait knows no context.
func (s *Store) open(ctx context.Context, writable bool) (*file, error) {
	deadline := time.Now().Add(s.wait)
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("open database %s: %w", s.path, err)
		}
		f, err := open(s.path, writable)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, bolterrors.ErrTimeout) {
			return nil, fmt.Errorf("open database %s: %w", s.path, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("open database %s: %w for more than %s", s.path, ErrBusy, s.wait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// open tries once; the error is bbolt's ErrTimeout if the file is locked.
func open(path string, writable bool) (*file, error) {
	f := new(file)
	options := bbolt.Options{
		ReadOnly: !writable,
		Timeout:  1, // less than bbolt's own pause: one attempt
		OpenFile: func(name string, flag int, _ os.FileMode) (*os.File, error) {
			if err := checkFile(name); err != nil {
				return nil, err
			}
			var err error
			if f.os, err = os.OpenFile(name, flag&^os.O_CREATE, 0); err != nil {
				return nil, err
			}
			return f.os, checkAccess(f.os)
		},
	}
	err := guard(func() (err error) {
		f.db, err = bbolt.Open(path, 0, &options)
		return err
	})
	for _, invalid := range []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum} {
		if errors.Is(err, invalid) {
			err = fmt.Errorf("%w: %w", ErrNotDatabase, err)
		}
	}
	if err != nil {
		f.abandon()
		return nil, err
	}
	if !f.current(path) {
		f.close(nil)
		return nil, bolterrors.ErrTimeout // Compact has put another in its place
	}
	return f, nil
}

// current reports whether the file that was opened, and is locked now, is still
// the one at the path.
func (f *file) current(path string) bool {
	mine, err := f.os.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there)
}

// checkFile refuses what bbolt would block on, or turn into a database.
func checkFile(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%w: it is a directory", ErrNotDatabase)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: it is not a regular file", ErrNotDatabase)
	case info.Size() == 0:
		return fmt.Errorf("%w: it is empty", ErrNotDatabase)
	case info.Size() < smallest:
		return fmt.Errorf("%w: it has only %d bytes", ErrNotDatabase, info.Size())
	}
	return nil
}

// checkAccess refuses a file that others could have written or replaced. Of the
// directories above it only the nearest is looked at.
func checkAccess(f *os.File) error {
	info, err := f.Stat()
	if err == nil {
		err = checkOwner("file", info)
	}
	if err != nil {
		return err
	}
	return checkDir(filepath.Dir(f.Name()))
}

func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return checkOwner("directory", info)
}

func checkOwner(what string, info fs.FileInfo) error {
	perm, owner := info.Mode().Perm(), info.Sys().(*syscall.Stat_t)
	if info.IsDir() && info.Mode()&fs.ModeSticky != 0 {
		perm &^= 0o022 // others can add files there, and replace none
	}
	if owner.Gid == 0 {
		perm &^= 0o020
	}
	switch {
	case perm&0o022 != 0:
		return fmt.Errorf("%w: its %s has mode %04o", ErrUnsafe, what, info.Mode().Perm())
	case owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		return fmt.Errorf("%w: its %s belongs to user %d", ErrUnsafe, what, owner.Uid)
	}
	return nil
}

// checkSize finds a file that was cut short, before a page is missed.
func (f *file) checkSize(tx *bbolt.Tx) error {
	info, err := f.os.Stat()
	if err == nil && info.Size() < tx.Size() {
		err = fmt.Errorf("the file is damaged: it ends after %d of %d bytes", info.Size(), tx.Size())
	}
	return err
}

// close ends what is left of tx, which may be nil, and closes the file.
func (f *file) close(tx *bbolt.Tx) {
	err := guard(func() error {
		if tx == nil {
			return nil
		}
		if err := tx.Rollback(); !errors.Is(err, bolterrors.ErrTxClosed) {
			return err
		}
		return nil
	})
	if err != nil {
		// bbolt would wait for ever for a transaction that cannot be ended.
		f.abandon()
		return
	}
	// What was committed is on the disk, whatever closing says.
	_ = f.db.Close()
}

// abandon gives up the lock where bbolt has panicked and cannot be asked to. It
// is harmless after bbolt has closed the file. To close it would not be enough:
// the mapping that is left keeps the open file, and so its lock, alive.
func (f *file) abandon() {
	if f.os == nil {
		return
	}
	_ = unix.Flock(int(f.os.Fd()), unix.LOCK_UN)
	_ = f.os.Close()
}

// guard calls fn, which reads or writes the file and runs no code of callers.
// bbolt panics on a page that makes no sense, and the kernel raises a fault
// where the mapped file is cut short or the disk cannot be read: both become
// an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file is damaged: %v", r)
		}
	}()
	return fn()
}
