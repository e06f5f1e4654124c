package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Health is what Check found.
type Health struct {
	Bytes                           int64 // of the file
	Free                            int64 // of them not used, which Compact gives back
	Executables                     int   // keys that there is evidence of
	Evidence, Sessions, Generations int   // rows
	Faults                          []error
}

// maxFaults is how many faults are told: a file that was overwritten has one
// for each page.
const maxFaults = 20

// Check reads all of the database: each row, that its evidence is of sessions
// that are recorded, and each page of the file. What is wrong is in
// Health.Faults; the error is about what kept it from looking.
func (s *Store) Check(ctx context.Context) (*Health, error) {
	h := new(Health)
	err := s.View(ctx, func(tx *Tx) error { return h.checkRows(ctx, tx) })
	if err != nil {
		return nil, err
	}
	if len(h.Faults) > 0 {
		return h, nil // pages that hold no rows need no other fault
	}
	return h, s.with(ctx, false, func(b *bbolt.Tx) error {
		for err := range b.Check() {
			h.fault(fmt.Errorf("the file is damaged: %w", err))
		}
		info, err := os.Stat(s.path)
		if err != nil {
			return err
		}
		h.Bytes = info.Size()
		h.Free = h.Bytes - b.Size() + int64(b.DB().Stats().FreePageN)*int64(b.DB().Info().PageSize)
		return nil
	})
}

func (h *Health) fault(err error) {
	if len(h.Faults) < maxFaults {
		h.Faults = append(h.Faults, err)
	}
}

func (h *Health) checkRows(ctx context.Context, tx *Tx) error {
	sessions, err := tx.Sessions()
	if err != nil {
		h.fault(err)
	}
	known := map[string]bool{}
	for _, s := range sessions {
		known[s.ID] = true
	}
	generations, err := tx.Generations()
	if err != nil {
		h.fault(err)
	}
	h.Sessions, h.Generations = len(sessions), len(generations)
	for rows, err := range tx.Executables() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			h.fault(err)
			break
		}
		h.Executables++
		for _, row := range rows {
			h.Evidence++
			if !known[row.Session] {
				h.fault(fmt.Errorf("evidence of %.200q is of session %.200q, which is not recorded", row.Key.Path, row.Session))
			}
		}
	}
	return nil
}

// Prune deletes the sessions that ended before a time, with all evidence of
// theirs, and tells how many. Generations stay, with what they killed. It takes
// the lock of a learning session, since one that was killed is not told from
// one that is live without it: the error is a *HeldError if one is live.
func (s *Store) Prune(ctx context.Context, before time.Time) (sessions, rows int, err error) {
	lock, err := s.LockLearn()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	err = s.Update(ctx, func(tx *Tx) error {
		all, err := tx.Sessions()
		if err != nil {
			return err
		}
		old := map[string]bool{}
		for _, one := range all {
			if one.end().Before(before) {
				old[one.ID] = true
			}
		}
		sessions = len(old)
		rows, err = tx.deleteSessions(old)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return sessions, rows, nil
}

// end is when a session ended; of one that was killed, where its last window
// does.
func (s *Session) end() time.Time {
	if n := len(s.Windows); s.Ended.IsZero() && n > 0 {
		return s.Windows[n-1].To
	}
	if s.Ended.IsZero() {
		return s.Started
	}
	return s.Ended
}

// deleteSessions deletes sessions and their evidence.
func (tx *Tx) deleteSessions(ids map[string]bool) (rows int, err error) {
	return rows, guard(func() error {
		var keys [][]byte // a bucket must not change under its cursor
		cursor := tx.evidence.Cursor()
		for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
			if ids[string(key[bytes.LastIndexByte(key, 0)+1:])] {
				keys = append(keys, bytes.Clone(key))
			}
		}
		for _, key := range keys {
			if err := tx.evidence.Delete(key); err != nil {
				return err
			}
		}
		for id := range ids {
			if err := tx.sessions.Delete([]byte(id)); err != nil {
				return err
			}
		}
		rows = len(keys)
		return nil
	})
}

// batch is how much Compact writes in one transaction.
const batch = 1 << 20

// Compact writes the database anew without the pages it does not use, and puts
// that in its place: whole or not at all. Nobody can write meanwhile, and those
// that wait find the new file. It returns how many bytes the file had and has.
func (s *Store) Compact(ctx context.Context) (before, after int64, err error) {
	// What was not brought up to date, or cannot be read, is not written anew.
	if err := s.View(ctx, func(*Tx) error { return nil }); err != nil {
		return 0, 0, err
	}
	f, err := s.open(ctx, true)
	if err != nil {
		return 0, 0, err
	}
	defer f.close(nil)
	info, err := f.os.Stat()
	if err == nil {
		before = info.Size()
		after, err = f.rewrite(s.path, info)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("compact database %s: %w", s.path, err)
	}
	return before, after, nil
}

// rewrite copies what the file holds into a new one, and renames that to path.
func (f *file) rewrite(path string, info os.FileInfo) (int64, error) {
	temp, err := os.CreateTemp(filepath.Dir(path), ".profile-new-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	owner := info.Sys().(*syscall.Stat_t)
	if err := errors.Join(temp.Chown(int(owner.Uid), int(owner.Gid)), temp.Chmod(info.Mode().Perm())); err != nil {
		return 0, err
	}
	db, err := bbolt.Open(temp.Name(), 0o600, &bbolt.Options{Timeout: wait})
	if err != nil {
		return 0, err
	}
	err = guard(func() error { return bbolt.Compact(db, f.db, batch) })
	if err := errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	written, err := os.Stat(temp.Name())
	if err != nil {
		return 0, err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return 0, err
	}
	return written.Size(), syncDir(filepath.Dir(path))
}

// syncDir puts a rename on the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // as some file systems say
		return err
	}
	return nil
}
