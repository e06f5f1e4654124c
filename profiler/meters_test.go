package profiler

import (
	"math"
	"testing"
	"time"
)

func TestEventsOfAPolicyThatIsNotCountedAreNot(t *testing.T) {
	now := time.Unix(1000, 0)
	var m meters
	m.add("ours", true, now)
	m.take("another's", now.UnixNano(), now)
	m.show("another's", "a hook")
	if one := m.of["ours"]; len(m.of) != 1 || one.received != 0 || m.skewed {
		t.Errorf("meters %+v", m)
	}
}

// An agent's clock is behind by no more than an event that was never held up.
func TestAClockIsKnownByTheEventThatCameFastest(t *testing.T) {
	now := time.Unix(1000, 0)
	var m meters
	m.add("p", true, now)
	if from, to := m.clock(now, true); from != 0 || to < math.MaxInt64/2 {
		t.Errorf("it is between %d and %d before anything was told", from, to)
	}
	for _, ms := range []time.Duration{5, 2, 9} {
		m.take("p", now.Add(-ms*time.Millisecond).UnixNano(), now)
	}
	want := now.Add(-2 * time.Millisecond).UnixNano()
	if from, to := m.clock(now, true); from != want || to != want {
		t.Errorf("it is between %d and %d, want %d", from, to, want)
	}
	if from, to := m.clock(now, false); from != now.UnixNano() || to != from {
		t.Errorf("this machine's own is between %d and %d", from, to)
	}
}

func TestOfSeveralPoliciesTheLastThatIsKnownDecides(t *testing.T) {
	now := time.Now()
	var m meters
	m.add("old", true, now.Add(-time.Hour))
	m.add("next", false, now.Add(-time.Minute))
	if m.based() {
		t.Error("based, and of one it is not known what it began with")
	}
	m.of["next"].based = true
	if !m.based() || !m.settled().Equal(now.Add(-time.Hour)) {
		t.Errorf("based %v, settled %v", m.based(), m.settled())
	}
}

// An event is before, within or after the time of a reading.
func TestAReadingKnowsWhatCameSince(t *testing.T) {
	now := time.Unix(1000, 0)
	var m meter
	r := m.begin(now.UnixNano(), now)
	for _, at := range []int64{r.from - 1, r.from, r.from + 1} {
		m.take(at)
	}
	m.take(now.Add(time.Hour).UnixNano()) // before it is known when it was read
	m.read(r, 10, now.UnixNano())
	for _, at := range []int64{r.from, r.to - 1, r.to, r.to + 1, r.to + 2} {
		m.take(at)
	}
	if m.received != 9 || r.within != 4 || r.after != 2 {
		t.Errorf("of %d, %d came within and %d after; want 9, 4 and 2", m.received, r.within, r.after)
	}
	if low, high := m.bounds(r); high != 10-3 || low != high-4 {
		t.Errorf("lost between %d and %d", low, high)
	}
}

func TestReadingsAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	var m meter
	first := m.begin(now.UnixNano(), now)
	worst := m.begin(now.UnixNano(), now)
	m.take(now.Add(time.Hour).UnixNano())
	first.within = 9 // it is the oldest, whatever it says
	for len(m.open) < maxReadings {
		m.begin(now.UnixNano(), now)
	}
	last := m.open[maxReadings-1]
	last.within = 9
	newest := m.begin(now.UnixNano(), now)
	if len(m.open) != maxReadings || m.open[0] != first || m.open[maxReadings-1] != newest || m.open[maxReadings-2] != last {
		t.Errorf("%d readings are open, without the oldest or the newest", len(m.open))
	}
	for _, r := range m.open {
		if r == worst {
			t.Error("the one that says least is kept")
		}
	}
	m.drop(last)
	if len(m.open) != maxReadings-1 || m.open[maxReadings-2] != newest {
		t.Errorf("%d readings are left of %d, of which one failed", len(m.open), maxReadings)
	}
}

// A loss lies between the last reading at which nothing was and the one that
// shows it.
func TestALossLiesBetweenTwoReadings(t *testing.T) {
	var m meter
	now := time.Unix(1000, 0)
	m.based, m.settled = true, now
	ask := func(at time.Time, posted uint64) ([]deficit, bool) {
		t.Helper()
		r := m.begin(at.UnixNano(), at)
		m.read(r, posted, at.UnixNano())
		return m.settle(at, at)
	}
	first := now.Add(time.Second)
	if lost, ok := ask(first, 0); len(lost) > 0 || !ok {
		t.Fatalf("lost %v, settled %v", lost, ok)
	}
	second := first.Add(time.Second)
	if lost, ok := ask(second, 3); len(lost) > 0 || ok {
		t.Fatalf("lost %v, settled %v, and it may yet come", lost, ok)
	}
	lost, ok := m.settle(second, second.Add(heldBack))
	if want := (deficit{first, second, 3}); !ok || len(lost) != 1 || lost[0] != want {
		t.Errorf("lost %v, settled %v; want %v", lost, ok, want)
	}
	third := second.Add(heldBack)
	if lost, ok := ask(third, 3); len(lost) > 0 || !ok {
		t.Errorf("lost %v again, settled %v", lost, ok)
	}
}
