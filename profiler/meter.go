package profiler

import (
	"math"
	"slices"
	"time"

	"profile/internal/tetragon"
)

// meters are those of the policies that are loaded, by name. An event that two
// of them post counts for each.
type meters struct {
	of     map[string]*meter
	skew   int64 // how far the agent's clock is behind this one, and the events on their way
	skewed bool
}

// add begins to count the events of a policy. fresh says that it is loaded just
// now, behind a stream that listens: whatever it posts is to come.
func (m *meters) add(policy string, fresh bool, now time.Time) {
	if m.of == nil {
		m.of = map[string]*meter{}
	}
	m.of[policy] = &meter{based: fresh, settled: now}
}

// take counts an event of a policy, if it is one of ours.
func (m *meters) take(policy string, at int64, now time.Time) {
	one := m.of[policy]
	if one == nil {
		return
	}
	if d := now.UnixNano() - at; !m.skewed || d < m.skew {
		m.skew, m.skewed = d, true
	}
	one.take(at)
}

// show notes that a hook of a policy works.
func (m *meters) show(policy, call string) {
	if one := m.of[policy]; one != nil {
		one.socket = one.socket || call == tetragon.CallSocketCreate
		one.uses.saw(call)
	}
}

// shown reports whether the socket hook of a policy works, and those of the uses
// that the policy it takes the place of has shown to work, if all is asked.
func (m *meters) shown(policy, before string, all bool) bool {
	next, was := m.of[policy], m.of[before]
	switch {
	case next == nil || !next.socket:
		return false
	case !all || was == nil:
		return true
	}
	return (next.uses.connect || !was.uses.connect) && (next.uses.bind || !was.uses.bind)
}

// based reports whether it is known of each what it began with.
func (m *meters) based() bool {
	for _, one := range m.of {
		if !one.based {
			return false
		}
	}
	return true
}

// settled is the time up to which it is known of each what was lost.
func (m *meters) settled() time.Time {
	since := time.Now()
	for _, one := range m.of {
		if one.settled.Before(since) {
			since = one.settled
		}
	}
	return since
}

// restart begins anew with what can have been missed.
func (m *meters) restart(now time.Time) {
	for name := range m.of {
		m.add(name, false, now)
	}
}

// clock is the agent's time, between two bounds as far as it can be known.
// remote says that its clock is another, of which nothing is known before it has
// told something.
func (m *meters) clock(now time.Time, remote bool) (from, to int64) {
	switch {
	case !remote:
		return now.UnixNano(), now.UnixNano()
	case !m.skewed:
		return 0, math.MaxInt64 / 2
	}
	return now.UnixNano() - m.skew, now.UnixNano() - m.skew
}

// meter compares how many events of a policy the agent's counter says were
// posted with how many have come: all that a Tetragon tells of its losses over
// its API (FACTS 12).
//
// The counter is read at some moment between two: what is timed before the
// first of them is in it, what is timed after the second is not. What is timed
// between may be, so that a loss is known within bounds, and exactly where
// nothing is. That no event came between asking and the answer is a matter of
// luck on a busy node, which asking often brings: the two are near each other.
type meter struct {
	received uint64
	open     []*reading // not settled yet, oldest first
	base     int64      // posted and not received when learning began
	based    bool       // base is known
	socket   bool       // a socket was told of
	uses     useHooks   // events of these hooks were told
	lost     int64      // known to be lost since
	settled  time.Time  // the last reading that was
}

// reading is the counter, read once. Times are nanoseconds on the agent's clock.
type reading struct {
	from, to      int64 // to is 0 until it is read
	posted        uint64
	after, within uint64 // events that came since: timed after to, or between
	asked         time.Time
}

// Bounds of what is compared.
const (
	// postSlack is how long after its time an event may be counted: the counter
	// goes up when the hook's program has come to its end. An event is never
	// timed before it was, so that more is not needed.
	postSlack = 5 * time.Millisecond
	// lateSlack is by how much an event may be timed later than it was: a
	// Tetragon reads two clocks, and was seen to be interrupted for 22 ms
	// between them (FACTS 50).
	lateSlack = 100 * time.Millisecond
	// heldBack is how late an event may come: a Tetragon waits so long for
	// what it does not know yet of a pod or a parent.
	heldBack = 30 * time.Second
	// sharperWithin is how long to wait for a reading that tells more exactly
	// what was lost than the first.
	sharperWithin = 2 * time.Second
	// maxReadings bounds those that are open.
	maxReadings = 64
)

// take counts an event.
func (m *meter) take(at int64) {
	m.received++
	for _, r := range m.open {
		switch {
		case r.to != 0 && at > r.to:
			r.after++
		case at > r.from:
			r.within++
		}
	}
}

// begin notes that the counter is about to be read, at a time of the agent.
func (m *meter) begin(at int64, asked time.Time) *reading {
	r := &reading{from: at - int64(postSlack), asked: asked}
	if len(m.open) == maxReadings {
		m.forget()
	}
	m.open = append(m.open, r)
	return r
}

// forget drops the reading that says least, neither the oldest nor the newest:
// the one with the widest bounds, and of several a late one, since the early are
// settled first.
func (m *meter) forget() {
	worst := 1
	for i := 2; i < len(m.open)-1; i++ {
		if m.open[i].within >= m.open[worst].within {
			worst = i
		}
	}
	m.open = slices.Delete(m.open, worst, worst+1)
}

// read notes what the counter said, by a time of the agent.
func (m *meter) read(r *reading, posted uint64, at int64) {
	r.posted, r.to = posted, at+int64(lateSlack)
}

// drop forgets a reading that failed.
func (m *meter) drop(r *reading) {
	m.open = slices.DeleteFunc(m.open, func(o *reading) bool { return o == r })
}

// bounds are how many events were posted and have not come, at least and at
// most.
func (m *meter) bounds(r *reading) (low, high int64) {
	high = int64(r.posted) - int64(m.received-r.after-r.within)
	return high - int64(r.within), high
}

// deficit is a loss that a reading has shown.
type deficit struct {
	from, to time.Time // here
	count    int64
}

// settle works out what the readings show by now. ok is true if one that was
// asked at a time or later is settled: all that was posted until then has
// come, or is lost for good.
func (m *meter) settle(asked, now time.Time) (lost []deficit, ok bool) {
	for i := 0; i < len(m.open); i++ {
		r := m.open[i]
		if r.to == 0 {
			continue
		}
		low, high := m.bounds(r)
		begins := !m.based && low == high
		if begins || m.based && high < m.base {
			m.base, m.based = high, true
		}
		// The first is kept until it is asked about again: what was on its way
		// is not lost.
		exact := m.based && !begins && high-m.base <= m.lost
		if exact {
			m.lost = high - m.base // the rest of it has come after all
		}
		if !exact && now.Sub(r.asked) < heldBack {
			continue
		}
		if !exact {
			n := low - m.base - m.lost
			sharper := func(o *reading) bool { return o.to != 0 && o.within < r.within }
			if m.based && n > 0 && !slices.ContainsFunc(m.open[i+1:], sharper) {
				lost = append(lost, deficit{m.settled, r.asked, n})
				m.lost += n
			} else {
				// It cannot be told yet: a later one will.
				m.open = slices.Delete(m.open, i, i+1)
				i--
				continue
			}
		}
		ok = ok || !r.asked.Before(asked)
		m.settled = r.asked
		m.open = slices.Delete(m.open, 0, i+1)
		i = -1
	}
	return lost, ok
}
