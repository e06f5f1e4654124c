package profiler

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func TestAWindowOpensWhenAWholeCanaryHasComeBack(t *testing.T) {
	for _, without := range []string{"exec", "fork", "socket", "exit"} {
		w := newWorld(t)
		w.canary(without)
		if _, open := w.f.Opened(); open {
			t.Errorf("opened by a canary without %s", without)
		}
		if got := w.f.Missing(); got != without {
			t.Errorf("Missing = %q, want %q", got, without)
		}
		if s := w.session(); len(s.Windows) != 0 || s.Awake != 0 {
			t.Errorf("without %s: windows %v, awake %v", without, s.Windows, s.Awake)
		}
		w.canary()
		if at, open := w.f.Opened(); !open || !at.Equal(w.now) {
			t.Errorf("open %v at %v, want at %v", open, at, w.now)
		}
	}
	w := newWorld(t, func(c *Config) { c.Forks = false })
	w.canary("fork")
	if _, open := w.f.Opened(); !open {
		t.Error("an agent that tells of no forks cannot show a canary's")
	}
}

func TestCanaryBackIsAboutTheOneThatWasSent(t *testing.T) {
	w := newWorld(t).open()
	first := w.next - 2
	sent := w.now.Add(10 * time.Millisecond)
	if !w.f.CanaryBack(first, w.now.Add(-time.Hour)) || !w.f.CanaryBack(first, sent) {
		t.Error("the canary that came back is not known by its pid")
	}
	if w.f.CanaryBack(7, sent) {
		t.Error("a canary sent later has come back before it was sent")
	}
	w.pass(20 * time.Millisecond)
	w.canary()
	if !w.f.CanaryBack(7, sent) {
		t.Error("a later canary does not stand for one sent before")
	}
}

func TestTheWindowReachesToTheLastCanary(t *testing.T) {
	w := newWorld(t).open()
	from := w.now
	w.pass(10 * time.Second)
	w.canary()
	w.pass(10 * time.Second)
	w.canary()
	to := w.now
	w.pass(time.Hour)
	w.runs(10, "/bin/a")
	s := w.session()
	if diff := cmp.Diff([]store.Window{{From: from, To: to}}, s.Windows); diff != "" {
		t.Errorf("windows (-want +got):\n%s", diff)
	}
	if s.Awake != to.Sub(from) {
		t.Errorf("awake %v, want %v", s.Awake, to.Sub(from))
	}
}

func TestSuspendIsNotAwake(t *testing.T) {
	w := newWorld(t)
	awake := begun
	w.f.clock = func() time.Time { return awake }
	w.open()
	w.pass(8 * time.Hour)
	awake = awake.Add(10 * time.Second)
	w.canary()
	s := w.session()
	if s.Awake != 10*time.Second || s.Windows[0].To.Sub(s.Windows[0].From) < 8*time.Hour {
		t.Errorf("awake %v in %v, want 10s in a night", s.Awake, s.Windows)
	}
}

func TestABreak(t *testing.T) {
	w := newWorld(t).open()
	from := w.now
	w.exec(10, "/bin/spans") // alive over the break
	w.exec(11, "/bin/ends")  // ends in it
	w.exec(12, "/bin/done")
	w.exit(12)
	w.canary()
	to := w.now
	w.exec(13, "/bin/tail") // begins after the last canary that came back
	w.runs(14, "/bin/lost") // lies wholly after it
	w.pass(20 * time.Second)
	w.f.Overdue()
	w.f.Overdue()
	w.exit(11)
	w.exec(15, "/bin/unwatched") // begins in the break
	w.runs(16, "/bin/never")
	w.socket(15, 2, 1)
	if _, open := w.f.Opened(); open {
		t.Fatal("the window is open")
	}
	w.canary()
	again := w.now
	w.runs(17, "/bin/new")
	w.exit(10, 13, 15)
	w.canary()

	s := w.session()
	want := []store.Window{{From: from, To: to}, {From: again, To: w.now}}
	if diff := cmp.Diff(want, s.Windows); diff != "" {
		t.Errorf("windows (-want +got):\n%s", diff)
	}
	if len(s.Gaps) != 0 {
		t.Errorf("gaps %v: a break is no gap", s.Gaps)
	}
	w.want("/bin/spans", count{Seen: 1, Crossed: 1})
	w.want("/bin/ends", count{Seen: 1, Crossed: 1})
	w.want("/bin/done", count{Seen: 1, Complete: 1, Clean: 1})
	w.want("/bin/tail", count{Seen: 1, Crossed: 1})
	w.want("/bin/lost", count{Seen: 1})
	w.want("/bin/unwatched", count{Unseen: 1, Network: 1})
	w.want("/bin/never", count{})
	w.want("/bin/new", count{Seen: 1, Complete: 1, Clean: 1})
}

