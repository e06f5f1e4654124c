package profiler

import (
	"fmt"
	"testing"
	"time"
)

func TestAnExitThatWasLost(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*world)
		gap  bool
		want map[string]count
	}{
		{"a fork shows the pid taken", func(w *world) {
			w.exec(10, "/bin/a")
			w.exec(20, "/bin/b")
			w.fork(20, 10)
			w.exit(20)
		}, true, map[string]count{"/bin/a": {Seen: 1}, "/bin/b": {Seen: 1, Touched: 1}}},
		{"the first exec of a process shows it", func(w *world) {
			w.exec(10, "/bin/a")
			delete(w.live, 10)
			w.exec(10, "/bin/b")
			w.exit(10)
		}, true, map[string]count{"/bin/a": {Seen: 1}, "/bin/b": {Seen: 1, Complete: 1}}},
		{"a socket of a younger process shows it", func(w *world) {
			w.exec(10, "/bin/a")
			w.pass(time.Second)
			delete(w.live, 10)
			w.socket(10, 2, 1, as{path: "/bin/b"})
		}, true, map[string]count{"/bin/a": {Seen: 1}, "/bin/b": {Unseen: 1, Alive: 1, Network: 1}}},
		{"an exit of an older process is not heeded", func(w *world) {
			old := w.who(10)
			w.pass(time.Second)
			w.live[10] = nil
			w.exec(10, "/bin/a")
			young := w.live[10]
			w.live[10] = old
			w.exit(10)
			w.live[10] = young
		}, false, map[string]count{"/bin/a": {Seen: 1, Going: 1}}},
		{"a socket of an older process goes by its own path", func(w *world) {
			old := w.who(10)
			w.pass(time.Second)
			w.live[10] = nil
			w.exec(10, "/bin/a")
			young := w.live[10]
			w.live[10] = old
			w.socket(10, 2, 1, as{path: "/bin/b"})
			w.live[10] = young
		}, false, map[string]count{"/bin/a": {Seen: 1, Going: 1}, "/bin/b": {Network: 1}}},
		{"a pid used again in order", func(w *world) {
			w.exec(20, "/bin/b")
			for range 3 {
				w.fork(20, 10)
				w.runs(10, "/bin/a")
			}
			w.exit(20)
		}, false, map[string]count{"/bin/a": {Seen: 3, Complete: 3, Clean: 3}, "/bin/b": {Seen: 1, Complete: 1, Clean: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t).open()
			c.do(w)
			w.canary()
			for path, want := range c.want {
				w.want(path, want)
			}
			gaps := w.session().Gaps
			if !c.gap && len(gaps) == 0 {
				return
			}
			if !c.gap || len(gaps) != 1 || gaps[0].Cause != "an exit was lost" || gaps[0].Count != 1 {
				t.Errorf("gaps %v, want one of a lost exit: %v", gaps, c.gap)
			}
		})
	}
}

func TestAnExecAndItsExecutableAreJoined(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*world)
		gap  bool
		want map[string]count
	}{
		{"the executable comes late", func(w *world) {
			w.image(10, "/bin/link")
			w.socket(10, 2, 1)
			w.probe(10, "/bin/a")
			w.exit(10)
		}, false, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1, Network: 1}}},
		{"after the exit", func(w *world) {
			w.image(10, "/bin/link")
			w.fork(10, 11)
			w.exit(10, 11)
			w.probe(10, "/bin/a")
		}, false, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}}},
		{"another's comes first", func(w *world) {
			w.image(10, "/bin/link")
			w.exec(11, "/bin/b")
			w.probe(10, "/bin/a")
			w.exit(10, 11)
		}, false, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}, "/bin/b": {Seen: 1, Complete: 1, Clean: 1}}},
		{"an exec that failed is not taken for the next", func(w *world) {
			w.probe(10, "/bin/failed")
			w.pass(time.Minute)
			w.exec(10, "/bin/a")
			w.exit(10)
		}, false, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}}},
		{"it never comes, and it is over", func(w *world) {
			w.image(10, "/bin/link")
			w.exit(10)
			w.pass(time.Minute)
		}, true, map[string]count{}},
		{"it never comes, and it used the network", func(w *world) {
			w.image(10, "/bin/link")
			w.socket(10, 2, 1)
			w.exit(10)
			w.pass(time.Minute)
		}, true, map[string]count{"/bin/link": {Unseen: 1, Network: 1}}},
		{"it never comes, and it lives on", func(w *world) {
			w.image(10, "/bin/link")
			w.pass(time.Minute)
		}, true, map[string]count{"/bin/link": {Unseen: 1, Alive: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t).open()
			c.do(w)
			w.canary()
			w.flush()
			for path, want := range c.want {
				w.want(path, want)
			}
			if len(w.rows) != len(c.want) {
				t.Errorf("%d executables, want %d", len(w.rows), len(c.want))
			}
			gaps := w.session().Gaps
			if c.gap != (len(gaps) == 1 && gaps[0].Cause == "the executable of an exec was lost") || len(gaps) > 1 {
				t.Errorf("gaps %v, want one: %v", gaps, c.gap)
			}
			if len(w.f.joint.held) != 0 || len(w.f.joint.probes) != 0 {
				t.Errorf("%d execs and %d kprobes wait", len(w.f.joint.held), len(w.f.joint.probes))
			}
		})
	}
}

func TestWaitingExecsAreBounded(t *testing.T) {
	w := newWorld(t).open()
	for pid := range uint32(maxHeld + 100) {
		w.now = w.now.Add(-time.Millisecond + time.Microsecond)
		w.image(100+pid, fmt.Sprintf("/bin/%d", pid))
	}
	if n := len(w.f.joint.held); n != maxHeld {
		t.Errorf("%d wait, want %d", n, maxHeld)
	}
}
