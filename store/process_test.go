package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// clean has bbolt check the whole file.
func clean(path string) error {
	db, err := bbolt.Open(path, 0, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		var all []error
		for err := range tx.Check() {
			all = append(all, err)
		}
		return errors.Join(all...)
	})
}

func TestViewWaitsForAnotherProcessThatWrites(t *testing.T) {
	s := newStore(t)
	child := start(t, "hold", s.Path(), nil)
	if got := child.line(); got != "held" {
		t.Fatal(got)
	}

	s.wait = 50 * time.Millisecond
	for name, err := range map[string]error{
		"View":   s.View(context.Background(), readAll),
		"Update": s.Update(context.Background(), readAll),
	} {
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), s.Path()) {
			t.Errorf("%s: error %v, want %v", name, err, ErrBusy)
		}
	}
	s.wait = wait
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.View(ctx, readAll); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}

	const hold = 200 * time.Millisecond
	began := time.Now()
	time.AfterFunc(hold, func() { child.stdin.Close() })
	view(t, s, func(tx *Tx) error {
		if waited := time.Since(began); waited < hold {
			t.Errorf("waited %s, but it was held for %s", waited, hold)
		}
		rows, err := tx.Evidence(realistic(1).Key.Path)
		if len(rows) != 1 {
			t.Errorf("%d rows of what the other process wrote, want 1", len(rows))
		}
		return err
	})
	child.wait()
}

func TestTwoProcessesCanRead(t *testing.T) {
	s := newStore(t)
	view(t, s, func(*Tx) error {
		other, err := Open(s.Path()) // flock does not care that it is the same process
		if err != nil {
			return err
		}
		other.wait = 0
		return other.View(context.Background(), readAll)
	})
}

func TestTheLockIsHeldByOneProcessUntilItDies(t *testing.T) {
	s := newStore(t)
	began := time.Now().Add(-time.Second)
	for _, end := range []string{"release", "kill -9"} {
		child := start(t, "lock", s.Path(), nil)
		if got := child.line(); got != "locked" {
			t.Fatal(got)
		}
		_, err := s.LockLearn()
		var held *HeldError
		if !errors.As(err, &held) {
			t.Fatalf("error %v, want that it is held", err)
		}
		if held.PID != child.cmd.Process.Pid || held.Since.Before(began) || held.Since.After(time.Now()) {
			t.Errorf("held by %d since %s, want %d since a moment ago", held.PID, held.Since, child.cmd.Process.Pid)
		}
		if want := fmt.Sprint("process ", held.PID, ", since "); !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		// A learning session that goes on keeps nobody from reading and writing.
		update(t, s, func(tx *Tx) error { return tx.PutEvidence(realistic(1)) })
		view(t, s, readAll)
		if end == "release" {
			child.stdin.Close()
		} else {
			child.kill()
		}
		child.wait()
		lock, err := s.LockLearn()
		if err != nil {
			t.Fatalf("after %s: %v", end, err)
		}
		if _, err := s.LockLearn(); !errors.As(err, &held) || held.PID != os.Getpid() {
			t.Errorf("error %v of a second lock, want that it is held by this process", err)
		}
		for range 2 { // the second does nothing
			if err := lock.Release(); err != nil {
				t.Error(err)
			}
		}
		if text, err := os.ReadFile(s.Path() + ".lock"); err != nil || len(text) > 0 {
			t.Errorf("the lock file holds %q, %v; want it there and empty", text, err)
		}
	}
}

