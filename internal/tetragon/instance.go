package tetragon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// instanceWithin bounds how long it is waited for whoever listens.
const instanceWithin = 5 * time.Second

// program is what the process of a Tetragon is called.
const program = "tetragon"

// errUnknown is why nothing more is said of who listens.
var errUnknown = errors.New("who listens is not known")

// Instance names the process that the agent is, by the boot of this host, its
// pid and its start: an agent that was restarted is another. It is "" where the
// kernel does not say that a Tetragon listens at the address: it is of another
// host, or something else passes its API on.
func (a *Agent) Instance() string {
	proc, err := a.process()
	if err != nil {
		return ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	stat, err := proc.Stat()
	if err != nil || stat.Comm != program {
		return ""
	}
	return fmt.Sprintf("%s %d %d", strings.TrimSpace(string(boot)), proc.PID, stat.Starttime)
}

// Executable is the resolved executable of the process that the agent is, "" if
// that is not known. Of what only passes its API on it is that one's.
func (a *Agent) Executable() string {
	proc, err := a.process()
	if err != nil {
		return ""
	}
	file, err := proc.Executable()
	if err != nil {
		return ""
	}
	return file
}

// process is the one that listens at the address of an agent of this host, which
// the embedded sensor has none of.
func (a *Agent) process() (procfs.Proc, error) {
	if !a.OnThisHost() {
		return procfs.Proc{}, errUnknown
	}
	find := atPort
	if strings.HasPrefix(a.Address, "unix:") {
		find = atSocket
	}
	pid, err := find(a.Address)
	if err != nil {
		return procfs.Proc{}, err
	}
	return procfs.NewProc(pid)
}

// atSocket is the process, in this one's pid namespace, that listens at a unix
// socket.
func atSocket(address string) (pid int, err error) {
	path := strings.TrimPrefix(strings.TrimPrefix(address, "unix:"), "//")
	conn, err := net.DialTimeout("unix", path, instanceWithin)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// atPort is the one process of a Tetragon that listens at a port of TCP.
func atPort(address string) (pid int, err error) {
	_, port, err := net.SplitHostPort(bare(address))
	if err != nil {
		return 0, err
	}
	sockets, err := listening(port)
	if err != nil {
		return 0, err
	}
	procs, err := procfs.AllProcs()
	if err != nil {
		return 0, err
	}
	for _, proc := range procs {
		if name, err := proc.Comm(); err != nil || name != program {
			continue
		}
		held, err := proc.FileDescriptorTargets()
		switch {
		case err != nil || !slices.ContainsFunc(held, func(file string) bool { return slices.Contains(sockets, file) }):
		case pid != 0:
			return 0, errUnknown
		default:
			pid = proc.PID
		}
	}
	if pid == 0 {
		return 0, errUnknown
	}
	return pid, nil
}

// listening names the sockets that listen at a port of TCP, as they are named
// among the open files of a process. What procfs has for it is deprecated.
func listening(port string) (sockets []string, err error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	const state, inode, listens = 3, 9, "0A" // columns of proc(5), and a state
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // there may be no IPv6
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			field := strings.Fields(line)
			if len(field) > inode && field[state] == listens && strings.HasSuffix(field[1], fmt.Sprintf(":%04X", n)) {
				sockets = append(sockets, "socket:["+field[inode]+"]")
			}
		}
	}
	return sockets, nil
}
