package profiler

import (
	"cmp"
	"strings"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/types/known/timestamppb"

	"profile/internal/tetragon"
	"profile/store"
)

// Config says what one session folds, and what its agent can tell.
type Config struct {
	Session string
	// Policy names the audit policy, or begins the names of several, up to a
	// '-': kprobe events of others are ignored. In a recording, where it is "",
	// those of every policy that acts on nothing count.
	Policy string
	Only   []string // doublestar patterns, valid ones; none means everything

	KeepArgs bool
	// Labels says that the agent adds the data labels of package tetragon.
	Labels bool
	// Forks says that the agent tells of forks, and Losses that what it lost
	// is known. Without either the session has a gap over all of its windows.
	Forks, Losses bool
	// Uses says that the agent tells what sockets are used for.
	Uses bool
	// NoExecs says that the agent does not tell the executable of an exec: it
	// goes by its name as executed.
	NoExecs bool
	// Verify says that it is known only later whether all that ended before a
	// canary was told: nothing is complete before Verified.
	Verify bool
	// Thread reports whether a task that is alive is a thread of another
	// process, for agents that do not tell; nil where it cannot be known.
	Thread func(pid uint32) bool
	// Resolve gives the executable of a process whose exec was not told, ""
	// where it cannot be known; nil where it never can.
	Resolve func(p *api.Process, inContainer bool) string
	// PIDNamespace is the inode number of the host's pid namespace; 0 means the
	// first one's. NamespaceOf gives that of a live process, 0 where it cannot be
	// known, for agents that do not tell; nil where it never can.
	PIDNamespace uint32
	NamespaceOf  func(pid uint32) uint32
	// File gives the file that was executed at a path of this host at a time,
	// for agents that do not tell; nil where it cannot be known.
	File func(path string, at int64) store.FileID

	// Canary is the path of the session's own canary. Without one the windows
	// follow the rule for recordings: from the audit policy's first event to
	// the last.
	Canary string
	// IsCanary recognises the canaries of others. It is asked once for each
	// executable.
	IsCanary func(path string) bool
}

// Fold turns the events of one session into evidence. What it keeps is bounded
// by executables and live processes, not by events. It is not safe for
// concurrent use.
type Fold struct {
	cfg    Config
	names  []string // of the network families
	number []int32  // their numbers
	clock  func() time.Time

	processes   map[uint32]*process
	executables map[store.Key]*executable
	dirty       []*executable
	touched     bool // something happened to every live run since the last snapshot
	mark        uint32
	scopes      map[container]string
	numbers     int // of scopes, that are an ID or a number
	joint       joint

	listed []listing // what is in force, where the agent does not say so
	taken  []taken   // since it was last found to be acted on

	windows windows
	gaps    []store.Gap
	losses  uint32 // so far; a run that began at another number is touched
	loss    loss   // the last one

	latest, previous int64            // the latest time told, and that of the last event that tells no loss
	throttled        map[string]int64 // cgroups, since when
	unread           int              // lines of the record that were bad, since the last event
	socketHook       bool             // something of the socket hook was seen
	forkHook         bool             // something of the fork hook was
	execHook         bool             // something of the exec hook was
	useHooks         useHooks         // something of these was
	unknownUse       int              // processes that opened a socket, and nobody knows which executable they run
	narrowed         []store.Narrowed // paths of whose sockets is not told, sorted
	narrowedHook     bool             // a recorded event is of a learner's policy that leaves some out
	families         uint8            // seen at the socket hook, a bit each as in names
	counts           Counts

	spareRuns      []*run
	spareProcesses []*process
}

// Counts sums up a session for who watches it.
type Counts struct {
	Executables int    // with evidence
	Network     int    // of these, those that used the network
	Events      uint64 // received
	Lost        uint64 // known to be lost, in windows
}

// NewFold returns a fold that has seen nothing yet.
func NewFold(cfg Config) *Fold {
	cfg.PIDNamespace = cmp.Or(cfg.PIDNamespace, firstPIDNamespace)
	f := &Fold{
		cfg:         cfg,
		names:       tetragon.NetworkFamilies(),
		clock:       time.Now,
		processes:   map[uint32]*process{},
		executables: map[store.Key]*executable{},
		scopes:      map[container]string{},
		throttled:   map[string]int64{},
		joint:       joint{probes: map[uint32]probe{}},
		windows:     windows{missing: beatFork | beatSocket},
	}
	for _, name := range f.names {
		number, _ := tetragon.FamilyNumber(name)
		f.number = append(f.number, number)
	}
	return f
}

// Counts says how far the session is.
func (f *Fold) Counts() Counts { return f.counts }

