package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"profile/internal/tetragon"
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
// attached to its cgroup, no canary is left, and nothing of ours is loaded by a
// Tetragon.
func cmdClean(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if agent, _ := against(); agent != nil && agent.tetragon {
		ts.Check(agent.ask(func(ctx context.Context, a *tetragon.Agent) error {
			left, err := a.Policies(ctx, "profile-")
			if len(left) > 0 {
				err = fmt.Errorf("policies are loaded still: %v", left)
			}
			return err
		}))
	}
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
