package profiler

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"profile/store"
)

// host answers from /proc and the file system what an agent of this very host
// does not tell.
type host struct{}

// startSlop allows for the coarse start times of /proc, in seconds.
const startSlop = 1.0

// resolve gives the executable of a process, "" where it cannot be known: of
// the process while it lives, else of the name that it was started by, if that
// is no script's. inContainer says that the name is in another file system.
func (host) resolve(p *api.Process, inContainer bool) string {
	if proc, err := procfs.NewProc(int(p.GetPid().GetValue())); err == nil {
		stat, err := proc.Stat()
		if err == nil {
			begun, err := stat.StartTime()
			if err == nil && (nanos(p.GetStartTime()) == 0 || begun <= float64(nanos(p.GetStartTime()))/1e9+startSlop) {
				if exe, err := proc.Executable(); err == nil {
					return strings.TrimSuffix(exe, " (deleted)")
				}
			}
		}
	}
	name := absolute(p.GetBinary(), p.GetCwd())
	if inContainer || !strings.HasPrefix(name, "/") {
		return ""
	}
	path, err := filepath.EvalSymlinks(name)
	if err != nil || isScript(path) {
		return ""
	}
	return path
}

func isScript(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return true // whatever it is, it is no executable that a policy could name
	}
	file, err := os.Open(path)
	if err != nil {
		return true
	}
	defer file.Close()
	var head [2]byte
	_, err = file.Read(head[:])
	return err != nil || bytes.Equal(head[:], []byte("#!"))
}

// changedSince is the identity of a file that is not there as it was any more.
// No other file has it.
var changedSince = store.FileID{CtimeNS: 1}

// file gives the file that was executed at a path at a time. The one there now
// is it, if nothing has become of that since.
func (host) file(path string, at int64) store.FileID {
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case errors.Is(err, fs.ErrNotExist):
		return changedSince
	case err != nil, st.Ctim.Nano() > time.Now().UnixNano(): // the clock was set back: times tell nothing
		return store.FileID{}
	case st.Ctim.Nano() > at:
		return changedSince
	}
	return store.FileID{Dev: st.Dev, Ino: st.Ino, Size: st.Size, CtimeNS: st.Ctim.Nano()}
}

// running is a process, with the path of its executable and its start in
// nanoseconds since 1970, to the hundredth of a second.
type running struct {
	pid     uint32
	path    string
	started int64
}

// running gives the processes of this pid namespace that have an executable.
func (host) running() ([]running, error) {
	own := host{}.pidNamespace(uint32(os.Getpid()))
	if own == 0 {
		return nil, errors.New("the pid namespace of this process cannot be told")
	}
	procs, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return nil, err
	}
	booted := time.Now().UnixNano() - up.Nano()
	var all []running
	for _, proc := range procs {
		path, err := proc.Executable()
		if err != nil || path == "" {
			continue // a kernel thread, or gone
		}
		if (host{}).pidNamespace(uint32(proc.PID)) != own {
			continue
		}
		if stat, err := proc.Stat(); err == nil && stat.State != "Z" {
			const tick = int64(time.Second) / 100 // USER_HZ, see proc(5)
			all = append(all, running{uint32(proc.PID), strings.TrimSuffix(path, " (deleted)"), booted + int64(stat.Starttime)*tick})
		}
	}
	return all, nil
}

// pidNamespace gives the inode number of the pid namespace of a process, 0 where
// it cannot be known.
func (host) pidNamespace(pid uint32) uint32 {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid), &st); err != nil {
		return 0
	}
	return uint32(st.Ino)
}

// thread reports whether a task that is alive is a thread of another process.
func (host) thread(pid uint32) bool {
	proc, err := procfs.NewProc(int(pid))
	if err != nil {
		return false
	}
	status, err := proc.NewStatus()
	return err == nil && status.TGID != int(pid)
}

// alive reports whether there is a process of the pid.
func (host) alive(pid uint32) bool {
	_, err := procfs.NewProc(int(pid))
	return err == nil
}