// Event folds one event, in the order of arrival.
func (f *Fold) Event(ev *api.GetEventsResponse) {
	f.counts.Events++
	at := nanos(ev.GetTime())
	if at == 0 {
		at = f.latest
	}
	f.latest = max(f.latest, at)
	f.settleUnread(at)
	switch e := ev.GetEvent().(type) {
	case *api.GetEventsResponse_ProcessKprobe:
		f.kprobe(e.ProcessKprobe, at)
	case *api.GetEventsResponse_ProcessTracepoint:
		f.tracepoint(e.ProcessTracepoint, at)
	case *api.GetEventsResponse_ProcessThrottle:
		f.throttle(e.ProcessThrottle.GetCgroup(), e.ProcessThrottle.GetType() == api.ThrottleType_THROTTLE_STOP, at)
	case *api.GetEventsResponse_ProcessExec:
		f.checkName(e.ProcessExec.GetProcess(), at)
		f.exec(e.ProcessExec.GetProcess(), at)
	case *api.GetEventsResponse_ProcessExit:
		f.checkName(e.ProcessExit.GetProcess(), at)
		f.exit(e.ProcessExit, at)
	case *api.GetEventsResponse_RateLimitInfo:
		// It may come before events that went before the loss, but after none
		// that followed it.
		f.gap(f.previous, at, "the agent lost observations", e.RateLimitInfo.GetNumberOfDroppedProcessEvents())
		return
	}
	f.previous = at
	f.expireHeld()
}

func (f *Fold) kprobe(k *api.ProcessKprobe, at int64) {
	if !f.audits(k) {
		return
	}
	if f.cfg.Canary == "" {
		f.audited(at)
	}
	f.checkName(k.GetProcess(), at)
	switch k.GetFunctionName() {
	case tetragon.CallExec:
		f.execHook = true
		f.probe(k, at)
	case tetragon.CallFork:
		f.forkHook = true
		f.fork(k, at)
	case tetragon.CallConnect, tetragon.CallBind, tetragon.CallSend, tetragon.CallReceive:
		f.useHooks.saw(k.GetFunctionName())
		f.reach(k, at)
	case tetragon.CallLeave:
		// What it does from here on is not seen: time that was not watched.
		if q := f.lookup(k.GetProcess(), at); q != nil {
			q.run.unsure = true
			f.spanned(q.run)
		}
	case tetragon.CallLapse:
		f.lapse(k, at)
	case tetragon.CallSocketCreate:
		f.socketHook = true
		f.narrowedHook = f.narrowedHook || f.cfg.Policy == "" && isNarrowed(k.GetPolicyName())
		f.socket(k, at)
	}
}

// tracepoint takes a fork from an agent whose kprobes cannot tell of it.
func (f *Fold) tracepoint(t *api.ProcessTracepoint, at int64) {
	if t.GetEvent() != tetragon.EventFork || f.cfg.Policy != "" && t.GetPolicyName() != f.cfg.Policy+tetragon.ForksSuffix {
		return
	}
	f.forkHook = true
	f.checkName(t.GetProcess(), at)
	if args := t.GetArgs(); len(args) > 1 {
		f.forkOrThread(t.GetProcess(), uint32(args[1].GetIntArg()), at)
	}
}

// audits reports whether an event is of the audit policy.
func (f *Fold) audits(k *api.ProcessKprobe) bool {
	if f.cfg.Policy != "" {
		return isOf(k.GetPolicyName(), f.cfg.Policy)
	}
	if strings.HasPrefix(k.GetPolicyName(), tetragon.EnforcePrefix) {
		return false
	}
	switch k.GetAction() {
	case api.KprobeAction_KPROBE_ACTION_SIGKILL, api.KprobeAction_KPROBE_ACTION_SIGNAL,
		api.KprobeAction_KPROBE_ACTION_OVERRIDE, api.KprobeAction_KPROBE_ACTION_NOTIFYENFORCER:
		return false
	}
	return true
}

// isOf reports whether a policy is the one of a name, or one of those whose
// names begin with it.
func isOf(policy, name string) bool {
	rest, is := strings.CutPrefix(policy, name)
	return is && (rest == "" || rest[0] == '-')
}

// isNarrowed reports whether a learner's policy leaves out some executables,
// and it is not known which.
func isNarrowed(policy string) bool {
	return strings.HasPrefix(policy, tetragon.LearnPrefix) && strings.Contains(policy, tetragon.NarrowedSuffix)
}

// checkName notes the loss that a Tetragon owns up to by not naming a process.
func (f *Fold) checkName(p *api.Process, at int64) {
	if f.cfg.Labels {
		return // the sensor counts its losses, and names no process outside its cgroup
	}
	name := p.GetBinary()
	if name == "" || strings.Contains(name, "<enomem>") || hasFlag(p, "unknown") {
		f.gap(f.previous, at, "the agent lost the name of a process", 1)
	}
}

// hasFlag looks for one word in the flags that an agent gives a process.
func hasFlag(p *api.Process, flag string) bool {
	return strings.Contains(p.GetFlags(), flag)
}

// hasKnownName reports whether the name of a process is that of its resolved
// executable: the agent read it from /proc.
func hasKnownName(p *api.Process) bool {
	return hasFlag(p, "procFS") && strings.HasPrefix(p.GetBinary(), "/")
}

// nanos is a time in nanoseconds since 1970, 0 if it was not told.
func nanos(t *timestamppb.Timestamp) int64 {
	return t.GetSeconds()*1e9 + int64(t.GetNanos())
}
