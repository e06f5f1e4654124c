package profiler

// run is one run of an executable: from an exec until no process has its image
// any more. What was not begun by an exec that was seen has one as well, which
// counts for nothing but what its processes do.
type run struct {
	of        *tally // nil until its executable is known
	pid       uint32 // of the process that exec'd; 0 where the exec was not told
	began     int64  // its exec
	processes int
	maybe     int    // of these, those that may be threads
	losses    uint32 // of the fold when it began
	window    uint32 // number of the window in which it was seen
	mark      uint32 // of the snapshot that has counted it

	seen    bool // its exec was, within a window
	unseen  bool // counted as one whose start was not seen
	crossed bool // counted as one that crosses unwatched time
	unsure  bool // an exit of its processes was lost, or one of them left the cgroup
	ended   bool // before its executable was known
	adopted bool // for a socket, before or without its exec
	guessed bool // and by its name as executed
	held    bool // its exec waits for its executable
	canary  bool

	amongHosts bool // it is known to run in the host's pid namespace, in whatever container
	beat       beat // what was seen of a canary

	used     [2]uint64 // socket uses it has been counted in
	handed   [2]uint64 // of these, those that it was handed
	handedAt int64     // when it first used one
	entry    entry
	sockets  []use // before its executable is known
}

// begin makes a run without processes. Its executable is not known yet.
func (f *Fold) begin(at int64) *run {
	var r *run
	if n := len(f.spareRuns); n > 0 {
		r, f.spareRuns = f.spareRuns[n-1], f.spareRuns[:n-1]
	} else {
		r = new(run)
	}
	r.began, r.losses = at, f.losses
	r.seen = f.windows.open && at >= f.windows.from
	r.unseen = f.windows.open && !r.seen
	r.window = f.windows.number
	if at <= f.loss.to || len(f.throttled) > 0 {
		r.losses-- // it may have begun before what was lost
	}
	return r
}

// attach says what a run runs, and counts what is known of it so far.
func (f *Fold) attach(r *run, t *tally) {
	r.of = t
	t.live++
	if t.ex.kind == kindCanary || t.ex.kind == kindOwnCanary {
		r.canary, r.seen, r.unseen = true, false, false
		f.windows.exec = f.windows.exec || t.ex.kind == kindOwnCanary
		return
	}
	if !f.windows.open && f.cfg.Canary == "" {
		t.ex.outside(r.began)
	}
	if r.seen {
		f.countSeen(r)
	}
	if r.unseen {
		f.countUnseen(r)
	}
	if r.crossed {
		t.crossed++
	}
}

func (f *Fold) countSeen(r *run) {
	t := r.of
	t.seen++
	if t.firstExec == 0 || r.began < t.firstExec {
		t.firstExec = r.began
	}
	t.lastExec = max(t.lastExec, r.began)
	t.enter(r.entry)
	f.observed(t.ex, r.began)
}

func (f *Fold) countUnseen(r *run) {
	r.unseen = true
	r.of.unseen++
	f.observed(r.of.ex, r.began)
}

// relist says that other processes than before share a run: those of one whose
// start was not seen are listed.
func (f *Fold) relist(r *run) {
	if r.unseen && r.of != nil {
		f.changed(r.of.ex)
	}
}

// leave takes one process out of a run; with the last one the run ends.
func (f *Fold) leave(r *run, at int64) {
	r.processes--
	if r.processes > 0 {
		if r.processes == r.maybe {
			r.unsure = true // it may have ended with its last process
		}
		f.relist(r)
		return
	}
	if r.of == nil {
		r.ended = true
		return
	}
	f.end(r, at)
}

// end counts a run that has ended. Whether it is complete the next canary
// tells: until then it is pending.
func (f *Fold) end(r *run, at int64) {
	t := r.of
	t.live--
	switch {
	case r.canary:
		f.beaten(r, at)
	case r.seen:
		f.observed(t.ex, at)
		if r.window == f.windows.number && !r.unsure {
			f.pend(t, r)
		}
	case r.unseen:
		f.observed(t.ex, at)
	}
	if !r.held {
		sockets := r.sockets[:0]
		*r = run{sockets: sockets}
		f.spareRuns = append(f.spareRuns, r)
	}
}

// hand notes that the run used a socket which it is not known to have opened.
func (r *run) hand(word socketType, bit uint64, at int64) {
	if r.handed == [2]uint64{} {
		r.handedAt = at
	}
	r.handed[word] |= bit
}
