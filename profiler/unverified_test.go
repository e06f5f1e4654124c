package profiler

import (
	"log/slog"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
)

// far is an agent of another host, which counts what it posts.
func far(c *Config) { c.Canary, c.IsCanary, c.Verify = "", seemsCanary, true }

// What ended since it was last known what was lost, or was asked about without
// an answer, is not complete at the end.
func TestTheEndAnswersNoQuestion(t *testing.T) {
	for _, asked := range []bool{false, true} {
		w := newWorld(t, far)
		w.runs(9, "/bin/net")
		w.socket(10, 2, 1, as{path: "/bin/net"})
		w.runs(11, "/bin/a")
		w.f.Ask()
		w.f.Verified()
		w.runs(12, "/bin/a")
		if asked {
			w.f.Ask()
		}
		w.f.Finish()
		w.want("/bin/a", count{Seen: 2, Complete: 1, Clean: 1})
	}
}

// What is lost and came too late, or came after all, is not lost: it must not
// stand for what is lost later.
func TestALossThatCameAfterAllHidesNoOther(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	m := &meter{based: true, settled: now}
	posted := uint64(0)
	ask := func() []deficit {
		r := m.begin(now.UnixNano(), now)
		now = now.Add(time.Millisecond)
		m.read(r, posted, now.UnixNano())
		now = now.Add(heldBack + time.Second)
		lost, _ := m.settle(r.asked, now)
		return lost
	}
	take := func(n int) {
		for range n {
			m.take(now.UnixNano())
		}
		now = now.Add(time.Second)
	}
	posted = 10
	take(5)
	if lost := ask(); len(lost) != 1 || lost[0].count != 5 {
		t.Fatalf("lost %+v, want 5", lost)
	}
	take(5) // after all
	if lost := ask(); len(lost) != 0 {
		t.Fatalf("lost %+v, want none more", lost)
	}
	posted += 4
	if lost := ask(); len(lost) != 1 || lost[0].count != 4 {
		t.Errorf("lost %+v, want 4", lost)
	}
}

// Where no reading was exact, what was lost since the last one that was is not
// known.
func TestWhatCannotBeToldReachesBackToWhatWasKnown(t *testing.T) {
	w := newWorld(t, verifying).open()
	w.f.windows.from = begun.Add(-time.Hour).UnixNano()
	known, asked := begun, begun.Add(10*time.Second)
	l := &learner{Options: Options{Agent: &tetragon.Agent{}, Log: slog.New(slog.DiscardHandler)}, fold: w.f}
	if !l.settle(&meter{settled: known}, asked, asked.Add(heldBack+sharperWithin+time.Second)) {
		t.Fatal("it is waited for longer")
	}
	if gaps := w.session().Gaps; len(gaps) != 1 || !gaps[0].From.Equal(known) {
		t.Errorf("gaps %+v, want one from %s", gaps, known)
	}
}

// An event that came late is in the span of what was lost beside it.
func TestALateEventWithoutANameIsInItsGap(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Labels = false }).open()
	early := w.now
	w.pass(time.Second)
	w.before(10, "/bin/a")
	late := w.now
	w.now = early
	w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExit{ProcessExit: &api.ProcessExit{Process: w.process(11, "", "")}}})
	gaps := w.session().Gaps
	if len(gaps) != 1 || gaps[0].From.After(w.now) || gaps[0].To.Before(late) {
		t.Errorf("gaps %+v, want one from %s to %s", gaps, w.now, late)
	}
}

// The nodes of a cluster begin to learn at once, and what they learned is
// brought together.
func TestSessionsThatBeginAtOnceAreNotTakenForOne(t *testing.T) {
	seen := map[string]bool{}
	for range 100_000 {
		seen[sessionID(begun)] = true
	}
	if len(seen) != 100_000 {
		t.Errorf("%d sessions for 100,000", len(seen))
	}
}
