package profiler

import (
	"slices"
	"time"

	"profile/store"
)

// beat is what was seen of one run of the session's canary, beside its exec
// and its end.
type beat uint8

const (
	beatFork beat = 1 << iota
	beatSocket
)

// maxWindows bounds the record. Beyond it the oldest windows are forgotten,
// which claims less.
const maxWindows = 1024

// windows is the time that is proven to be watched.
type windows struct {
	open   bool
	number uint32 // of the last one; 0 before the first
	from   int64  // where the last one begins
	proven int64  // and as far as it is proven: the return of the last canary
	list   []store.Window

	awake     time.Duration
	returned  time.Time // when the last canary came back here, on the clock that stops with the machine
	returns   uint64    // canaries that came back
	canary    int64     // exec of the last one
	canaryPID uint32
	missing   beat // what was never seen of any canary
	exec      bool // an exec of a canary was seen
	uses      useProof

	// pending holds the tallies with runs that ended since the last canary,
	// asked those that wait for Verified.
	pending []*tally
	asked   []*tally
	asking  bool
	askedAt int64
}

// pending counts the runs of one tally that ended since the last canary came
// back.
type pending struct {
	complete uint64
	clean    uint64
	losses   uint32 // of the fold when clean was counted; at another number none is
	begun    uint64 // of complete, those that began before the last canary came back
	cut      uint64 // runs of a closed window that ended outside of it
	queued   bool
}

// pend notes a run that ended, complete if the window holds.
func (f *Fold) pend(t *tally, r *run) {
	p := &t.pending
	if !p.queued {
		p.queued = true
		f.windows.pending = append(f.windows.pending, t)
	}
	begun := r.began <= f.windows.proven
	if !f.windows.open {
		if begun && !r.crossed {
			p.cut++
		}
		return
	}
	p.complete++
	if begun {
		p.begun++
	}
	if p.losses != f.losses {
		p.losses, p.clean = f.losses, 0
	}
	if r.losses == f.losses {
		p.clean++
	}
}

// commit makes complete what ended before the canary that has come back.
func (f *Fold) commit() {
	for _, t := range f.windows.pending {
		f.complete(t, t.pending)
		t.pending = pending{}
	}
	f.windows.pending = f.windows.pending[:0]
}

func (f *Fold) complete(t *tally, p pending) {
	t.complete += p.complete
	if p.losses == f.losses {
		t.clean += p.clean
	}
	f.changed(t.ex)
}

// beat notes what was seen of a run, in case it is a canary's.
func (f *Fold) beat(r *run, b beat) {
	r.beat |= b
	if r.canary && r.of.ex.kind == kindOwnCanary {
		f.windows.missing &^= b
	}
}

// beaten takes a canary's end: it has come back if its exec, fork, socket and
// exit were all seen.
func (f *Fold) beaten(r *run, at int64) {
	w := &f.windows
	if r.of.ex.kind != kindOwnCanary || r.unsure {
		return
	}
	if !f.cfg.Forks {
		r.beat |= beatFork
	}
	if r.beat != beatFork|beatSocket {
		return
	}
	w.returns++
	w.uses.back()
	w.canary, w.canaryPID = r.began, r.pid
	now := f.clock()
	if !w.open {
		f.openWindow(at)
	} else {
		w.awake += now.Sub(w.returned)
		if f.cfg.Verify {
			f.ask(at)
		} else {
			w.extend(at)
			f.commit()
		}
	}
	w.returned = now
}

// openWindow begins a window. What runs now is no run that was seen, and what
// was seen in an earlier window has crossed unwatched time.
func (f *Fold) openWindow(at int64) {
	w := &f.windows
	for _, t := range w.pending {
		t.crossed += t.pending.cut
		t.pending = pending{}
		f.changed(t.ex)
	}
	w.pending = w.pending[:0]
	w.open, w.from, w.proven = true, at, at
	w.number++
	if len(w.list) == maxWindows {
		w.list = append(w.list[:0], w.list[1:]...)
	}
	w.list = append(w.list, store.Window{From: wall(at), To: wall(at)})
	for _, q := range f.processes {
		f.spanned(q.run)
	}
	if l := f.loss; l.to > at {
		f.gap(l.from, l.to, l.cause, l.count) // told before the window, but perhaps not before it in time
	}
}

