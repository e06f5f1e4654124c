package tetragon

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// instanceWithin bounds how long it is waited for whoever listens.
const instanceWithin = 5 * time.Second

// Instance names the process that the agent is, by the boot of this host, its
// pid and its start: an agent that was restarted is another. It is "" where the
// kernel does not say who listens at the address, as for one that is no unix
// socket, or that is not a Tetragon but something which passes its API on.
func (a *Agent) Instance() string {
	path, is := strings.CutPrefix(a.Address, "unix:")
	if !is {
		return ""
	}
	conn, err := net.DialTimeout("unix", strings.TrimPrefix(path, "//"), instanceWithin)
	if err != nil {
		return ""
	}
	defer conn.Close()
	pid, err := listener(conn.(*net.UnixConn))
	if err != nil {
		return ""
	}
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	stat, err := proc.Stat()
	if err != nil || stat.Comm != "tetragon" {
		return ""
	}
	return fmt.Sprintf("%s %d %d", strings.TrimSpace(string(boot)), pid, stat.Starttime)
}

// listener is the process that listens at the other end, in this process's pid
// namespace.
func listener(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}
