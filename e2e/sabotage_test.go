package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"profile/internal/tetragon"
)

// sabotage detach|unpin|remove CODE PROGRAM ARG… runs a program outside the
// cgroup, which must exit with that code, and takes away the hook of the policy
// that it loads, the hook's pin, or the policy's pins with their directory,
// when the first canary is about to be started: the kernel asks the test before
// it executes anything beside the database.
func cmdSabotage(ts *testscript.TestScript, neg bool, args []string) {
	pins, canaries := ts.Getenv("PINS"), ts.Getenv("DB")+".canary"
	ts.Check(os.MkdirAll(canaries, 0o700))
	asked, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	ts.Check(err)
	ts.Check(unix.FanotifyMark(asked, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM|unix.FAN_EVENT_ON_CHILD, -1, canaries))
	before := policiesIn(pins)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- answer(asked, stop, func() error {
			loaded := slices.DeleteFunc(policiesIn(pins), func(p string) bool { return slices.Contains(before, p) })
			if len(loaded) != 1 {
				return fmt.Errorf("%d policies were loaded, want 1 to sabotage", len(loaded))
			}
			return sabotage(loaded[0], args[0])
		})
	}()
	defer func() {
		close(stop)
		ts.Check(<-done)
	}()
	cmdExit(ts, false, args[1:])
}

// lapse detach|unpin|remove does so to the one policy in force, whenever. From
// an agent it is deleted, which alone knows what it has.
func cmdLapse(ts *testscript.TestScript, neg bool, args []string) {
	if agent, _ := against(); agent != nil {
		ts.Check(agent.forget(tetragon.EnforcePrefix))
		return
	}
	loaded := policiesIn(ts.Getenv("PINS"))
	if len(loaded) != 1 {
		ts.Fatalf("%d policies are loaded, want 1", len(loaded))
	}
	ts.Check(sabotage(loaded[0], args[0]))
}

func policiesIn(pins string) []string {
	found, _ := filepath.Glob(filepath.Join(pins, "[0-9]"))
	return found
}

func sabotage(policy, how string) error {
	hooks := []string{"link_enforce_socket"}
	if modifiesReturns() {
		hooks = []string{"link_enforce_kill", "link_enforce_create"}
		if how == "detach" {
			how = "unpin" // such a hook knows no other way
		}
	}
	var programs []ebpf.ProgramID
	for _, hook := range hooks {
		l, err := link.LoadPinnedLink(filepath.Join(policy, hook), nil)
		if err != nil {
			return err
		}
		info, err := l.Info()
		if err == nil && how == "detach" {
			err = l.Detach()
		}
		if err := errors.Join(err, l.Close()); err != nil {
			return err
		}
		programs = append(programs, info.Program)
	}
	switch how {
	case "detach":
		return nil
	case "unpin":
		for _, hook := range hooks {
			if err := os.Remove(filepath.Join(policy, hook)); err != nil {
				return err
			}
		}
	case "remove":
		if err := os.RemoveAll(policy); err != nil {
			return err
		}
	default:
		return fmt.Errorf("there is no sabotage %q", how)
	}
	for _, id := range programs {
		if err := awaitGone(id); err != nil {
			return err
		}
	}
	return nil
}

// awaitGone waits for the end of a hook: the kernel takes its time with what
// nobody refers to any more. Its program goes last, when it has been detached.
func awaitGone(id ebpf.ProgramID) error {
	for range 2000 {
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			p.Close()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("the hook does not go")
}

// answer lets everything be executed that the kernel asks about, the first once
// do has returned, until it is stopped. Closing the descriptor lets go of what
// is still asked.
func answer(asked int, stop chan struct{}, do func() error) error {
	defer unix.Close(asked)
	err := errors.New("nothing was executed")
	first := true
	for {
		select {
		case <-stop:
			return err
		default:
		}
		ready := []unix.PollFd{{Fd: int32(asked), Events: unix.POLLIN}}
		if n, _ := unix.Poll(ready, 20); n < 1 {
			continue
		}
		var event unix.FanotifyEventMetadata
		buf := make([]byte, binary.Size(event)) // room for one
		if _, e := unix.Read(asked, buf); e != nil {
			return e
		}
		if e := binary.Read(bytes.NewReader(buf), binary.NativeEndian, &event); e != nil {
			return e
		}
		if first {
			first, err = false, do()
		}
		var allow bytes.Buffer
		if e := binary.Write(&allow, binary.NativeEndian, unix.FanotifyResponse{Fd: event.Fd, Response: unix.FAN_ALLOW}); e != nil {
			return e
		}
		_, e := unix.Write(asked, allow.Bytes())
		if e := errors.Join(e, unix.Close(int(event.Fd))); e != nil {
			return e
		}
	}
}
