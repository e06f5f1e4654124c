package profiler

import (
	"testing"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
)

// gapsOf are the gaps of a session but for those of callers whom the world does
// not name.
func gapsOf(w *world) []string {
	var causes []string
	for _, g := range w.session().Gaps {
		if g.Cause != "the agent lost the name of a process" {
			causes = append(causes, g.Cause)
		}
	}
	return causes
}

// A machine that is fast forks and execs within the millisecond by which a
// Tetragon's start times are inexact. What one image did is not another's all
// the same.
func TestASocketIsOfTheImageThatOpenedIt(t *testing.T) {
	// next gives a process another image, whose exec is not told.
	next := func(w *world, pid uint32, name, flags string) *api.Process {
		p := w.process(pid, name, flags)
		p.Cwd = "/cwd"
		w.live[pid] = p
		return p
	}
	for _, c := range []struct {
		name   string
		do     func(*world)
		opener string // that has opened a socket; "" if it cannot be known
	}{
		{"it is told before its exec", func(w *world) {
			w.fork(20, 10)
			next(w, 10, "/bin/a", "execve clone")
			w.socket(10, 2, 1)
			w.probe(10, "/bin/a")
			w.again(10)
			w.exit(10)
		}, "/bin/a"},
		{"the exec of a fork is lost", func(w *world) {
			w.fork(20, 10)
			w.probe(10, "/bin/a")
			next(w, 10, "/bin/link", "execve clone")
			w.socket(10, 2, 1)
			w.exit(10)
		}, ""},
		{"a second exec is lost", func(w *world) {
			w.exec(10, "/bin/parent")
			next(w, 10, "/bin/link", "execve")
			w.socket(10, 2, 1)
			w.exit(10)
		}, ""},
		{"it is told after another process has its pid", func(w *world) {
			w.exec(10, "/bin/a", as{name: "/bin/link"})
			before := w.live[10]
			w.exit(10)
			w.exec(10, "/bin/parent")
			w.kprobe(tetragon.CallSocketCreate, before, ints(2, 1, 0, 0), nil, "")
			w.exit(10)
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Labels = false }).open()
			w.exec(20, "/bin/parent")
			c.do(w)
			w.canary()
			if got := w.count("/bin/parent").Network; got != 0 {
				t.Errorf("/bin/parent has opened sockets in %d runs, want 0", got)
			}
			if got := w.count("/bin/a").Network; c.opener == "/bin/a" && got != 1 {
				t.Errorf("/bin/a has opened sockets in %d runs, want 1", got)
			}
			if gaps := gapsOf(w); c.opener == "" && len(gaps) == 0 {
				t.Error("no gap, want one: the opener is not known")
			}
		})
	}
}

// The child would be nobody's, and the run complete that it goes on with.
func TestAForkThatIsToldAfterTheEndOfItsParentIsAGap(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Labels = false }).open()
	w.exec(20, "/bin/a")
	parent := w.live[20]
	w.exit(20)
	w.kprobe(tetragon.CallFork, parent, ints(21, 21), nil, "")
	w.canary()
	w.want("/bin/a", count{Seen: 1, Complete: 1})
	if gaps := gapsOf(w); len(gaps) != 1 {
		t.Errorf("gaps %v, want one", gaps)
	}
}

// Whose own start was not to be seen has children that are not followed.
func TestAForkOfWhatRanBeforeIsNoGap(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Labels = false })
	daemon := w.process(20, "/bin/a", "execve clone")
	w.open()
	w.kprobe(tetragon.CallFork, daemon, ints(21, 21), nil, "")
	child := w.process(21, "/bin/a", "execve")
	w.kprobe(tetragon.CallFork, child, ints(22, 22), nil, "")
	w.canary()
	if gaps := gapsOf(w); len(gaps) != 0 {
		t.Errorf("gaps %v, want none", gaps)
	}
}
