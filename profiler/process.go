package profiler

import (
	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"profile/store"
)

// process is one live process: the run whose image it has, alone or with
// others.
type process struct {
	run    *run
	id     string // exec_id as the agent gives it, "" until it is told
	start  int64  // start time as the agent gives it, 0 until it is told
	since  int64  // when it came to its image, by exec or fork
	forked bool   // and has not exec'd since
	maybe  bool   // it may be a thread, whose end is never told
	stale  bool   // the stream ended meanwhile: so may it have
}

// startSlack allows for the agent's arithmetic with clocks.
const startSlack = int64(1e6)

// lookup finds the process that an event is about. It is nil if that one is
// not known: if another has its pid, because an event was lost or came late,
// too.
func (f *Fold) lookup(p *api.Process, at int64) *process {
	pid := p.GetPid().GetValue()
	q := f.processes[pid]
	if q == nil {
		return nil
	}
	id, start := p.GetExecId(), nanos(p.GetStartTime())
	switch {
	case id != "" && id == q.id:
	case f.execs(p, q):
		f.lostEnd(pid, q, at)
		return nil
	case q.start == 0:
		q.id, q.start = id, start
	case start == 0:
	case start > q.start+startSlack:
		f.lostEnd(pid, q, at)
		return nil
	case start < q.start-startSlack:
		return nil
	}
	q.stale = false
	if q.maybe {
		q.maybe = false // events name no threads
		q.run.maybe--
	}
	return q
}

// execs reports whether a process which is known as a fork has an image of its
// own by now, whose exec is lost, or told later. A machine that is fast does
// both within startSlack, so that only the flag tells.
func (f *Fold) execs(p *api.Process, q *process) bool {
	return !f.cfg.Labels && q.forked && !q.stale && hasFlag(p, "clone") && !hasFlag(p, "procFS")
}

// sameImage reports whether a process has the image which it is known by, as far
// as the agent's id tells. Of what ran before the agent that one changes with
// each start of the agent.
func (f *Fold) sameImage(p *api.Process, q *process) bool {
	return f.cfg.Labels || q.id == "" || p.GetExecId() == "" || p.GetExecId() == q.id || hasFlag(p, "procFS")
}

// lostEnd takes a process out whose pid another one has: how and when it ended
// is not known.
func (f *Fold) lostEnd(pid uint32, q *process, at int64) {
	if !q.stale && !q.maybe {
		f.gap(min(max(q.since, f.windows.from), at), at, "an exit was lost", 1)
	}
	q.run.unsure = true
	f.remove(pid, q, at)
}

// remove takes a process out of the table and out of its run.
func (f *Fold) remove(pid uint32, q *process, at int64) {
	delete(f.processes, pid)
	if q.maybe {
		q.run.maybe--
	}
	f.leave(q.run, at)
	*q = process{}
	f.spareProcesses = append(f.spareProcesses, q)
}

// add puts a process into the table, whose pid must be free there.
func (f *Fold) add(pid uint32, r *run, at int64) *process {
	var q *process
	if n := len(f.spareProcesses); n > 0 {
		q, f.spareProcesses = f.spareProcesses[n-1], f.spareProcesses[:n-1]
	} else {
		q = new(process)
	}
	q.run, q.since = r, at
	r.processes++
	f.processes[pid] = q
	f.relist(r)
	return q
}

// fork gives a new process the run of its parent. Where the parent is not
// known, its child is not either.
func (f *Fold) fork(k *api.ProcessKprobe, at int64) {
	if len(k.GetArgs()) < 2 {
		return
	}
	child, group := uint32(k.Args[0].GetIntArg()), uint32(k.Args[1].GetIntArg())
	if child == group { // else it is a thread
		f.forked(k.GetProcess(), child, at)
	}
}

// forkOrThread does so for a task that may be a thread.
func (f *Fold) forkOrThread(parent *api.Process, child uint32, at int64) {
	if f.cfg.Thread != nil && f.cfg.Thread(child) {
		return
	}
	if q := f.forked(parent, child, at); q != nil {
		q.maybe = true
		q.run.maybe++
	}
}

// forked is nil where the child is not followed.
func (f *Fold) forked(parent *api.Process, child uint32, at int64) *process {
	if q := f.processes[child]; q != nil {
		if at <= q.since {
			return nil // told late: the child has been told of since
		}
		f.lostEnd(child, q, at)
	}
	q := f.lookup(parent, at)
	switch {
	case q != nil:
	case f.free(parent) && hasKnownName(parent):
		q = f.addUnseen(parent, parent.GetBinary(), "", at)
	case !f.cfg.Labels && hasFlag(parent, "clone") && nanos(parent.GetStartTime()) >= f.windows.from:
		// Its exec, in the window, is told of later, or its end was before: its
		// run would seem to have ended without the child.
		f.gap(at, at, "a fork was told of apart from the run that it belongs to", 1)
		return nil
	default:
		return nil
	}
	f.beat(q.run, beatFork)
	r := q.run
	q = f.add(child, r, at)
	q.forked = true
	return q
}

