package profiler

import (
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/google/go-cmp/cmp"

	"profile/internal/tetragon"
	"profile/store"
)

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

func TestGapsThatMeetAreOneOfEachCause(t *testing.T) {
	w := newWorld(t).open()
	from := w.now
	at := func(sec int) time.Time { return from.Add(time.Duration(sec) * time.Second) }
	w.f.Lost(at(100), at(110), "a", 1)
	w.f.Lost(at(105), at(120), "b", 1)  // of another cause
	w.f.Lost(at(50), at(60), "a", 1)    // told later, and long before
	w.f.Lost(at(95), at(105), "a", 1)   // it begins earlier
	w.f.Lost(at(102), at(104), "a", 1)  // it lies inside
	w.f.Lost(at(111), at(115), "a", 1)  // it is near
	w.f.Lost(at(200), at(210), "a", 10) // and this one is not
	want := []store.Gap{
		{From: at(95), To: at(115), Cause: "a", Count: 4}, {From: at(105), To: at(120), Cause: "b", Count: 1},
		{From: at(50), To: at(60), Cause: "a", Count: 1}, {From: at(200), To: at(210), Cause: "a", Count: 10},
	}
	if diff := cmp.Diff(want, w.session().Gaps); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

// Where there is room for no more, a gap makes one of its cause wider, or else
// the last: nothing of it is left out.
func TestAGapForWhichThereIsNoRoomIsPartOfAnother(t *testing.T) {
	w := newWorld(t).open()
	at := func(minute int) time.Time { return w.now.Add(time.Duration(minute) * time.Minute) }
	for i := range maxGaps - 1 {
		w.f.Lost(at(i), at(i), "a", 1)
	}
	w.f.Lost(at(100), at(100), "b", 1)
	w.f.Lost(at(200), at(200), "a", 1)
	w.f.Lost(at(300), at(300), "c", 1)
	gaps := w.session().Gaps
	want := []store.Gap{{From: at(maxGaps - 2), To: at(200), Cause: "a", Count: 2}, {From: at(100), To: at(300), Cause: "b", Count: 2}}
	if diff := cmp.Diff(want, gaps[maxGaps-2:]); diff != "" {
		t.Errorf("the last of %d gaps (-want +got):\n%s", len(gaps), diff)
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
	w := newWorld(t, func(c *Config) { c.Losses = false })
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

func TestALapsedPolicyIsAGap(t *testing.T) {
	w := newWorld(t).open()
	w.runs(10, "/bin/quiet")
	since := w.now.Add(-time.Millisecond)
	w.kprobe(tetragon.CallLapse, &api.Process{}, nil, []*api.KprobeArgument{
		text(tetragon.LabelWhy, "policy p acts no more"),
		{Label: tetragon.LabelSince, Arg: &api.KprobeArgument_LongArg{LongArg: since.UnixNano()}},
	}, testPolicy)
	w.canary()
	gaps := w.session().Gaps
	if len(gaps) != 1 || !gaps[0].From.Equal(since) || gaps[0].Cause != "policy p acts no more; network use may have been taken for attempts" {
		t.Errorf("gaps are %+v", gaps)
	}
	if got := w.tally("/bin/quiet"); got.Complete != 1 || got.Clean != 0 {
		t.Errorf("of a run beside it %d are complete, %d clean; want 1 and 0", got.Complete, got.Clean)
	}
}
