package store

import "time"

// HostScope is the scope of processes that no container is named for.
const HostScope = "host"

// OtherContainers is the scope of the containers beyond those that a session
// keeps apart.
const OtherContainers = "container:others"

// Unresolved begins the path of a Key whose executable is not known: what
// follows is the name as executed, which may be a symlink's or a script's. No
// path begins so, and no policy can name it.
const Unresolved = "unresolved:"

// Key names one executable within one scope. Path holds the bytes of the
// resolved path as the kernel gave them; they need not be UTF-8, and never
// contain a NUL. Scope is HostScope, or a container's name as the profiler
// gives it.
type Key struct {
	Scope string `yaml:"scope"`
	Path  string `yaml:"path"`
}

// FileID is the identity of the file behind an executable. The zero value
// means that it is not known.
type FileID struct {
	Dev     uint64 `msgpack:"d,omitempty" yaml:"dev,omitempty"` // as stat(2) gives it
	Ino     uint64 `msgpack:"i,omitempty" yaml:"ino,omitempty"`
	Size    int64  `msgpack:"s,omitempty" yaml:"size,omitempty"`     // bytes
	CtimeNS int64  `msgpack:"c,omitempty" yaml:"ctime_ns,omitempty"` // change time, nanoseconds since 1970
}

// Known reports whether the identity was given.
func (id FileID) Known() bool { return id != FileID{} }

// Evidence is all that one session knows of one executable: the row that the
// store keeps under (scope, path, session). Rows of different sessions are
// never added up on disk, so that a session can be left out, or merged twice,
// without counting anything twice.
type Evidence struct {
	Key     Key    `msgpack:"-" yaml:",inline"`
	Session string `msgpack:"-" yaml:"session,omitempty"`

	FirstSeen time.Time `msgpack:"f" yaml:"first_seen,omitempty"`
	LastSeen  time.Time `msgpack:"l" yaml:"last_seen,omitempty"`
	// Files holds one tally for each file seen at the path in this session,
	// in the order in which they first appeared.
	Files []Tally `msgpack:"t" yaml:"files,omitempty"`
	// Attempts are sockets opened while the executable was listed. They are
	// never evidence of network use.
	Attempts []Attempt `msgpack:"a,omitempty" yaml:"attempts,omitempty"`
}

// Tally counts what one file did in one session.
type Tally struct {
	File      FileID    `msgpack:"i" yaml:"file,omitempty"`
	FirstExec time.Time `msgpack:"f,omitempty" yaml:"first_exec,omitempty"` // zero if no exec was seen
	LastExec  time.Time `msgpack:"l,omitempty" yaml:"last_exec,omitempty"`

	// Seen counts runs whose exec was seen inside a proven window.
	Seen uint64 `msgpack:"s,omitempty" yaml:"seen,omitempty"`
	// Complete counts those whose end was seen in the same window.
	Complete uint64 `msgpack:"c,omitempty" yaml:"complete,omitempty"`
	// Clean counts the complete runs that no gap is known to have touched.
	Clean uint64 `msgpack:"u,omitempty" yaml:"clean,omitempty"`
	// Crossed counts runs that cross unwatched time within the session.
	Crossed uint64 `msgpack:"x,omitempty" yaml:"crossed,omitempty"`
	// Going describes the seen runs that had not ended at the last flush.
	Going Going `msgpack:"g,omitempty" yaml:"going,omitempty"`
	// Unseen are live processes whose start was not seen, at most
	// MaxUnseen of them; UnseenCount has them all, dead ones included.
	Unseen      []Process `msgpack:"n,omitempty" yaml:"unseen,omitempty"`
	UnseenCount uint64    `msgpack:"N,omitempty" yaml:"unseen_count,omitempty"`

	Entries []Entry `msgpack:"e,omitempty" yaml:"entries,omitempty"` // sorted by name
	Network []Use   `msgpack:"w,omitempty" yaml:"network,omitempty"` // sorted by family, type
	// Args holds up to MaxArgs distinct argument strings, only where the
	// session was asked to keep them.
	Args []string `msgpack:"r,omitempty" yaml:"-"`
}

