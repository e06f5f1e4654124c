package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary runs itself again as another process: childEnv says as which
// of these, and the first argument names the database.
const childEnv = "PROFILE_STORE_TEST_CHILD"

var children = map[string]func(path string) error{
	"hold":   childHold,
	"lock":   childLock,
	"write":  childWrite,
	"create": childCreate,
	"disk":   childDisk,
}

func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv(childEnv)]; ok {
		if err := child(os.Args[1]); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func start(t *testing.T, child, path string, attr *syscall.SysProcAttr) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", path)
	cmd.Env = append(os.Environ(), childEnv+"="+child)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, stdin, bufio.NewScanner(stdout)}
	t.Cleanup(func() {
		p.kill()
		p.wait()
	})
	return p
}

// line waits for the next line that the process prints; "" is its end.
func (p *process) line() string {
	p.lines.Scan()
	return p.lines.Text()
}

// kill is kill -9; what was printed can still be read before wait.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

func (p *process) wait() { _ = p.cmd.Wait() }

// childHold keeps the database open for writing until its input ends.
func childHold(path string) error {
	s, err := Open(path)
	if err != nil {
		return err
	}
	return s.Update(context.Background(), func(tx *Tx) error {
		fmt.Println("held")
		_, err := io.Copy(io.Discard, os.Stdin)
		return errors.Join(err, tx.PutEvidence(realistic(1)))
	})
}

// childLock keeps the lock until its input ends.
func childLock(path string) error {
	s, err := Open(path)
	if err != nil {
		return err
	}
	lock, err := s.LockLearn()
	if err != nil {
		return err
	}
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, lock.Release())
}

// Each update of childWrite writes its number to a session and to all of these
// rows, whose size changes so that pages split and are freed.
const writtenRows = 60

// childWrite writes until it is killed, and prints each number once it is in
// the database.
func childWrite(path string) error {
	s, err := Create(path)
	if err != nil {
		return err
	}
	n := uint64(0)
	if err := s.View(context.Background(), func(tx *Tx) (err error) {
		n, err = written(tx)
		return err
	}); err != nil {
		return err
	}
	for {
		n++
		if err := s.Update(context.Background(), func(tx *Tx) error { return write(tx, n) }); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func write(tx *Tx, n uint64) error {
	if err := tx.PutSession(&Session{ID: "s", Awake: time.Duration(n)}); err != nil {
		return err
	}
	for i := range writtenRows {
		e := realistic(i)
		e.Files[0].Seen = n
		e.Files[0].Args = make([]string, (n*7+uint64(i)*13)%500)
		if err := tx.PutEvidence(e); err != nil {
			return err
		}
	}
	return nil
}

// written gives the number that all rows agree on, 0 where there is none.
func written(tx *Tx) (uint64, error) {
	sessions, err := tx.Sessions()
	if err != nil || len(sessions) == 0 {
		return 0, err
	}
	n, rows := uint64(sessions[0].Awake), 0
	for group, err := range tx.Executables() {
		if err != nil {
			return 0, err
		}
		rows++
		if got := group[0].Files[0].Seen; got != n {
			return 0, fmt.Errorf("%q is of update %d, the session of %d", group[0].Key.Path, got, n)
		}
	}
	if rows != writtenRows {
		return 0, fmt.Errorf("%d rows after update %d", rows, n)
	}
	return n, nil
}

// childCreate makes databases until it is killed.
func childCreate(path string) error {
	for i := 0; ; i++ {
		if _, err := Create(fmt.Sprint(path, i)); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

// childDisk runs in a mount namespace of its own, where it makes a small disk
// and fills it.
func childDisk(path string) error {
	dir := filepath.Dir(path)
	if err := unix.Mount("profile-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	s, err := Create(path)
	if err != nil {
		return err
	}
	update := func(n uint64) error {
		return s.Update(context.Background(), func(tx *Tx) error { return write(tx, n) })
	}
	expect := func(want uint64) error {
		return s.View(context.Background(), func(tx *Tx) error {
			if got, err := written(tx); err != nil || got != want {
				return fmt.Errorf("update %d is there, %w; want %d", got, err, want)
			}
			return nil
		})
	}
	if err := errors.Join(update(1), expect(1)); err != nil {
		return err
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("the disk is not full: %w", err)
	}
	// Free pages of the file may take one or two updates more.
	n := uint64(2)
	for err = update(n); err == nil && n < 20; err = update(n) {
		n++
	}
	if !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("update on a full disk: %w", err)
	}
	if err := errors.Join(expect(n-1), clean(path)); err != nil {
		return err
	}
	other := filepath.Join(dir, "other.db")
	if _, err := Create(other); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("create on a full disk: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, err2 := filepath.Glob(filepath.Join(dir, ".*"))
	if len(left) != 2 || len(hidden) != 0 || err != nil || err2 != nil {
		return fmt.Errorf("left behind: %q, %q", left, hidden)
	}
	if err := errors.Join(os.Remove(filler), update(n), expect(n), clean(path)); err != nil {
		return err
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	if err := update(n + 1); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("update of a read-only file: %w", err)
	}
	if _, err := Create(path); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("create of a read-only file: %w", err)
	}
	if _, err := Open(path); err != nil {
		return err
	}
	if err := expect(n); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}
