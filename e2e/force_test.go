package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// pinsOf is where what is in force for a database is pinned: in a directory
// named after it.
func pinsOf(db string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(db)); err == nil {
		db = filepath.Join(dir, filepath.Base(db))
	}
	root := "/run/profile/bpf/profile"
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/bpf", &st) == nil && st.Type == unix.BPF_FS_MAGIC {
		root = "/sys/fs/bpf/profile"
	}
	sum := sha256.Sum256([]byte(db))
	return filepath.Join(root, fmt.Sprintf("%s-%x", strings.ReplaceAll(filepath.Base(db), ".", "_"), sum[:6]))
}

// below lists the groups below the script's own, the deepest first.
func (s *script) below() []string {
	var groups []string
	filepath.WalkDir(s.cgroup, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != s.cgroup {
			groups = append([]string{path}, groups...)
		}
		return nil
	})
	return groups
}

// clean: nothing of the script's database is in the kernel, no program is
// attached to its cgroup, and no canary is left.
func cmdClean(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if left, err := os.ReadDir(ts.Getenv("PINS")); !errors.Is(err, fs.ErrNotExist) {
		ts.Fatalf("%s is there still: %v %v", ts.Getenv("PINS"), left, err)
	}
	for _, group := range append(s.below(), s.cgroup) {
		out, err := exec.Command("bpftool", "cgroup", "show", group).CombinedOutput()
		// It fails where nothing is attached and it cannot ask for flow dissectors.
		if strings.Contains(string(out), "sock_create") {
			ts.Fatalf("attached to %s: %v %s", group, err, out)
		}
	}
	left, err := filepath.Glob(ts.Getenv("DB") + ".canary/*")
	if ts.Check(err); len(left) > 0 {
		ts.Fatalf("canaries are left: %q", left)
	}
}

// ended [-killed] waits for the oldest program in the background, which must
// exit 0; with -killed it must die of SIGKILL.
func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if len(s.running) == 0 {
		ts.Fatalf("nothing runs in the background")
	}
	cmd := s.running[0]
	s.running = s.running[1:]
	timer := time.AfterFunc(within, func() { cmd.Process.Signal(syscall.SIGQUIT) })
	err := cmd.Wait()
	timer.Stop()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	killed := status.Signaled() && status.Signal() == syscall.SIGKILL
	if want := len(args) > 0 && args[0] == "-killed"; want != killed || !want && err != nil {
		ts.Fatalf("%q ended with %v", cmd.Args, err)
	}
}

// crowd DIR N makes a directory with so many executables, all of them actors.
func cmdCrowd(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o755))
	first := filepath.Join(dir, "0")
	raw, err := os.ReadFile(filepath.Join(built, "actor"))
	ts.Check(err)
	ts.Check(os.WriteFile(first, raw, 0o755))
	for i := 1; i < n; i++ {
		ts.Check(os.Link(first, filepath.Join(dir, strconv.Itoa(i))))
	}
}

// sabotage detach|unpin|remove CODE PROGRAM ARG… runs a program outside the
// cgroup, which must exit with that code, and takes away the hook of the policy
// that it loads, the hook's pin, or the policy's pins with their directory, as
// soon as they are there.
func cmdSabotage(ts *testscript.TestScript, neg bool, args []string) {
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- saboteur(ts.Getenv("PINS"), args[0], stop) }()
	func() {
		defer close(stop)
		cmdExit(ts, false, args[1:])
	}()
	ts.Check(<-done)
}

// saboteur looks without a pause and ahead of everyone else: between the load
// of a policy and the canary that tries it lie a few milliseconds, or some more
// if the policy lists a crowd.
func saboteur(pins, how string, stop chan struct{}) error {
	runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20); err != nil {
		return err
	}
	// The socket hook is pinned last.
	hooks := func() []string {
		found, _ := filepath.Glob(filepath.Join(pins, "*", "link_enforce_socket"))
		return found
	}
	before := hooks()
	for {
		select {
		case <-stop:
			return errors.New("there was nothing to sabotage")
		default:
		}
		found := slices.DeleteFunc(hooks(), func(path string) bool { return slices.Contains(before, path) })
		if len(found) == 0 {
			continue
		}
		switch how {
		case "detach":
			l, err := link.LoadPinnedLink(found[0], nil)
			if err != nil {
				return err
			}
			return errors.Join(l.Detach(), l.Close())
		case "unpin":
			return os.Remove(found[0])
		case "remove":
			return os.RemoveAll(filepath.Dir(found[0]))
		}
		return fmt.Errorf("there is no sabotage %q", how)
	}
}