// Bounds of what one tally keeps, so that memory is bounded by executables.
const (
	MaxUnseen       = 16
	MaxEntries      = 64
	MaxArgs         = 16
	MaxProtocols    = 8 // of one use
	MaxDestinations = 5 // of one use
)

// Going sums up seen runs that are still going.
type Going struct {
	Clean   uint64    `msgpack:"c,omitempty" yaml:"clean,omitempty"`   // untouched by any gap
	Touched uint64    `msgpack:"t,omitempty" yaml:"touched,omitempty"` // touched by one
	Oldest  time.Time `msgpack:"o,omitempty" yaml:"oldest,omitempty"`  // first exec of the clean ones
	Newest  time.Time `msgpack:"n,omitempty" yaml:"newest,omitempty"`  // last exec of the clean ones
	// OldestAny and NewestAny are the same over clean and touched ones.
	OldestAny time.Time `msgpack:"O,omitempty" yaml:"oldest_any,omitempty"`
	NewestAny time.Time `msgpack:"M,omitempty" yaml:"newest_any,omitempty"`
}

// Process tells one process from all others on a machine since its boot.
type Process struct {
	PID   uint32    `msgpack:"p" yaml:"pid,omitempty"`
	Start time.Time `msgpack:"s" yaml:"start,omitempty"`
}

// Entry is a name by which an executable was started, absolute, as executed.
type Entry struct {
	Name   string `msgpack:"n" yaml:"name,omitempty"`
	Runs   uint64 `msgpack:"r" yaml:"runs,omitempty"`
	Script bool   `msgpack:"s,omitempty" yaml:"script,omitempty"` // the name is a script that the executable interprets
}

// Use is network use of one family and type. Runs counts the runs that opened
// such a socket, or used one that they had not opened; it does not count
// sockets.
type Use struct {
	Family string    `msgpack:"f" yaml:"family,omitempty"` // inet, inet6, packet, …
	Type   string    `msgpack:"t" yaml:"type,omitempty"`   // stream, dgram, raw, …
	Runs   uint64    `msgpack:"r" yaml:"runs,omitempty"`
	First  time.Time `msgpack:"a" yaml:"first,omitempty"`
	Last   time.Time `msgpack:"z" yaml:"last,omitempty"`

	// Protocols are those asked for, as numbers of socket(2), 0 being the
	// default of the type; sorted, at most MaxProtocols.
	Protocols []uint32 `msgpack:"p,omitempty" yaml:"protocols,omitempty"`
	// Reach is what the sockets were used for. It is empty where a socket was
	// opened and no more is known: Session.Reach says whether it would be.
	Reach Reach `msgpack:"e,omitempty" yaml:"reach,omitempty"`
	// Destinations are examples of where ReachOut went and of the other end of
	// ReachPeer, "address:port" as net/netip writes it; sorted, at most
	// MaxDestinations.
	Destinations []string `msgpack:"d,omitempty" yaml:"destinations,omitempty"`
	// Inherited counts the runs that used a socket which they had not opened:
	// inherited, passed over AF_UNIX, or socket-activated.
	Inherited uint64 `msgpack:"h,omitempty" yaml:"inherited,omitempty"`
}

// Reach is a set of the ways in which sockets were used.
type Reach uint8

// The ways, as far as a hook of connect, send, receive or bind tells them.
const (
	ReachLoopback Reach = 1 << iota // connected or sent to an address of this machine's loopback
	ReachListen                     // bound to a port, to be reached
	ReachOut                        // connected or sent to any other address
	ReachPeer                       // sent or received on a connection to any other address that another process has opened
)

// Attempt is a socket opened, or tried, by a listed executable. Stage is the
// stage of the generation that listed it: monitor or enforce.
type Attempt struct {
	Family string    `msgpack:"f" yaml:"family,omitempty"`
	Type   string    `msgpack:"t" yaml:"type,omitempty"`
	Stage  string    `msgpack:"s" yaml:"stage,omitempty"`
	Count  uint64    `msgpack:"r" yaml:"count,omitempty"`
	First  time.Time `msgpack:"a" yaml:"first,omitempty"`
	Last   time.Time `msgpack:"z" yaml:"last,omitempty"`
}
