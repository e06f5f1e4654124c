package profiler

import (
	"math/rand/v2"
	"testing"
	"time"

	"profile/internal/tetragon"
)

// busy is a node whose events never stop, and the meter that watches it.
type busy struct {
	*rand.Rand
	m      meter
	now    time.Time
	posted uint64
	coming []coming
	lose   int // of the next events
}

type coming struct{ timed, arrives time.Time }

// pass lets time go by: an event is posted every so often, timed late now and
// then, and comes some milliseconds later, in the order of its arrival.
func (b *busy) pass(d, every time.Duration) {
	for end := b.now.Add(d); b.now.Before(end); {
		step := min(time.Duration(b.ExpFloat64()*float64(every)), end.Sub(b.now))
		b.now = b.now.Add(step)
		b.arrive()
		if b.now.Equal(end) {
			return
		}
		b.posted++
		if b.lose > 0 {
			b.lose--
			continue
		}
		timed := b.now
		if b.IntN(500) == 0 {
			timed = timed.Add(time.Duration(b.IntN(22)) * time.Millisecond)
		}
		b.coming = append(b.coming, coming{timed, b.now.Add(time.Duration(b.IntN(8)) * time.Millisecond)})
	}
}

func (b *busy) arrive() {
	rest := b.coming[:0]
	for _, c := range b.coming {
		if c.arrives.After(b.now) {
			rest = append(rest, c)
			continue
		}
		b.m.take(c.timed.UnixNano())
	}
	b.coming = rest
}

// verify asks until it is settled what was posted so far, and gives what was
// found to be lost.
func (b *busy) verify(every time.Duration) (lost int64, took time.Duration, ok bool) {
	asked := b.now
	for b.now.Sub(asked) <= heldBack+time.Second {
		r := b.m.begin(b.now.UnixNano(), b.now)
		b.pass(400*time.Microsecond, every)
		posted := b.posted
		b.pass(400*time.Microsecond, every)
		b.m.read(r, posted, b.now.UnixNano())
		found, settled := b.m.settle(asked, b.now)
		for _, d := range found {
			lost += d.count
		}
		if settled {
			return lost, b.now.Sub(asked), true
		}
		b.pass(verifyEvery, every)
	}
	return lost, b.now.Sub(asked), false
}

func TestTheCounterOfABusyNodeIsRead(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Millisecond, 2 * time.Millisecond, time.Millisecond} {
		for seed := range uint64(5) {
			b := &busy{Rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0)}
			if seed%2 == 0 {
				b.m.based = true
			}
			b.pass(time.Second, every)
			for range 20 {
				lost, took, ok := b.verify(every)
				if lost != 0 || !ok || took > heldBack {
					t.Fatalf("an event every %v, seed %d: %d lost after %v, settled %v; nothing was lost", every, seed, lost, took, ok)
				}
				b.pass(time.Second, every)
			}
			b.lose = 50
			b.pass(time.Second, every)
			if lost, _, ok := b.verify(every); ok && lost == 0 || lost > 50 {
				t.Errorf("an event every %v, seed %d: %d of 50 lost were found, and it is settled %v", every, seed, lost, ok)
			}
		}
	}
}

// What was on its way at the first reading is not taken for what was lost
// before it.
func TestALossAfterABusyBeginningIsFound(t *testing.T) {
	b := &busy{Rand: rand.New(rand.NewPCG(1, 1)), now: time.Unix(1000, 0)}
	b.m.based = true
	b.pass(time.Second, 100*time.Microsecond)
	r := b.m.begin(b.now.UnixNano(), b.now)
	b.pass(time.Millisecond, 100*time.Microsecond)
	b.m.read(r, b.posted, b.now.UnixNano())
	if _, ok := b.m.settle(b.now.Add(-time.Hour), b.now); ok {
		t.Fatal("a reading with events all around it is settled at once")
	}
	b.lose = 3
	b.pass(20*time.Millisecond, time.Millisecond)
	b.pass(time.Second, time.Hour)
	if lost, _, ok := b.verify(time.Hour); lost != 3 || !ok {
		t.Errorf("%d lost were found, settled %v; want 3", lost, ok)
	}
}

// An agent of another host is asked before it has told anything, so that its
// clock is not known. It is behind this one.
func TestTheFirstReadingOfAnUnknownClockMakesNoLoss(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var m meters
	m.add("p", true, now)
	one := m.of["p"]
	from, _ := m.clock(now, true)
	r := one.begin(from, now)
	for range 41 { // posted after the counter was read
		m.take("p", now.Add(-time.Hour).UnixNano(), now)
	}
	_, to := m.clock(now, true)
	one.read(r, 0, to)
	one.settle(now, now)
	for i := range 3 {
		later := now.Add(time.Duration(i+1) * heldBack)
		from, to := m.clock(later, true)
		r := one.begin(from, later)
		one.read(r, 41, to)
		if lost, ok := one.settle(later, later); len(lost) != 0 || !ok {
			t.Errorf("reading %d: lost %v, settled %v; nothing was lost", i, lost, ok)
		}
	}
}

// The policies share one counter for their three hooks, which does not tell that
// one of them is silent.
func TestAPolicyTakesAnothersPlaceOnceItShowsWhatThatShowed(t *testing.T) {
	const socket, connect, bind = tetragon.CallSocketCreate, tetragon.CallConnect, tetragon.CallBind
	for _, c := range []struct {
		name      string
		was, next []string
		all       bool
		want      bool
	}{
		{"no socket", []string{socket}, nil, false, false},
		{"uses alone", []string{socket, connect, bind}, []string{connect, bind}, true, false},
		{"a socket, of which it is asked alone", []string{socket, connect, bind}, []string{socket}, false, true},
		{"a socket, where no more is known to work", []string{socket}, []string{socket}, true, true},
		{"no connect", []string{socket, connect, bind}, []string{socket, bind}, true, false},
		{"no bind", []string{socket, connect, bind}, []string{socket, connect}, true, false},
		{"all", []string{socket, connect, bind}, []string{bind, connect, socket}, true, true},
		{"more", []string{socket}, []string{bind, connect, socket}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m meters
			now := time.Now()
			m.add("was", false, now)
			m.add("next", true, now)
			for policy, calls := range map[string][]string{"was": c.was, "next": c.next} {
				for _, call := range calls {
					m.show(policy, call)
				}
			}
			if got := m.shown("next", "was", c.all); got != c.want {
				t.Errorf("it has shown enough: %v, want %v", got, c.want)
			}
		})
	}
}
