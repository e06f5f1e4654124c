package store

import "time"

// Recording is the Agent of a session that was read from recorded events. It
// does not say of which machine.
const Recording = "recording"

// How sessions end, in plain words: the first four by themselves.
const (
	EndStopped = "stopped"
	EndTime    = "its time was over"
	EndCommand = "its command ended"
	EndRecord  = "the record was read"
	EndKilled  = "killed"
	EndReboot  = "ended by a reboot"
)

// Session records one learning session and its coverage: what it could see at
// all. Times are wall-clock times of the machine that learned.
type Session struct {
	ID      string `msgpack:"id" yaml:"id,omitempty"`       // sorts by start; also names the audit policy
	Agent   string `msgpack:"agent" yaml:"agent,omitempty"` // "embedded", the agent's address, or Recording
	Version string `msgpack:"version" yaml:"version,omitempty"`
	BootID  string `msgpack:"boot,omitempty" yaml:"boot,omitempty"` // of the machine; "" in a recording or on another host
	// Machine tells the machine from others, over its boots; "" as for BootID,
	// or where it was learned by a profile that did not say.
	Machine string `msgpack:"machine,omitempty" yaml:"machine,omitempty"`

	Hook      string   `msgpack:"hook" yaml:"hook,omitempty"`           // the socket hook, as the agent names it
	Families  []string `msgpack:"families" yaml:"families,omitempty"`   // watched
	Unwatched []string `msgpack:"unwatched" yaml:"unwatched,omitempty"` // families this hook cannot see
	Cgroup    string   `msgpack:"cgroup" yaml:"cgroup,omitempty"`       // absolute within the cgroup2 tree; "/" is the whole machine
	Only      []string `msgpack:"only,omitempty" yaml:"only,omitempty"`

	Started time.Time     `msgpack:"started" yaml:"started,omitempty"`
	Ended   time.Time     `msgpack:"ended,omitempty" yaml:"ended,omitempty"` // zero while live, or killed
	End     string        `msgpack:"end,omitempty" yaml:"end,omitempty"`     // one of the ends, or the error that ended it
	Windows []Window      `msgpack:"windows" yaml:"windows,omitempty"`
	Awake   time.Duration `msgpack:"awake" yaml:"awake,omitempty"` // time awake inside the windows
	Gaps    []Gap         `msgpack:"gaps,omitempty" yaml:"gaps,omitempty"`
	// NoSocketHook says that nothing of the socket hook was ever seen, so
	// that the session proves nothing.
	NoSocketHook bool `msgpack:"nohook,omitempty" yaml:"no_socket_hook,omitempty"`
	// Reach says that connect, send and bind were watched too, so that a use
	// without a Reach was a socket that nothing was done with.
	Reach bool `msgpack:"reach,omitempty" yaml:"reach,omitempty"`
	// NoSendHook says that of these, sending was not: where datagrams went is
	// known of those alone that were connected.
	NoSendHook bool `msgpack:"nosend,omitempty" yaml:"no_send_hook,omitempty"`
	// Handed says that sending and receiving on sockets that another process
	// has opened was watched too.
	Handed bool `msgpack:"handed,omitempty" yaml:"handed,omitempty"`
	// Narrowed are the paths of proven network users of whose sockets the
	// agent was no longer asked to tell, sorted by path and time. It compares
	// paths alone: nothing is known meanwhile of any executable of that path.
	Narrowed []Narrowed `msgpack:"narrowed,omitempty" yaml:"narrowed,omitempty"`
}

// Narrowed is a time in which the sockets of a path were not asked for.
type Narrowed struct {
	Path string    `msgpack:"p" yaml:"path,omitempty"`
	From time.Time `msgpack:"f" yaml:"from,omitempty"`
	To   time.Time `msgpack:"t,omitempty" yaml:"to,omitempty"` // zero if to the end of the session
}