// exec ends the process's share in its run and begins a new one.
func (f *Fold) exec(p *api.Process, at int64) {
	if p == nil {
		return
	}
	if hasFlag(p, "procFS") {
		// It ran before; it may have been told of already.
		if f.lookup(p, at) == nil && f.free(p) && hasKnownName(p) {
			f.addUnseen(p, p.GetBinary(), "", at)
		}
		return
	}
	if f.windows.open && at < f.windows.from && f.latest-at > staleAfter {
		return // its exit may have gone before, so that it would seem to live on (FACTS 50)
	}
	pid := p.GetPid().GetValue()
	q := f.processes[pid]
	switch {
	case q == nil:
	case q.id != "" && q.id == p.GetExecId():
		if !q.run.adopted {
			return // told twice
		}
	case !q.forked && hasFlag(p, "clone"):
		f.lostEnd(pid, q, at) // the first exec of a process, and not of this one
		q = nil
	}
	r := f.begin(at)
	e := f.entered(p, q)
	if q == nil {
		q = f.add(pid, r, at)
	} else {
		old := q.run
		if q.maybe {
			old.maybe--
		}
		if old.adopted && q.id == p.GetExecId() {
			r.sockets = append(r.sockets, old.sockets...) // told before its exec
			if old.guessed {
				f.unknownUse--
			}
		}
		q.run, q.since, q.forked, q.maybe, q.stale = r, at, false, false, false
		r.processes++
		f.leave(old, at)
	}
	q.id, q.start = p.GetExecId(), nanos(p.GetStartTime())
	r.pid = pid
	f.joinExec(r, p, e, at)
}

// staleAfter is how late an exec from before the window may come.
const staleAfter = int64(5e9)

// exit removes a process. Where its start was not seen, but its name tells its
// executable, that much is noted.
func (f *Fold) exit(e *api.ProcessExit, at int64) {
	p := e.GetProcess()
	if f.cfg.Canary == "" && f.windows.open {
		f.windows.extend(at)
	}
	if q := f.lookup(p, at); q != nil {
		f.remove(p.GetPid().GetValue(), q, at)
		return
	}
	if !f.windows.open || !f.free(p) {
		return
	}
	if hasKnownName(p) || hasKnownName(e.GetParent()) && isFork(p, e.GetParent()) {
		f.addUnseen(p, p.GetBinary(), "", at)
		f.remove(p.GetPid().GetValue(), f.processes[p.GetPid().GetValue()], at)
	}
}

// free reports whether no process in the table has the pid.
func (f *Fold) free(p *api.Process) bool {
	return p != nil && f.processes[p.GetPid().GetValue()] == nil
}

// addUnseen takes in a process whose start was not seen, under the path of its
// executable, and the label of the file if that is known.
func (f *Fold) addUnseen(p *api.Process, path, file string, at int64) *process {
	r := f.begin(at)
	r.seen, r.unseen = false, false
	q := f.add(p.GetPid().GetValue(), r, at)
	q.id, q.start = p.GetExecId(), nanos(p.GetStartTime())
	f.attach(r, f.executable(store.Key{Scope: f.unseenScope(p), Path: path}).tally(file))
	if f.windows.open && !r.canary {
		f.countUnseen(r)
	}
	return q
}

// foundSlack is how much later than /proc has it a process may have started,
// whose fork is told of then.
const foundSlack = int64(100e6)

// Found takes in a process of this host that was running before the window
// opened, of which an agent like a Tetragon tells nothing until it does
// something. It may have ended since, or be told of by now.
func (f *Fold) Found(pid uint32, path string, started int64) {
	from := f.windows.from
	if !f.windows.open || started > from-foundSlack || f.processes[pid] != nil {
		return
	}
	var file string
	if f.cfg.File != nil {
		file = labelOf(f.cfg.File(path, started))
	}
	q := f.addUnseen(&api.Process{Pid: wrapperspb.UInt32(pid)}, path, file, from)
	q.since, q.forked, q.stale = started, true, true
}

// isFork reports whether a process seems to have been forked from its parent
// without an exec since: for agents that do not tell of forks (FACTS 43).
func isFork(p, parent *api.Process) bool {
	return parent != nil && parent.GetPid().GetValue() != p.GetPid().GetValue() &&
		parent.GetBinary() == p.GetBinary() && !hasFlag(p, "clone")
}

// adopt takes in a process that the fold does not know and that opened a
// socket: as a fork of one it knows, or as one whose start was not seen, under
// the path that the agent gives, else its name as executed.
func (f *Fold) adopt(k *api.ProcessKprobe, path string, at int64) *run {
	p, parent := k.GetProcess(), k.GetParent()
	if !f.free(p) {
		return f.bystander(p, path, at)
	}
	if isFork(p, parent) {
		if q := f.processes[parent.GetPid().GetValue()]; q != nil && q.id == parent.GetExecId() {
			child := f.add(p.GetPid().GetValue(), q.run, at)
			child.id, child.start, child.forked = p.GetExecId(), nanos(p.GetStartTime()), true
			return q.run
		}
	}
	path, known := f.nameOf(p, path)
	r := f.addUnseen(p, path, "", at).run
	r.adopted, r.guessed = !f.cfg.Labels, !known
	if r.guessed {
		f.unknownUse++
	}
	return r
}

// nameOf names the executable of a process whose exec was not told. Where only
// its name as executed is known, that of a symlink perhaps, what it did may be
// another's doing.
func (f *Fold) nameOf(p *api.Process, path string) (name string, known bool) {
	if f.cfg.Labels || hasKnownName(p) {
		return path, true
	}
	if f.cfg.Resolve != nil {
		if known := f.cfg.Resolve(p, f.unseenScope(p) != store.HostScope); known != "" {
			return known, true
		}
	}
	return path, false
}
