package profiler

// An agent that only counts what it posted is asked, from time to time,
// whether all of it has come. Until it has, what ended since is waited for:
// what was lost of it would not be told in the stream.

// Ask says that what has ended until now is complete if the agent turns out to
// have lost nothing of it. It is for an agent without canaries.
func (f *Fold) Ask() {
	if f.windows.open {
		f.ask(f.latest)
	}
}

// AskAnew asks about all that has ended, also where an answer is waited for: one
// to the later question is one to both.
func (f *Fold) AskAnew() {
	w := &f.windows
	for _, t := range w.asked {
		p, a := &t.pending, t.asked
		if !p.queued {
			p.queued = true
			w.pending = append(w.pending, t)
		}
		if p.losses != f.losses {
			p.losses, p.clean = f.losses, 0
		}
		if a.losses == f.losses {
			p.clean += a.clean
		}
		p.complete += a.complete
		p.begun += a.begun
		t.asked = pending{}
	}
	w.asked, w.asking = w.asked[:0], false
	f.Ask()
}

// ask moves what ended from pending to asked, unless an answer is waited for.
func (f *Fold) ask(at int64) {
	w := &f.windows
	if w.asking {
		return
	}
	w.asking, w.askedAt = true, at
	for _, t := range w.pending {
		t.asked, t.pending = t.pending, pending{}
	}
	w.asked, w.pending = append(w.asked[:0], w.pending...), w.pending[:0]
}

// Verified says that nothing was lost until the question, or that what was is
// told as a gap.
func (f *Fold) Verified() {
	w := &f.windows
	if !w.asking {
		return
	}
	w.asking = false
	if w.open {
		w.extend(w.askedAt)
	}
	for _, t := range w.asked {
		f.complete(t, t.asked)
		t.asked = pending{}
	}
	w.asked = w.asked[:0]
}

// giveUp is for a window that closes before the answer: what was asked about
// is not complete.
func (f *Fold) giveUp() {
	w := &f.windows
	w.asking = false
	for _, t := range w.asked {
		if !t.pending.queued {
			t.pending.queued = true
			w.pending = append(w.pending, t)
		}
		t.pending.begun += t.asked.begun
		t.asked = pending{}
	}
	w.asked = w.asked[:0]
}

// Interrupt says that the stream has ended. Until it is opened again nothing is
// watched, and which processes end is not seen.
func (f *Fold) Interrupt() {
	f.expireAll()
	if f.cfg.Canary == "" && !f.cfg.Verify {
		f.commit()
	}
	f.Overdue()
	f.windows.uses.since, f.windows.uses.missed = useHooks{}, 0
	clear(f.joint.probes)
	clear(f.throttled)
	for _, q := range f.processes {
		q.stale = true
	}
}

// throttle takes an event of an agent that holds back the events of a cgroup:
// all that runs until it no longer does can be touched.
func (f *Fold) throttle(cgroup string, stop bool, at int64) {
	const cause = "the agent throttled the events of a cgroup"
	since, was := f.throttled[cgroup]
	switch {
	case !stop && !was:
		if len(f.throttled) < maxThrottled {
			f.throttled[cgroup] = at
		}
		f.gap(at, at, cause, 0)
	case stop && was:
		delete(f.throttled, cgroup)
		f.gap(since, at, cause, 0)
	case stop:
		f.gap(f.windows.from, at, cause, 0)
	}
}

// maxThrottled bounds the cgroups that are remembered as throttled.
const maxThrottled = 1024

// Sweep takes out processes that are gone, of those whose end may not have been
// told: the stream ended meanwhile, or they may be threads.
func (f *Fold) Sweep(alive func(pid uint32) bool) {
	for pid, q := range f.processes {
		if (q.stale || q.maybe) && !alive(pid) {
			q.run.unsure = true
			f.remove(pid, q, f.latest)
		}
	}
}
