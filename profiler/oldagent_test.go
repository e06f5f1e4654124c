package profiler

import (
	"strings"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// forkOrThread tells of a task as the tracepoint of an old agent does.
func (w *world) forkOrThread(parent, task uint32, policy string) {
	p := w.who(parent)
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessTracepoint{ProcessTracepoint: &api.ProcessTracepoint{
		Process: p, Subsys: tetragon.SubsystemSched, Event: tetragon.EventFork, PolicyName: policy, Args: ints(int32(parent), int32(task))}}})
	w.live[task] = w.process(task, p.Binary, "execve")
}

func TestForksOfAnOldAgentsTracepoint(t *testing.T) {
	const forks = testPolicy + tetragon.ForksSuffix
	old := func(c *Config) { c.Thread = func(pid uint32) bool { return pid == 77 } }
	for _, c := range []struct {
		name string
		do   func(*world)
		want count
	}{
		{"a run does not end with its parent", func(w *world) {
			w.exec(10, "/bin/a")
			w.forkOrThread(10, 11, forks)
			w.exit(10)
		}, count{Seen: 1, Touched: 1}}, // it does if that was a thread
		{"and is not complete where that is all that is left", func(w *world) {
			w.exec(10, "/bin/a")
			w.forkOrThread(10, 11, forks)
			w.exit(10, 11)
		}, count{Seen: 1}},
		{"a child that ends first", func(w *world) {
			w.exec(10, "/bin/a")
			w.forkOrThread(10, 11, forks)
			w.exit(11, 10)
		}, count{Seen: 1, Complete: 1, Clean: 1}},
		{"a child that has shown itself", func(w *world) {
			w.exec(10, "/bin/a")
			w.forkOrThread(10, 11, forks)
			w.socket(11, 2, 1)
			w.exit(10, 11)
		}, count{Seen: 1, Complete: 1, Clean: 1, Network: 1}},
		{"a thread is no child", func(w *world) {
			w.exec(10, "/bin/a")
			w.forkOrThread(10, 77, forks)
			w.exit(10)
		}, count{Seen: 1, Complete: 1, Clean: 1}},
		{"what may have been a thread leaves the end open", func(w *world) {
			w.exec(10, "/bin/a")
			w.forkOrThread(10, 11, forks)
			w.exit(10)
			w.f.Sweep(func(uint32) bool { return false })
		}, count{Seen: 1}},
		{"another's policy tells nothing", func(w *world) {
			w.exec(10, "/bin/a")
			w.forkOrThread(10, 11, "someone-elses")
			w.exit(10)
		}, count{Seen: 1, Complete: 1, Clean: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, old).open()
			c.do(w)
			w.canary()
			w.want("/bin/a", c.want)
		})
	}
}

func (w *world) throttle(cgroup string, typ api.ThrottleType) {
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessThrottle{ProcessThrottle: &api.ProcessThrottle{Cgroup: cgroup, Type: typ}}})
}

func TestThrottledEventsAreAGap(t *testing.T) {
	const start, stop = api.ThrottleType_THROTTLE_START, api.ThrottleType_THROTTLE_STOP
	for _, c := range []struct {
		name string
		do   func(*world)
		want count
		span time.Duration // of the gap, at least
	}{
		{"what runs meanwhile is touched", func(w *world) {
			w.throttle("/a", start)
			w.runs(10, "/bin/a")
			w.pass(3 * time.Second)
			w.throttle("/a", stop)
		}, count{Seen: 1, Complete: 1}, 3 * time.Second},
		{"also where one of two goes on", func(w *world) {
			w.throttle("/a", start)
			w.throttle("/b", start)
			w.throttle("/a", stop)
			w.runs(10, "/bin/a")
		}, count{Seen: 1, Complete: 1}, 0},
		{"not what begins afterwards", func(w *world) {
			w.throttle("/a", start)
			w.throttle("/a", stop)
			w.runs(10, "/bin/a")
		}, count{Seen: 1, Complete: 1, Clean: 1}, 0},
		{"a stop whose start was not told", func(w *world) {
			w.runs(10, "/bin/a")
			w.pass(2 * time.Second)
			w.throttle("/a", stop)
		}, count{Seen: 1, Complete: 1}, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t).open()
			c.do(w)
			w.canary()
			w.want("/bin/a", c.want)
			gaps := w.session().Gaps
			if len(gaps) != 1 || !strings.Contains(gaps[0].Cause, "throttled") || gaps[0].To.Sub(gaps[0].From) < c.span {
				t.Errorf("gaps %+v, want one of %v", gaps, c.span)
			}
		})
	}
}

// An agent that has no hook for execs tells names as executed, which a symlink
// or a script may be.
func TestAnExecThatNoHookTellsIsNotResolved(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Labels, c.NoExecs = false, true })
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExec{ProcessExec: &api.ProcessExec{Process: w.process(10, "/usr/bin/python3", "execve clone")}}})
	w.flush()
	for key := range w.f.executables {
		if key.Path != store.Unresolved+"/usr/bin/python3" {
			t.Errorf("it is known as %q, and that is not known", key.Path)
		}
	}
	if len(w.f.executables) != 1 {
		t.Errorf("%d executables, want the one", len(w.f.executables))
	}
}
