package enforcer

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"profile/internal/ability"
	"profile/store"
)

// Row is one executable in one scope, as `report -o json` prints it.
type Row struct {
	Scope string `json:"scope" yaml:"scope"`
	// Path has \xHH for each byte that is not UTF-8; PathBase64 then has it whole.
	Path       string       `json:"path" yaml:"path"`
	PathBase64 string       `json:"path_base64,omitempty" yaml:"path_base64,omitempty"`
	Verdict    string       `json:"verdict" yaml:"verdict"`
	Reasons    []string     `json:"reasons" yaml:"reasons"`
	Runs       RunCount     `json:"runs" yaml:"runs"`
	Network    []NetworkUse `json:"network" yaml:"network"`
	Attempts   []AttemptRow `json:"attempts" yaml:"attempts"`
	Entries    []EntryRow   `json:"entries" yaml:"entries"`
	FirstSeen  time.Time    `json:"first_seen" yaml:"first_seen"`
	LastSeen   time.Time    `json:"last_seen" yaml:"last_seen"`
	// What follows is told of the host's executables, as their files are on
	// this machine now.

	// ReplacedSince says that the file there is not the one that was learned.
	ReplacedSince bool `json:"replaced_since,omitempty" yaml:"replaced_since,omitempty"`
	// Able is what a quiet executable could do: sockets, resolver, tls, loads.
	Able []string `json:"able,omitempty" yaml:"able,omitempty"`
	// Family is the pattern of the family that the path is of, "" if of none.
	Family string `json:"family,omitempty" yaml:"family,omitempty"`
}

// RunCount counts runs.
type RunCount struct {
	Seen     uint64 `json:"seen" yaml:"seen"`
	Complete uint64 `json:"complete" yaml:"complete"`
}

// NetworkUse is network use of one family and type. Count is the number of
// runs that opened such a socket.
type NetworkUse struct {
	Family string    `json:"family" yaml:"family"`
	Type   string    `json:"type" yaml:"type"`
	Count  uint64    `json:"count" yaml:"count"`
	First  time.Time `json:"first" yaml:"first"`
	Last   time.Time `json:"last" yaml:"last"`
	// Protocols are names, or numbers, as asked for; absent if none was.
	Protocols []string `json:"protocols,omitempty" yaml:"protocols,omitempty"`
	// Reach is what the sockets were used for: loopback, listen, out, peer. It
	// is absent where that is not known, or nothing was done with them.
	Reach        []string `json:"reach,omitempty" yaml:"reach,omitempty"`
	Destinations []string `json:"destinations,omitempty" yaml:"destinations,omitempty"` // examples of out and peer
	// Inherited counts the runs that used a socket which they had not opened.
	Inherited uint64 `json:"inherited,omitempty" yaml:"inherited,omitempty"`
	// AtLeast says that Count and Last may be greater, and Reach and Destinations
	// more: once it was known for a network user, a Tetragon was no longer asked
	// for its sockets.
	AtLeast bool `json:"at_least,omitempty" yaml:"at_least,omitempty"`
}

// AttemptRow counts sockets opened while listed. Family, Type and First are
// absent where only the kernel's counter tells of them.
type AttemptRow struct {
	Family string    `json:"family,omitempty" yaml:"family,omitempty"`
	Type   string    `json:"type,omitempty" yaml:"type,omitempty"`
	Stage  string    `json:"stage" yaml:"stage"`
	Count  uint64    `json:"count" yaml:"count"`
	First  time.Time `json:"first,omitzero" yaml:"first,omitempty"`
	Last   time.Time `json:"last,omitzero" yaml:"last,omitempty"`
}

// EntryRow is a name by which the executable was started.
type EntryRow struct {
	Name       string `json:"name" yaml:"name"`
	NameBase64 string `json:"name_base64,omitempty" yaml:"name_base64,omitempty"`
	Runs       uint64 `json:"runs" yaml:"runs"`
}

// SessionRow is one session, as `report -o json` prints it. To is when it
// ended; while it is live, or if it was killed, up to when it is proven to
// have watched.
type SessionRow struct {
	ID           string    `json:"id" yaml:"id"`
	Agent        string    `json:"agent" yaml:"agent"`
	Hook         string    `json:"hook" yaml:"hook"`
	Families     []string  `json:"families" yaml:"families"`
	From         time.Time `json:"from" yaml:"from"`
	To           time.Time `json:"to" yaml:"to"`
	AwakeSeconds float64   `json:"awake_seconds" yaml:"awake_seconds"`
	Gaps         []GapRow  `json:"gaps" yaml:"gaps"`
	// UsesWatched says that it was watched what sockets are used for,
	// HandedWatched that the use of sockets which another process has opened
	// was, and SendsWatched that sending to an address without a connection was.
	UsesWatched   bool `json:"uses_watched" yaml:"uses_watched"`
	HandedWatched bool `json:"handed_watched" yaml:"handed_watched"`
	SendsWatched  bool `json:"sends_watched" yaml:"sends_watched"`
}

