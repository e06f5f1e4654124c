package profiler

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/internal/tetragon"
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
	sent, last := w.now.Add(10*time.Millisecond), w.f.LastCanary()
	if !w.f.CanaryBack(first, w.now.Add(-time.Hour), last) || !w.f.CanaryBack(first, sent, last) {
		t.Error("the canary that came back is not known by its pid")
	}
	if w.f.CanaryBack(7, sent, last) {
		t.Error("a canary sent later has come back before it was sent")
	}
	if w.f.CanaryBack(7, w.now.Add(-time.Minute), last) {
		t.Error("with a clock that is off, one that came back before stands for one sent later")
	}
	if w.f.CanaryBack(7, w.now.Add(time.Second), 0) {
		t.Error("the first canary stands for one that was sent a second later")
	}
	w.pass(20 * time.Millisecond)
	w.canary()
	if !w.f.CanaryBack(7, sent, last) {
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

// What a break does to a run is stored, whenever the rows were stored last.
func TestWhatABreakCutsIsStored(t *testing.T) {
	w := newWorld(t).open()
	w.exec(10, "/bin/ends")
	w.exec(11, "/bin/spans")
	w.canary()
	w.f.Overdue()
	w.exit(10)
	w.flush()
	w.canary()
	w.want("/bin/ends", count{Seen: 1, Crossed: 1})
	w.want("/bin/spans", count{Seen: 1, Crossed: 1, Touched: 1})
}

// An exec before the window of which the executable is told in it was not seen.
func TestAnExecBeforeTheWindowThatIsResolvedInIt(t *testing.T) {
	w := newWorld(t)
	w.image(10, "/bin/a")
	w.open()
	w.probe(10, "/bin/a")
	w.want("/bin/a", count{Unseen: 1, Alive: 1})
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

func TestARunThatLeavesTheCgroupCrosses(t *testing.T) {
	w := newWorld(t).open()
	w.runs(1, "/bin/stays")
	w.exec(2, "/bin/leaves")
	w.fork(2, 3)
	w.kprobe(tetragon.CallLeave, w.who(3), nil, nil, testPolicy)
	w.kprobe(tetragon.CallLeave, w.who(2), nil, nil, testPolicy)
	w.exit(2, 3)
	w.canary()
	w.want("/bin/stays", count{Seen: 1, Complete: 1, Clean: 1})
	w.want("/bin/leaves", count{Seen: 1, Crossed: 1})
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
