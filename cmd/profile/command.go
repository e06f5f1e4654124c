package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// command is the COMMAND of learn: it runs in a cgroup of its own, on this
// terminal, and its end is the end of the session.
type command struct {
	args  []string
	group *commandGroup

	cmd  *exec.Cmd
	err  error         // why it could not be started
	done chan struct{} // closed when it has ended; nil if it was not started
}

// codeError passes on how a command ended.
type codeError struct{ code int }

func (e codeError) Error() string { return fmt.Sprintf("the command exits %d", e.code) }

// errNotStarted is returned where learning ended before the command could begin.
var errNotStarted = errors.New("the command was not started: learning ended before its window was open")

// newCommand makes the command's cgroup, below that of this process.
func newCommand(args []string) (*command, error) {
	group, err := makeGroup()
	if err != nil {
		return nil, err
	}
	return &command{args: args, group: group}, nil
}

// start runs the command, and calls ended when it is over or could not be
// started. It forwards what is sent to this process alone.
func (c *command) start(ended func()) {
	c.cmd = exec.Command(c.args[0], c.args[1:]...)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(c.group.held.Fd())}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded()...)
	if c.err = c.cmd.Start(); c.err != nil {
		signal.Stop(signals)
		ended()
		return
	}
	c.done = make(chan struct{})
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		followStops(c.cmd.Process.Pid)
		_ = c.cmd.Wait() // how it ended is in ProcessState
	}()
	go func() {
		defer close(c.done)
		defer signal.Stop(signals)
		for {
			select {
			case s := <-signals:
				c.forward(s)
			case <-exited:
				takeTerminal()
				ended()
				return
			}
		}
	}()
}

// forwarded are the signals that the command may not get by itself. What is
// ignored, as nohup has it, the command ignores as well. What would end this
// process is caught, and not ignored, since the command would inherit that.
func forwarded() []os.Signal {
	all := []os.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// forward passes a signal on. Those of a terminal's keys reach both, and twice
// is more than once: many programs give up on cleaning up then.
func (c *command) forward(s os.Signal) {
	if (s == syscall.SIGINT || s == syscall.SIGQUIT) && interruptsBoth() {
		return
	}
	_ = c.cmd.Process.Signal(s) // it may have ended
}

// wait waits for the command and removes its cgroup. What the command left
// running there is moved to the cgroup above.
func (c *command) wait() error {
	if c.done != nil {
		<-c.done
	}
	err := c.group.remove()
	switch {
	case c.err != nil:
		return errors.Join(fmt.Errorf("start the command: %w", c.err), err)
	case err != nil:
		return err
	case c.cmd == nil:
		return errNotStarted
	}
	ws := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ws.Signaled():
		return codeError{128 + int(ws.Signal())} // as a shell has it
	case ws.ExitStatus() != 0:
		return codeError{ws.ExitStatus()}
	}
	return nil
}
