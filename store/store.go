// Package store keeps what was learned and what was applied: evidence, sessions
// and generations, in one bbolt file. It writes rows and gives them back as
// they were. It does not add up, judge, or know of agents, events and policies.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// wait is how long View and Update wait for another holder of the file.
const wait = 10 * time.Second

// Store names one database. It keeps nothing open between calls: the file is
// opened, and locked, only for the length of a View or an Update, so that
// others can read while a session learns. It is safe for concurrent use, by
// several processes too.
type Store struct {
	path string
	wait time.Duration
}

// Create opens the database at path, and makes it first where there is none:
// missing directories with mode 0700, the file with 0600. What exists keeps
// its mode. The database appears whole or not at all. Create fails where the
// file cannot be written, and otherwise as Open does.
func Create(path string) (*Store, error) {
	s, err := Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := initialise(path); err != nil {
			return nil, fmt.Errorf("create database %s: %w", path, err)
		}
		s, err = Open(path)
	}
	if err != nil {
		return nil, err
	}
	// Better refused now than at the first flush of a day of learning.
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("database %s cannot be written: %w", s.path, err)
	}
	f.Close()
	return s, nil
}

// MissingError says that there is no database at a path. It is fs.ErrNotExist
// too.
type MissingError struct{ Path string }

func (e *MissingError) Error() string { return "there is no database " + e.Path }

// Unwrap makes it fs.ErrNotExist.
func (e *MissingError) Unwrap() error { return fs.ErrNotExist }

// Open opens a database that exists. The error is a *MissingError if it does
// not, ErrNotDatabase if the file is something else, ErrUnsafe if others can
// write it, a *SchemaError if a newer profile wrote it, and ErrBusy if another
// process held it for 10 s.
func Open(path string) (*Store, error) {
	name, err := filepath.Abs(path)
	if err == nil {
		// The lock beside it, and what is in force for it, go by its name:
		// one database must not have two.
		name, err = filepath.EvalSymlinks(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{Path: path}
	}
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	s := &Store{path: name, wait: wait}
	if err := s.View(context.Background(), func(*Tx) error { return nil }); err != nil {
		return nil, err
	}
	return s, nil
}

// Path is the name of the database, absolute and free of symbolic links.
func (s *Store) Path() string { return s.path }

// View calls fn with a transaction that reads one state of the database. It
// waits up to 10 s, or until ctx ends, for a process that is writing; then the
// error is ErrBusy, or that of ctx. While fn runs nobody can write, so fn
// should read and return, and print later. An error of fn is returned as it
// is. Neither View nor Update may be called from within fn.
//
// The first View of a database that an older profile wrote brings it up to
// date, for which it must be writable.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	err := s.view(ctx, fn)
	if errors.Is(err, errOlder) {
		if err = s.Update(ctx, func(*Tx) error { return nil }); err != nil {
			return fmt.Errorf("an older profile wrote this database, and it must be brought up to date once: %w", err)
		}
		err = s.view(ctx, fn)
	}
	return err
}

func (s *Store) view(ctx context.Context, fn func(*Tx) error) error {
	return s.with(ctx, false, func(b *bbolt.Tx) error {
		tx, err := newTx(b)
		if err != nil {
			return fmt.Errorf("open database %s: %w", s.path, err)
		}
		return fn(tx)
	})
}

// Update calls fn with a transaction that reads and writes. All that fn wrote
// is on the disk when Update returns nil; if fn or the disk fails, nothing of
// it is. It waits as View does, for readers too.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.with(ctx, true, func(b *bbolt.Tx) error {
		tx, err := newTx(b)
		if err != nil {
			return fmt.Errorf("open database %s: %w", s.path, err)
		}
		if err := fn(tx); err != nil {
			return err
		}
		if err := guard(b.Commit); err != nil {
			return fmt.Errorf("write database %s: %w", s.path, err)
		}
		return nil
	})
}

// initialise makes an empty database under another name and links it to path,
// so that a full disk or a killed process leaves no half of one there, and
// nobody can open it too early.
func initialise(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := checkDir(dir); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".profile-new-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	temp.Close()
	db, err := bbolt.Open(temp.Name(), 0o600, &bbolt.Options{Timeout: wait})
	if err != nil {
		return err
	}
	if err := errors.Join(db.Update(writeSchema), db.Close()); err != nil {
		return err
	}
	err = os.Link(temp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was first
	}
	return err
}