// Window is time proven to be watched.
type Window struct {
	From time.Time `msgpack:"f" yaml:"from,omitempty"`
	To   time.Time `msgpack:"t" yaml:"to,omitempty"`
}

// Gap is a loss of observations inside a window. Count is how many were lost,
// 0 where it cannot be known.
type Gap struct {
	From  time.Time `msgpack:"f" yaml:"from,omitempty"`
	To    time.Time `msgpack:"t" yaml:"to,omitempty"`
	Cause string    `msgpack:"c" yaml:"cause,omitempty"`
	Count uint64    `msgpack:"n" yaml:"count,omitempty"`
}

// Stage of a generation.
const (
	StageMonitor = "monitor"
	StageEnforce = "enforce"
)

// State of a generation.
const (
	StateLoading  = "loading"  // recorded before the agent was asked
	StateLoaded   = "loaded"   // in force
	StateReplaced = "replaced" // a later generation took its place
	StateReleased = "released" // taken off by release
	StateFailed   = "failed"   // could not be loaded, or not be proven to act
)

// Generation is one applied version of the enforcing policy.
type Generation struct {
	N uint64 `msgpack:"n"` // counts up within one database
	// Policies are the names of its policies, at least one: several where they
	// are too large for one. Dir is the agent's policy directory that they are
	// kept in as well; "" is none.
	Policies []string `msgpack:"policies"`
	Dir      string   `msgpack:"dir,omitempty"`
	State    string   `msgpack:"state"`
	Stage    string   `msgpack:"stage"`
	Agent    string   `msgpack:"agent"`
	Cgroup   string   `msgpack:"cgroup"` // "/" is the whole machine
	Paths    []string `msgpack:"paths"`  // listed, sorted, canaries left out
	Families []string `msgpack:"families"`
	// Files holds, by path, the identity that each listed file was known by.
	Files map[string]FileID `msgpack:"files,omitempty"`
	// MinRuns, MinWatch and AcceptGaps are the thresholds of the plan.
	MinRuns    uint64        `msgpack:"minruns"`
	MinWatch   time.Duration `msgpack:"minwatch"`
	AcceptGaps bool          `msgpack:"acceptgaps,omitempty"`
	// LearnedSince and Wider are what the plan was told besides; Sessions are
	// those that it considered, sorted.
	LearnedSince time.Time `msgpack:"learnedsince,omitempty"`
	Wider        bool      `msgpack:"wider,omitempty"`
	Sessions     []string  `msgpack:"sessions,omitempty"`

	Since time.Time `msgpack:"since"`           // when it was loaded
	Ended time.Time `msgpack:"ended,omitempty"` // when it was taken off
	Tried time.Time `msgpack:"tried,omitempty"` // when canaries last proved it to act
	// Kills are what this generation had counted when it was last asked, and
	// Counters what the agent's own said then, of an agent that counts each policy
	// as a whole.
	Kills    []Kill    `msgpack:"kills,omitempty"`
	Counters []Counter `msgpack:"counters,omitempty"`
}

// Counter is an agent's counter of one policy, which begins anew with each
// process that the agent is.
type Counter struct {
	Policy   string `msgpack:"p"`
	Instance string `msgpack:"i,omitempty"` // of the agent; "" if it is not known
	Count    uint64 `msgpack:"n,omitempty"`
	Before   uint64 `msgpack:"b,omitempty"` // kills that instances before this one counted
	Anew     bool   `msgpack:"a,omitempty"` // this one has not seen the canary by which the policy was tried
}

// Kill counts what was done, or in the monitor stage would have been done, to
// one executable. Path is "" where the agent cannot tell them apart.
type Kill struct {
	Path      string    `msgpack:"p"`
	Kills     uint64    `msgpack:"k,omitempty"`
	Would     uint64    `msgpack:"w,omitempty"`
	LastKill  time.Time `msgpack:"l,omitempty"`
	LastWould time.Time `msgpack:"m,omitempty"`
}
