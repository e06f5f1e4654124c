package canary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"profile/internal/cgroup"
)

// Exit codes of canary.c.
const (
	exitOpened  = 0
	exitRefused = 3
)

// Result is what became of one run. Times are of the wall clock.
type Result struct {
	PID     int       // in this process's pid namespace
	Started time.Time // just before the program was started
	Ended   time.Time // just after it was waited for
	Killed  bool      // it died of SIGKILL
	Refused bool      // its socket was refused, and it lived
}

// Run starts the program in the cgroup, where it is from its first
// instruction, and waits for it. It has no arguments but its name, no
// environment, and the namespaces of this process. A group that may hold no
// processes, because it hands controllers to its children, is given a child
// for the length of the run. If the context ends first, the program is killed
// and the error is the context's. A run that neither opened its socket nor was
// refused or killed is an error.
func (c *Canary) Run(ctx context.Context, g cgroup.Group) (Result, error) {
	res, err := c.run(ctx, g.Dir)
	if errors.Is(err, syscall.EBUSY) {
		res, err = c.runInLeaf(ctx, g.Dir)
	}
	if err != nil {
		return res, fmt.Errorf("run canary in cgroup %q: %w", g.Path, err)
	}
	return res, nil
}

func (c *Canary) runInLeaf(ctx context.Context, dir string) (Result, error) {
	leaf, err := os.MkdirTemp(dir, "profile-canary-")
	if err != nil {
		return Result{}, err
	}
	res, err := c.run(ctx, leaf)
	return res, errors.Join(err, removeLeaf(leaf))
}

// removeLeaf waits for the child of a program that was killed before its own
// wait: until it has exited too, the group is busy.
func removeLeaf(leaf string) error {
	deadline := time.Now().Add(2 * time.Second)
	for {
		err := syscall.Rmdir(leaf)
		if err == nil {
			return nil
		}
		if err != syscall.EBUSY || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %q: %w", leaf, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (c *Canary) run(ctx context.Context, dir string) (Result, error) {
	// Started there, the program would stop before its exec, and this process
	// would wait for that beyond the reach of ctx.
	events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if err == nil && bytes.Contains(events, []byte("frozen 1")) {
		return Result{}, errors.New("the cgroup is frozen")
	}
	group, err := os.Open(dir)
	if err != nil {
		return Result{}, err
	}
	defer group.Close()

	cmd := exec.CommandContext(ctx, c.path)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	var cancelled atomic.Bool
	cmd.Cancel = func() error {
		cancelled.Store(true)
		return cmd.Process.Kill()
	}
	res := Result{Started: time.Now()}
	if err := cmd.Start(); err != nil {
		return res, err
	}
	res.PID = cmd.Process.Pid
	waitErr := cmd.Wait()
	res.Ended = time.Now()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case cancelled.Load():
		return res, ctx.Err()
	case !ok:
		return res, waitErr
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		res.Killed = true
	case status.Exited() && status.ExitStatus() == exitRefused:
		res.Refused = true
	case !status.Exited() || status.ExitStatus() != exitOpened:
		return res, fmt.Errorf("%q could not open a socket: %w", c.path, waitErr)
	}
	return res, nil
}
