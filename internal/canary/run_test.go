package canary

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"profile/internal/cgroup"
)

// newGroup creates a cgroup below the root, and removes it with all in it.
func newGroup(t *testing.T) cgroup.Group {
	t.Helper()
	needRoot(t)
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root.Dir, "profile-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		if err := removeLeaf(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	g, err := cgroup.Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// refuseSockets makes the kernel refuse every network socket in the group.
func refuseSockets(t *testing.T, g cgroup.Group) {
	t.Helper()
	refuse, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.CGroupSock,
		AttachType:   ebpf.AttachCGroupInetSockCreate,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Apache-2.0",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { refuse.Close() })
	l, err := link.AttachCgroup(link.CgroupOptions{
		Path: g.Dir, Attach: ebpf.AttachCGroupInetSockCreate, Program: refuse,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// enableController lets the group hand a controller to its children, so that
// it may hold no processes itself.
func enableController(t *testing.T, g cgroup.Group) {
	t.Helper()
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	list := func(dir, file string) []string {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(text))
	}
	set := func(dir, word string) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(word), 0); err != nil {
			t.Error(err)
		}
	}
	if len(list(g.Dir, "cgroup.controllers")) == 0 {
		all := list(root.Dir, "cgroup.controllers")
		if len(all) == 0 {
			t.Skip("no controller is on the cgroup2 tree: every group may hold processes")
		}
		set(root.Dir, "+"+all[0])
		t.Cleanup(func() { set(root.Dir, "-"+all[0]) })
	}
	own := list(g.Dir, "cgroup.controllers")
	set(g.Dir, "+"+own[0])
	t.Cleanup(func() { set(g.Dir, "-"+own[0]) })
}

func TestRunOpensASocketAndExits(t *testing.T) {
	c, g := install(t), newGroup(t)
	before := time.Now()
	res, err := c.Run(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	if res.Killed || res.Refused || res.PID <= 0 {
		t.Errorf("result %+v, want a pid, not killed, not refused", res)
	}
	if res.Started.Before(before) || res.Ended.Before(res.Started) || time.Now().Before(res.Ended) {
		t.Errorf("times %v to %v do not lie within the call", res.Started, res.Ended)
	}
}

func TestProgramNeedsNoArgumentsOrEnvironment(t *testing.T) {
	p, err := os.StartProcess(install(t).Path(), []string{}, &os.ProcAttr{Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if state.ExitCode() != exitOpened {
		t.Errorf("%v, want exit status %d", state, exitOpened)
	}
}

func TestRunReportsAKill(t *testing.T) {
	c, g := install(t), newGroup(t)
	kill, err := os.OpenFile(filepath.Join(g.Dir, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer kill.Close()
	// The program lives for well under a millisecond: kill all that time.
	ctx, cancel := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	killer.Go(func() {
		for ctx.Err() == nil {
			_, _ = kill.WriteString("1")
		}
	})
	defer killer.Wait()
	defer cancel()
	for range 100 {
		res, err := c.Run(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		if res.Killed {
			if res.Refused || res.PID <= 0 {
				t.Errorf("result %+v, want a pid, not refused", res)
			}
			return
		}
	}
	t.Error("100 runs under constant killing, none reported killed")
}

func TestRunReportsARefusal(t *testing.T) {
	c, g := install(t), newGroup(t)
	refuseSockets(t, g)
	res, err := c.Run(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Refused || res.Killed {
		t.Errorf("result %+v, want refused and not killed", res)
	}
}

func TestRunInsideTheGroupAlone(t *testing.T) {
	c, inside, outside := install(t), newGroup(t), newGroup(t)
	refuseSockets(t, inside)
	res, err := c.Run(t.Context(), outside)
	if err != nil {
		t.Fatal(err)
	}
	if res.Refused || res.Killed {
		t.Errorf("result %+v outside the refusing group", res)
	}
}

func TestRunWhereTheGroupMayHoldNoProcesses(t *testing.T) {
	c, g := install(t), newGroup(t)
	enableController(t, g)
	res, err := c.Run(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	if res.Killed || res.Refused {
		t.Errorf("result %+v, want a plain run", res)
	}
	left, err := filepath.Glob(filepath.Join(g.Dir, "profile-canary*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, error %v", left, err)
	}
}

func TestRunFails(t *testing.T) {
	c := install(t)
	t.Run("group gone", func(t *testing.T) {
		g := newGroup(t)
		if err := os.Remove(g.Dir); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Run(t.Context(), g); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want fs.ErrNotExist", err)
		}
	})
	t.Run("group frozen", func(t *testing.T) {
		g := newGroup(t)
		if err := os.WriteFile(filepath.Join(g.Dir, "cgroup.freeze"), []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Run(t.Context(), g); err == nil || !strings.Contains(err.Error(), "frozen") {
			t.Errorf("error %v, want one that says frozen", err)
		}
	})
	t.Run("context over", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if res, err := c.Run(ctx, newGroup(t)); !errors.Is(err, context.Canceled) || res.Killed {
			t.Errorf("result %+v, error %v, want context.Canceled and not killed", res, err)
		}
	})
	t.Run("another exit code", func(t *testing.T) {
		other, err := Install(t.TempDir(), "other")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile("/bin/false")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(other.Path(), text, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Run(t.Context(), newGroup(t)); err == nil || !strings.Contains(err.Error(), "could not open a socket") {
			t.Errorf("error %v, want one that says so", err)
		}
	})
	t.Run("program gone", func(t *testing.T) {
		gone := install(t)
		if err := gone.Remove(); err != nil {
			t.Fatal(err)
		}
		if _, err := gone.Run(t.Context(), newGroup(t)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want fs.ErrNotExist", err)
		}
	})
}

func TestRunsTogether(t *testing.T) {
	c, g := install(t), newGroup(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				if res, err := c.Run(t.Context(), g); err != nil || res.Killed || res.Refused {
					t.Errorf("%+v, %v", res, err)
				}
			}
		})
	}
	all.Wait()
}