// NotWatched says in plain words which uses of sockets the session could not
// see, "" if none.
func (s SessionRow) NotWatched() string {
	switch {
	case !s.UsesWatched:
		return "what sockets are used for, and the use of sockets that were handed to a program"
	case !s.SendsWatched:
		return "sending to an address without a connection, and sending and receiving on sockets that were handed to a program"
	case !s.HandedWatched:
		return "sending and receiving on sockets that were handed to a program"
	}
	return ""
}

// GapRow is one gap. Count is how many observations were lost, 0 where it
// cannot be known.
type GapRow struct {
	From  time.Time `json:"from" yaml:"from"`
	To    time.Time `json:"to" yaml:"to"`
	Cause string    `json:"cause" yaml:"cause"`
	Count uint64    `json:"count" yaml:"count"`
}

func (r *Report) row(rows []store.Evidence, v Verdict) Row {
	key := rows[0].Key
	row := Row{Scope: key.Scope, Verdict: v.Kind, Reasons: r.c.reasons(v, rows),
		Runs: RunCount{Seen: v.Seen, Complete: v.Complete}, Network: make([]NetworkUse, 0, len(v.Network)),
		Attempts: attemptRows(v.Attempts, r.killsOf(key)), Entries: make([]EntryRow, 0, len(v.Entries)),
		FirstSeen: v.FirstSeen.UTC(), LastSeen: v.LastSeen.UTC()}
	row.Path, row.PathBase64 = printable(key.Path)
	for _, u := range v.Network {
		use := networkUse(u)
		use.AtLeast = v.AtLeast
		row.Network = append(row.Network, use)
	}
	for _, e := range v.Entries {
		entry := EntryRow{Runs: e.Runs}
		entry.Name, entry.NameBase64 = printable(e.Name)
		row.Entries = append(row.Entries, entry)
	}
	join(r.families, key.Path, &row)
	return row
}

// look tells what can be told from the file that is there now.
func (row *Row) look(file string, learned []store.FileID) {
	why := replaced(file, learned)
	if row.ReplacedSince = why == replacedSince; why != "" {
		if row.ReplacedSince {
			row.Reasons = append(row.Reasons, why)
		}
		return
	}
	if row.Verdict != Quiet {
		return
	}
	can, err := ability.Of(file)
	if err != nil {
		return // what cannot be read is not known
	}
	row.Able = can.Able
	if can.Has(ability.Resolver) {
		row.Reasons = append(row.Reasons, fallsBack)
	}
}

// fallsBack is what a reader must know of a quiet executable that resolves
// names.
const fallsBack = "it can resolve names: where nscd, sssd or systemd-resolved does that for it, it opens a socket of its own once that helper is down"

func networkUse(u store.Use) NetworkUse {
	n := NetworkUse{Family: u.Family, Type: u.Type, Count: u.Runs, First: u.First.UTC(), Last: u.Last.UTC(),
		Destinations: u.Destinations, Inherited: u.Inherited}
	for _, number := range u.Protocols {
		if number != 0 {
			n.Protocols = append(n.Protocols, protocolName(u.Family, number))
		}
	}
	for _, one := range reaches {
		if u.Reach&one.reach != 0 {
			n.Reach = append(n.Reach, one.name)
		}
	}
	return n
}

// protocolName names a protocol of IP; one without a name here, or of another
// family, is its number.
func protocolName(family string, number uint32) string {
	names := map[uint32]string{
		unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMPV6: "icmpv6",
		unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_RAW: "raw", unix.IPPROTO_MPTCP: "mptcp",
	}
	if name := names[number]; name != "" && (family == "inet" || family == "inet6") {
		return name
	}
	return strconv.FormatUint(uint64(number), 10)
}

// attemptRows puts what the kernel counted beside the attempts that a learner
// saw. It counts those too: a row of its own has what is more, for each stage.
func attemptRows(seen []store.Attempt, counted store.Kill) []AttemptRow {
	rows := []AttemptRow{}
	told := map[string]uint64{}
	for _, a := range seen {
		told[a.Stage] += a.Count
		rows = append(rows, AttemptRow{Family: a.Family, Type: a.Type, Stage: a.Stage, Count: a.Count, First: a.First.UTC(), Last: a.Last.UTC()})
	}
	if n := counted.Kills; n > told[store.StageEnforce] {
		rows = append(rows, AttemptRow{Stage: store.StageEnforce, Count: n - told[store.StageEnforce], Last: counted.LastKill.UTC()})
	}
	if n := counted.Would; n > told[store.StageMonitor] {
		rows = append(rows, AttemptRow{Stage: store.StageMonitor, Count: n - told[store.StageMonitor], Last: counted.LastWould.UTC()})
	}
	return rows
}
