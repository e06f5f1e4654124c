package main

import (
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A command on a terminal is in the process group of this process, as one of a
// shell's pipeline is, so that Ctrl-C and Ctrl-Z reach both. If it stops by
// itself, or in a group of its own as a shell has, that is passed on here: the
// shell above waits for this process alone.

const (
	childStopped = 5 // CLD_STOPPED of the kernel
	// settle is how long it takes at most until a signal to the whole group has
	// reached each of it.
	settle = 50 * time.Millisecond
)

// withoutInterrupt says that this process was started as one that Ctrl-C is not
// meant for: in the background of a shell without job control.
var withoutInterrupt = signal.Ignored(os.Interrupt)

// followStops returns when the child has ended, without reaping it. Whenever it
// stops, so does this process.
func followStops(pid int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || info.Code != childStopped {
			return
		}
		// Where the whole group was stopped this goes on only when all of it does.
		time.Sleep(settle)
		info = unix.Siginfo{}
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG, nil); err == nil && info.Signo != 0 {
			stopWith(pid)
		}
	}
}

// stopWith stops this process because the child has stopped, and when it goes
// on lets the child go on, on the terminal if it had that. Where there is no
// shell that could make it go on, the kernel does not stop it (SIGTSTP in an
// orphaned group).
func stopWith(pid int) {
	group, err := unix.Getpgid(pid)
	if err != nil {
		return
	}
	tty := openTerminal()
	if tty == nil {
		return
	}
	defer tty.Close()
	had := foreground(tty) == group
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, unix.SIGCONT)
	defer signal.Stop(resumed)
	// A signal to the own thread takes effect before the call returns.
	runtime.LockOSThread()
	err = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGTSTP)
	runtime.UnlockOSThread()
	if err != nil {
		return
	}
	select {
	case <-resumed:
	case <-time.After(settle):
		return // it was not stopped
	}
	if own := unix.Getpgrp(); group != own {
		if had && foreground(tty) == own {
			giveTerminal(tty, group)
		}
		_ = unix.Kill(-group, unix.SIGCONT) // it may have ended
	}
}

// openTerminal opens the terminal of this process; nil if it has none.
func openTerminal() *os.File {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	return tty
}

// foreground is the process group that the terminal's keys go to; 0 if that
// cannot be told.
func foreground(tty *os.File) int {
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// giveTerminal makes another group the foreground one. It may have ended, and
// then the terminal stays where it is.
func giveTerminal(tty *os.File, group int) {
	signal.Ignore(unix.SIGTTOU) // a group in the background is stopped for it
	defer signal.Reset(unix.SIGTTOU)
	_ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, group)
}

// takeTerminal takes the terminal back from a command that had it and was killed:
// what is done next on it, by a script say, is not to be in its background.
func takeTerminal() {
	tty := openTerminal()
	if tty == nil {
		return
	}
	defer tty.Close()
	if group := foreground(tty); group != 0 && unix.Kill(-group, 0) == unix.ESRCH {
		giveTerminal(tty, unix.Getpgrp())
	}
}

// interruptsBoth reports whether Ctrl-C on a terminal reaches the command without
// this process.
func interruptsBoth() bool {
	if withoutInterrupt {
		return false
	}
	tty := openTerminal()
	if tty == nil {
		return false
	}
	defer tty.Close()
	return foreground(tty) == unix.Getpgrp()
}