func TestARunCrossesOnce(t *testing.T) {
	w := newWorld(t).open()
	w.exec(10, "/bin/a")
	w.fork(10, 11)
	for range 3 {
		w.f.Overdue()
		w.canary()
	}
	w.want("/bin/a", count{Seen: 1, Crossed: 1, Touched: 1})
	w.exit(10, 11)
	w.canary()
	w.want("/bin/a", count{Seen: 1, Crossed: 1})
	if n := len(w.session().Windows); n != 4 {
		t.Errorf("%d windows, want 4", n)
	}
}

func TestABreakAtTheEndSpoilsNothing(t *testing.T) {
	w := newWorld(t).open()
	w.exec(10, "/bin/a")
	w.exec(11, "/bin/b")
	w.canary()
	w.f.Overdue()
	w.exit(11)
	w.f.Finish()
	w.want("/bin/a", count{Seen: 1, Going: 1})
	w.want("/bin/b", count{Seen: 1})
}

func TestWindowsAreBounded(t *testing.T) {
	w := newWorld(t).open()
	for range 2 * maxWindows {
		w.f.Overdue()
		w.canary()
	}
	s := w.session()
	if len(s.Windows) != maxWindows || !s.Windows[maxWindows-1].From.Equal(w.now) {
		t.Errorf("%d windows, the last from %v; want the last %d", len(s.Windows), s.Windows[len(s.Windows)-1].From, maxWindows)
	}
}

func TestGapsTouch(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*world)
		want count
	}{
		{"not what a canary came after", func(w *world) {
			w.runs(10, "/bin/a")
			w.canary()
			w.loss(5)
		}, count{Seen: 1, Complete: 1, Clean: 1}},
		{"what ended since the last canary", func(w *world) {
			w.runs(10, "/bin/a")
			w.loss(5)
		}, count{Seen: 1, Complete: 1}},
		{"what is alive", func(w *world) {
			w.exec(10, "/bin/a")
			w.loss(5)
			w.exit(10)
		}, count{Seen: 1, Complete: 1}},
		{"what goes on", func(w *world) {
			w.exec(10, "/bin/a")
			w.loss(5)
		}, count{Seen: 1, Touched: 1}},
		{"not what begins afterwards", func(w *world) {
			w.loss(5)
			w.runs(10, "/bin/a")
		}, count{Seen: 1, Complete: 1, Clean: 1}},
		{"what is told afterwards but began before it was noticed", func(w *world) {
			w.pass(time.Second)
			w.loss(5)
			w.pass(-time.Second)
			w.runs(10, "/bin/a")
		}, count{Seen: 1, Complete: 1}},
		{"only some of those", func(w *world) {
			w.runs(10, "/bin/a")
			w.loss(5)
			w.runs(10, "/bin/a")
			w.runs(10, "/bin/a")
		}, count{Seen: 3, Complete: 3, Clean: 2}},
		{"again", func(w *world) {
			w.runs(10, "/bin/a")
			w.loss(5)
			w.runs(10, "/bin/a")
			w.loss(5)
		}, count{Seen: 2, Complete: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t).open()
			c.do(w)
			w.canary()
			w.want("/bin/a", c.want)
			if w.f.Counts().Lost == 0 {
				t.Error("nothing was lost")
			}
		})
	}
}

