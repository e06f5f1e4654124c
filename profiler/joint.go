package profiler

import (
	"strings"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// An exec is told twice: a kprobe names the executable, and the event of the
// exec itself all else. They are joined by pid and nearest time, in either
// order, since real agents turn them round, in the stream and in their times
// (FACTS 50).

const (
	// joinWithin is how far apart the two may be: an executable on a slow
	// disk is read in between.
	joinWithin = int64(5e9)
	// maxHeld bounds the execs that wait for their executable.
	maxHeld = 4096
)

type joint struct {
	probes map[uint32]probe // by pid: what the next exec runs
	held   []held           // execs that came first, in order
}

// probe is what the kprobe tells of an exec.
type probe struct {
	at     int64
	caller string // exec_id of the image that goes
	path   string // resolved; "" if the executable has none
	file   string // label of its identity
	binary string // name as executed, only where it is not UTF-8
	pidns  uint32 // 0 where it is not told
	script bool
}

// held is an exec whose executable has not been told yet.
type held struct {
	at    int64
	pid   uint32
	id    string
	run   *run
	entry entry
	scope string
	args  string

	process *api.Process // only where its executable is to be resolved
}

// probe takes the kprobe of an exec.
func (f *Fold) probe(k *api.ProcessKprobe, at int64) {
	f.lookup(k.GetProcess(), at) // it learns the caller's id, and finds a lost end
	pid := k.GetProcess().GetPid().GetValue()
	pr := f.readProbe(k, at)
	best := -1
	for i, h := range f.joint.held {
		if h.pid == pid && f.belong(pr, h.id, h.at) && (best < 0 || apart(pr.at, h.at) < apart(pr.at, f.joint.held[best].at)) {
			best = i
		}
	}
	if best < 0 {
		f.joint.probes[pid] = pr
		return
	}
	h := f.joint.held[best]
	f.joint.held = append(f.joint.held[:best], f.joint.held[best+1:]...)
	h.run.held = false
	f.resolve(h.run, pr, h)
	if h.run.ended {
		f.end(h.run, at)
	}
}

func (f *Fold) readProbe(k *api.ProcessKprobe, at int64) probe {
	pr := probe{at: at, caller: k.GetProcess().GetExecId()}
	if len(k.GetArgs()) > 0 {
		pr.path = k.Args[0].GetLinuxBinprmArg().GetPath()
	}
	unnameable := pr.path == ""
	why := memfd
	for _, d := range k.GetData() {
		switch d.GetLabel() {
		case tetragon.LabelFile:
			pr.file = d.GetStringArg()
		case tetragon.LabelScript:
			pr.script = d.GetIntArg() != 0
		case tetragon.LabelPath:
			pr.path = string(d.GetBytesArg())
		case tetragon.LabelBinary:
			pr.binary = string(d.GetBytesArg())
		case tetragon.LabelPIDNS:
			pr.pidns = d.GetUintArg()
		case tetragon.LabelUnnameable:
			unnameable, why = true, d.GetStringArg()
		}
	}
	if unnameable {
		pr.path, pr.file = namelessPath(why), ""
	}
	return pr
}

// belong reports whether a kprobe and an exec of one pid can be the same exec.
func (f *Fold) belong(pr probe, id string, at int64) bool {
	if apart(pr.at, at) > joinWithin {
		return false
	}
	// Where ids change with each exec, a caller with the exec's own id calls
	// a later one.
	return f.cfg.Labels || id == "" || pr.caller != id
}

// joinExec takes the exec of a run.
func (f *Fold) joinExec(r *run, p *api.Process, e entry, at int64) {
	h := held{at: at, pid: p.GetPid().GetValue(), id: p.GetExecId(), run: r, entry: e, scope: f.scope(p), args: p.GetArguments()}
	if pr, ok := f.joint.probes[h.pid]; ok && f.belong(pr, h.id, at) {
		delete(f.joint.probes, h.pid)
		f.resolve(r, pr, h)
		return
	}
	if f.cfg.NoExecs {
		h.process = p
		f.resolveByName(h)
		return
	}
	r.held = true
	f.joint.held = append(f.joint.held, h)
	if len(f.joint.held) > maxHeld {
		f.expire()
	}
}

// resolve says what a run runs, and under which name.
func (f *Fold) resolve(r *run, pr probe, h held) {
	h.scope = f.inNamespace(h.scope, h.pid, pr.pidns)
	r.amongHosts = pr.pidns == f.cfg.PIDNamespace
	ex := f.executable(store.Key{Scope: h.scope, Path: pr.path})
	script := pr.script || !f.cfg.Labels && seemsScript(h.entry.name, pr.path, h.args)
	r.entry = h.entry.as(pr.binary, script)
	if pr.file == "" && f.cfg.File != nil && h.scope == store.HostScope && strings.HasPrefix(pr.path, "/") {
		pr.file = labelOf(f.cfg.File(pr.path, min(pr.at, h.at)))
	}
	t := ex.tally(pr.file)
	f.attach(r, t)
	if f.cfg.KeepArgs && r.seen {
		t.keepArgs(h.args)
	}
	f.settleSockets(r)
}

// expireHeld gives up on execs whose executable has not come in time.
func (f *Fold) expireHeld() {
	for len(f.joint.held) > 0 && f.latest-f.joint.held[0].at > joinWithin {
		f.expire()
	}
}

func (f *Fold) expireAll() {
	for len(f.joint.held) > 0 {
		f.expire()
	}
}

// expire gives up on the oldest: what it ran was lost. If it is alive, or has
// used the network, it goes by its name as executed, as a start not seen.
func (f *Fold) expire() {
	h := f.joint.held[0]
	f.joint.held = append(f.joint.held[:0], f.joint.held[1:]...)
	if f.cfg.Canary == "" && !f.execHook {
		f.resolveByName(h)
		return
	}
	if h.at >= f.windows.from {
		f.gap(h.at, h.at, "the executable of an exec was lost", 1)
	}
	r := h.run
	r.held, r.seen, r.unseen, r.crossed = false, false, f.windows.open, false
	if r.ended && len(r.sockets) == 0 || h.entry.name == "" {
		return
	}
	f.attach(r, f.executable(store.Key{Scope: f.inNamespace(h.scope, h.pid, 0), Path: h.entry.name}).tally(""))
	f.settleSockets(r)
	if r.ended {
		f.end(r, h.at)
	}
}

// resolveByName takes an exec of which no kprobe tells, since there is none:
// only its name as executed is known.
func (f *Fold) resolveByName(h held) {
	h.run.held = false
	path := nameless
	if h.entry.name != "" {
		path = store.Unresolved + h.entry.name
	}
	if f.cfg.Resolve != nil {
		if known := f.cfg.Resolve(h.process, f.inNamespace(h.scope, h.pid, 0) != store.HostScope); known != "" {
			path = known
		}
	}
	f.resolve(h.run, probe{at: h.at, path: path}, h)
	if h.run.ended {
		f.end(h.run, h.at)
	}
}

// dropProbes forgets kprobes whose exec has not come in time: it failed.
func (f *Fold) dropProbes() {
	for pid, pr := range f.joint.probes {
		if f.latest-pr.at > joinWithin {
			delete(f.joint.probes, pid)
		}
	}
}

func apart(a, b int64) int64 { return max(a-b, b-a) }