// spanned marks a run that was alive when a window opened, or that was watched
// no longer.
func (f *Fold) spanned(r *run) {
	switch {
	case r.canary || r.unseen || r.crossed:
	case r.seen:
		r.crossed = true
		if r.of != nil {
			r.of.crossed++
			f.changed(r.of.ex)
		}
	case r.of != nil:
		f.countUnseen(r)
	default:
		r.unseen = true
	}
}

func (w *windows) extend(at int64) {
	if at > w.proven {
		w.proven = at
		w.list[len(w.list)-1].To = wall(at)
	}
}

// Overdue says that a canary has not come back in its time. The window ends
// with the last one that did.
func (f *Fold) Overdue() {
	w := &f.windows
	if !w.open {
		return
	}
	w.open = false
	f.giveUp()
	for _, t := range w.pending {
		t.pending = pending{cut: t.pending.begun, queued: true}
	}
}

// Opened reports whether a window is open, and since when.
func (f *Fold) Opened() (time.Time, bool) { return wall(f.windows.from), f.windows.open }

// Returned counts the canaries that have come back.
func (f *Fold) Returned() uint64 { return f.windows.returns }

// LastCanary is when, by the agent's clock, the last canary that came back was
// started; 0 before the first.
func (f *Fold) LastCanary() int64 { return f.windows.canary }

// CanaryBack reports whether the canary has come back that was started at a
// time as the process pid, or a later one. last is what LastCanary said before
// it was started.
func (f *Fold) CanaryBack(pid uint32, started time.Time, last int64) bool {
	// The pid is another where this process has a pid namespace of its own;
	// then the times must do, which the agent's clock makes inexact.
	const slack = int64(5e6)
	w := &f.windows
	return w.returns > 0 && (w.canaryPID == pid || w.canary > last && w.canary >= started.UnixNano()-slack)
}

// Missing says in plain words what was not seen of any canary.
func (f *Fold) Missing() string {
	w := &f.windows
	switch {
	case !w.exec:
		return "exec"
	case w.missing&beatFork != 0:
		return "fork"
	case w.missing&beatSocket != 0:
		return "socket"
	}
	return "exit"
}

// audited moves the window of a recording: its audit policy has posted.
func (f *Fold) audited(at int64) {
	if !f.windows.open {
		f.openWindow(at)
	}
	f.windows.extend(at)
}

// Finish ends the stream: nothing that is waited for will come. A recording
// ends its window with it.
func (f *Fold) Finish() {
	f.expireAll()
	f.settleUnread(f.latest)
	switch {
	case f.cfg.Canary != "":
	case f.socketHook && !f.narrowedHook:
		if !f.cfg.Verify { // else what no answer came about is not known to be complete
			f.commit()
		}
	default:
		f.showOutside()
	}
}

// Describe fills in what the session's windows and gaps are by now.
func (f *Fold) Describe(s *store.Session) {
	w := &f.windows
	s.NoSocketHook = !f.socketHook || f.narrowedHook
	s.Narrowed = slices.Clone(f.narrowed)
	s.Reach = f.watchesUses()
	s.NoSendHook = s.Reach && !f.cfg.Labels
	s.Windows, s.Awake = append([]store.Window(nil), w.list...), w.awake
	if f.cfg.Canary == "" {
		s.Awake = 0
		if s.NoSocketHook {
			s.Windows = nil
		}
		for _, x := range s.Windows {
			s.Awake += x.To.Sub(x.From)
		}
	}
	s.Gaps = append([]store.Gap(nil), f.gaps...)
	if cause, n := f.uncounted(), len(s.Windows); cause != "" && n > 0 {
		s.Gaps = append(s.Gaps, store.Gap{From: s.Windows[0].From, To: s.Windows[n-1].To, Cause: cause})
	}
}

// wall is the wall-clock time of nanoseconds since 1970.
func wall(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, at).UTC()
}
