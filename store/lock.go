package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// Lock is held by the one learning session that writes to a database, or by the
// one command that watches, listens, or changes what is in force. The kernel
// drops it when the process ends, however it ends.
type Lock struct{ flock *flock.Flock }

// HeldError tells who holds the lock of a database. PID is 0 and Since zero
// where the holder has not said so.
type HeldError struct {
	Path  string // of the database
	By    string // what holds it, such as ByLearner
	PID   int
	Since time.Time
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("database %s is held by %s", e.Path, e.By)
	}
	return fmt.Sprintf("database %s is held by %s: process %d, since %s",
		e.Path, e.By, e.PID, e.Since.Format(time.RFC3339))
}

// ByLearner is what a HeldError says of the lock of a learning session.
const ByLearner = "another learning session"

// Attempts to lock, or else to read who holds the lock: its holder writes that
// only once it has it.
const (
	lockAttempts = 10
	lockPause    = 10 * time.Millisecond
)

// LockLearn takes the lock of the database for a learning session: the file
// beside it with ".lock" added to its name, which holds the process and the
// time. The error is a *HeldError if another session has it. Reading and
// writing need no lock.
func (s *Store) LockLearn() (*Lock, error) { return s.lock(learnSuffix, ByLearner) }

// Learning reports whether a session learns, or was killed and none has learned
// since. It takes no lock, which would keep one from beginning.
func (s *Store) Learning() bool {
	pid, _ := readHolder(s.path + learnSuffix)
	return pid != 0
}

// LockWatch takes the lock of the one command that keeps in force what is in
// force: the file with ".watch" added. It is otherwise as LockLearn.
func (s *Store) LockWatch() (*Lock, error) { return s.lock(".watch", "another command that watches") }

// LockListen takes the lock of the one process that writes down whom the agent
// kills: the file with ".listen" added. It is otherwise as LockLearn.
func (s *Store) LockListen() (*Lock, error) { return s.lock(".listen", "another command that listens") }

// LockForce takes the lock of the one command that changes what is in force: the
// file with ".force" added. It waits for another until ctx ends; then the error
// is a *HeldError. On a full disk it is had all the same, without a word of who
// has it.
func (s *Store) LockForce(ctx context.Context) (*Lock, error) {
	for {
		lock, err := s.lock(forceSuffix, "another command that changes what is in force")
		var held *HeldError
		if !errors.As(err, &held) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(forcePause):
		}
	}
}

// Changing reports whether a command changes what is in force just now.
func (s *Store) Changing() bool {
	f, err := os.Open(s.path + forceSuffix)
	if err != nil {
		return false
	}
	defer f.Close() // and with it what it has locked
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

const (
	learnSuffix = ".lock"
	forceSuffix = ".force"
	forcePause  = 50 * time.Millisecond
)

func (s *Store) lock(suffix, by string) (*Lock, error) {
	name := s.path + suffix
	// The file stays when the lock is released: were it removed, one process
	// could lock the old file and another one a new file.
	lock := flock.New(name, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	held := &HeldError{Path: s.path, By: by}
	for range lockAttempts {
		ok, err := lock.TryLock()
		if err == nil && ok {
			if err = writeHolder(name); err == nil || suffix == forceSuffix {
				return &Lock{lock}, nil
			}
			lock.Unlock()
		}
		if err != nil {
			return nil, fmt.Errorf("lock database %s: %w", s.path, err)
		}
		if held.PID, held.Since = readHolder(name); held.PID != 0 {
			break
		}
		time.Sleep(lockPause)
	}
	return nil, held
}

// Release gives the lock back; a second call does nothing.
func (l *Lock) Release() error {
	if !l.flock.Locked() {
		return nil
	}
	// So that the next holder is not taken for this one.
	_ = os.Truncate(l.flock.Path(), 0)
	if err := l.flock.Unlock(); err != nil {
		return fmt.Errorf("release %s: %w", l.flock.Path(), err)
	}
	return nil
}

const holderFormat = "process %d since %s\n"

func writeHolder(name string) error {
	text := fmt.Sprintf(holderFormat, os.Getpid(), time.Now().UTC().Format(time.RFC3339Nano))
	return os.WriteFile(name, []byte(text), 0o600)
}

// readHolder gives 0 if the file does not say who holds it, or not yet whole.
func readHolder(name string) (pid int, since time.Time) {
	f, err := os.Open(name)
	if err != nil {
		return 0, time.Time{}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 128))
	if err != nil || !strings.HasSuffix(string(text), "\n") {
		return 0, time.Time{}
	}
	var stamp string
	if _, err := fmt.Sscanf(string(text), holderFormat, &pid, &stamp); err != nil {
		return 0, time.Time{}
	}
	if since, err = time.Parse(time.RFC3339Nano, stamp); err != nil {
		return 0, time.Time{}
	}
	return pid, since
}