func TestALossIsAGapWithItsSpanAndNumber(t *testing.T) {
	w := newWorld(t).open()
	w.runs(10, "/bin/a")
	known := w.now
	w.pass(3 * time.Second)
	w.loss(30)
	noticed := w.now
	want := store.Gap{From: known, To: noticed, Cause: "the agent lost observations", Count: 30}
	if diff := cmp.Diff([]store.Gap{want}, w.session().Gaps); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	w.loss(12)
	want.To, want.Count = w.now, 42
	if diff := cmp.Diff([]store.Gap{want}, w.session().Gaps); diff != "" {
		t.Errorf("one loss told in two parts (-want +got):\n%s", diff)
	}
	w.pass(time.Minute)
	w.runs(10, "/bin/a")
	w.loss(1)
	if gaps := w.session().Gaps; len(gaps) != 2 || gaps[1].Count != 1 {
		t.Errorf("gaps %v, want another of 1", gaps)
	}
}

func TestALossOutsideAWindowIsNoGap(t *testing.T) {
	w := newWorld(t)
	w.runs(10, "/bin/a")
	w.loss(7)
	w.open()
	if gaps := w.session().Gaps; len(gaps) != 0 {
		t.Errorf("gaps %v: it lies before the window", gaps)
	}
	if n := w.f.Counts().Lost; n != 0 {
		t.Errorf("%d lost, and none in a window", n)
	}
}

func TestALossToldBeforeTheWindowMayLieInIt(t *testing.T) {
	w := newWorld(t)
	w.pass(time.Minute)
	w.loss(7) // the ring is full: noticed at once, told before what is in it
	noticed := w.now
	w.pass(-time.Minute)
	w.open()
	from := w.now
	want := []store.Gap{{From: from, To: noticed, Cause: "the agent lost observations", Count: 7}}
	if diff := cmp.Diff(want, w.session().Gaps); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	w.runs(10, "/bin/a")
	w.canary()
	w.want("/bin/a", count{Seen: 1, Complete: 1})
}

func TestGapsAreBounded(t *testing.T) {
	w := newWorld(t).open()
	first := w.now
	for range 10 * maxGaps {
		w.pass(time.Minute)
		w.exit(99)
		w.loss(2)
	}
	gaps := w.session().Gaps
	var lost uint64
	for _, g := range gaps {
		lost += g.Count
	}
	if len(gaps) != maxGaps || lost != 20*maxGaps || gaps[0].From.Before(first) || !gaps[maxGaps-1].To.Equal(w.now) {
		t.Errorf("%d gaps of %d lost, want %d of %d until %v", len(gaps), lost, maxGaps, 20*maxGaps, w.now)
	}
}

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

func TestANameThatTheAgentLostIsALoss(t *testing.T) {
	for _, c := range []struct {
		binary, flags string
		gap           bool
	}{
		{"/bin/a", "execve clone", false},
		{"", "execve clone", true},
		{"/bin/<enomem>", "execve clone", true},
		{"/bin/a", "unknown", true},
	} {
		w := newWorld(t, func(cfg *Config) { cfg.Labels = false }).open()
		w.before(5, "/bin/sh")
		w.fork(5, 10)
		w.exec(10, "/bin/a")
		w.live[10].Binary, w.live[10].Flags = c.binary, c.flags
		w.socket(10, 2, 1)
		gaps := w.session().Gaps
		if c.gap != (len(gaps) == 1) {
			t.Errorf("%+v: gaps %v", c, gaps)
		}
		w.want("/bin/a", count{Seen: 1, Network: 1, Going: w.count("/bin/a").Going, Touched: w.count("/bin/a").Touched})
	}
}

func TestWhatCannotBeCountedIsAGapOverTheSession(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Uncounted = "losses cannot be counted" })
	if gaps := w.session().Gaps; len(gaps) != 0 {
		t.Errorf("gaps %v before the window", gaps)
	}
	w.open()
	from := w.now
	w.runs(10, "/bin/a")
	w.canary()
	want := []store.Gap{{From: from, To: w.now, Cause: "losses cannot be counted"}}
	if diff := cmp.Diff(want, w.session().Gaps); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	w.want("/bin/a", count{Seen: 1, Complete: 1, Clean: 1}) // none is known to be touched
}