func TestALockThatDoesNotSayWhoHoldsItIsHeld(t *testing.T) {
	s := newStore(t)
	lock, err := s.LockLearn()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	for _, text := range []string{"", "process 12", "process 12 since 2026-01-01T00:00:00Z", "process x since y\n", "process 12 since y\n", strings.Repeat("9", 5000) + "\n"} {
		if err := os.WriteFile(s.Path()+".lock", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.LockLearn()
		var held *HeldError
		if !errors.As(err, &held) || held.PID != 0 || !held.Since.IsZero() {
			t.Errorf("with %.40q: error %v, want that it is held by nobody knows whom", text, err)
		}
	}
}

func TestNothingAcknowledgedIsLostByKilling(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "profile.db")
	total := 0
	for round := range 20 {
		child := start(t, "write", path, nil)
		first := child.line()
		pause := time.Duration(rand.Int64N(int64(120 * time.Millisecond)))
		time.Sleep(pause)
		child.kill()
		last := first
		for line := child.line(); line != ""; line = child.line() {
			last = line
		}
		child.wait()
		acknowledged, err := strconv.ParseUint(last, 10, 64)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := clean(path); err != nil {
			t.Errorf("round %d, killed after %s: %v", round, pause, err)
		}
		s, err := Open(path)
		if err != nil {
			t.Fatalf("round %d, killed after %s: %v", round, pause, err)
		}
		view(t, s, func(tx *Tx) error {
			// The last update may be in without having been acknowledged.
			got, err := written(tx)
			if got != acknowledged && got != acknowledged+1 {
				t.Errorf("round %d, killed after %s: update %d is there, and %d was acknowledged", round, pause, got, acknowledged)
			}
			total = int(got)
			return err
		})
	}
	t.Logf("%d updates, 20 times killed", total)
}

func TestCreateKilledLeavesAWholeDatabaseOrNone(t *testing.T) {
	for range 10 {
		path := filepath.Join(t.TempDir(), "profile.db")
		child := start(t, "create", path, nil)
		child.line()
		time.Sleep(time.Duration(rand.Int64N(int64(30 * time.Millisecond))))
		child.kill()
		last := 0
		for line := child.line(); line != ""; line = child.line() {
			last, _ = strconv.Atoi(line)
		}
		child.wait()
		if _, err := Open(fmt.Sprint(path, last)); err != nil {
			t.Error(err)
		}
		// The next one was being made.
		if _, err := Create(fmt.Sprint(path, last+1)); err != nil {
			t.Error(err)
		}
	}
}

func TestManyCreateTheSameAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "profile.db")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s, err := Create(path)
			if err == nil {
				err = s.Update(context.Background(), func(tx *Tx) error { return tx.PutEvidence(realistic(i)) })
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	view(t, s, func(tx *Tx) error {
		for _, err := range tx.Executables() {
			if err != nil {
				return err
			}
			rows++
		}
		return nil
	})
	if names := list(t, filepath.Dir(path)); rows != 8 || len(names) != 1 {
		t.Errorf("%d rows and the files %q, want 8 and one file", rows, names)
	}
}

func TestAFullOrReadOnlyDiskIsAnErrorAndLosesNothing(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root, to mount a small disk in a namespace of its own")
	}
	// Go makes / private there, so that the mount is nobody else's.
	child := start(t, "disk", filepath.Join(t.TempDir(), "profile.db"), &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS})
	if got := child.line(); got != "done" {
		t.Error(got)
	}
	child.wait()
}

func TestEachLockIsHeldByItself(t *testing.T) {
	s := newStore(t)
	takers := map[string]func() (*Lock, error){"learning session": s.LockLearn, "watches": s.LockWatch, "listens": s.LockListen}
	for what, take := range takers {
		lock, err := take()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer lock.Release()
	}
	for what, take := range takers {
		var held *HeldError
		if _, err := take(); !errors.As(err, &held) || !strings.Contains(err.Error(), what) || held.PID != os.Getpid() {
			t.Errorf("error %v, want that another that %s has it", err, what)
		}
	}
}

func TestWhatIsInForceIsChangedByOneAtATime(t *testing.T) {
	s := newStore(t)
	if s.Changing() {
		t.Error("it is being changed before anything was")
	}
	first, err := s.LockForce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !s.Changing() {
		t.Error("it is not being changed while the lock is held")
	}
	short, cancel := context.WithTimeout(t.Context(), 3*forcePause)
	defer cancel()
	var held *HeldError
	if _, err := s.LockForce(short); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("error %v, want a *HeldError of this process", err)
	}
	time.AfterFunc(2*forcePause, func() { first.Release() })
	second, err := s.LockForce(t.Context())
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	if err := second.Release(); err != nil {
		t.Error(err)
	}
	if s.Changing() {
		t.Error("it is being changed when all is done")
	}
}

func TestThatSomebodyLearnsIsTold(t *testing.T) {
	s := newStore(t)
	if s.Learning() {
		t.Error("somebody learns before anybody did")
	}
	lock, err := s.LockLearn()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Learning() {
		t.Error("nobody learns while the lock is held")
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if s.Learning() {
		t.Error("somebody learns when all is done")
	}
}
