package enforcer

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"profile/store"
)

// Schema is the version of every machine-readable form that this package gives.
const Schema = 1

// ErrUsage is wrapped by errors about what the caller asked for, as against
// what could not be done.
var ErrUsage = errors.New("wrong use")

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
}

// GapRow is one gap. Count is how many observations were lost, 0 where it
// cannot be known.
type GapRow struct {
	From  time.Time `json:"from" yaml:"from"`
	To    time.Time `json:"to" yaml:"to"`
	Cause string    `json:"cause" yaml:"cause"`
	Count uint64    `json:"count" yaml:"count"`
}

// ReportOptions say what a report shows.
type ReportOptions struct {
	Thresholds
	Verdict     string   // only this kind; "" is all
	Only        []string // doublestar patterns, any of which the path must match; none is all
	Executables []string // paths, as resolved or by a name that resolves to one here; none is all
}

// Report is a report over one transaction, and valid as long as that is.
type Report struct {
	tx       *store.Tx
	o        ReportOptions
	c        *considered
	kills    map[string]store.Kill
	matched  []bool // by index of o.Executables
	resolved []string
}

// NewReport checks the options, with an error that wraps ErrUsage, and reads
// what the rows need.
func NewReport(tx *store.Tx, o ReportOptions) (*Report, error) {
	if o.Verdict != "" && o.Verdict != Network && o.Verdict != Quiet && o.Verdict != Unproven {
		return nil, fmt.Errorf("%w: %q is no verdict: it is network, quiet or unproven", ErrUsage, o.Verdict)
	}
	if err := checkPatterns(o.Only); err != nil {
		return nil, err
	}
	c, err := loadConsidered(tx, o.Thresholds)
	if err != nil {
		return nil, err
	}
	generations, err := tx.Generations()
	if err != nil {
		return nil, err
	}
	r := &Report{tx: tx, o: o, c: c, kills: sumKills(generations), matched: make([]bool, len(o.Executables))}
	for _, name := range o.Executables {
		r.resolved = append(r.resolved, resolveName(name))
	}
	return r, nil
}

func loadConsidered(tx *store.Tx, t Thresholds) (*considered, error) {
	list, err := tx.Sessions()
	if err != nil {
		return nil, err
	}
	sessions := make(map[string]store.Session, len(list))
	for _, s := range list {
		sessions[s.ID] = s
	}
	return consider(sessions, t), nil
}

// Rows yields the rows one at a time, sorted by path, then scope. After an
// error it ends. It is to be used once.
func (r *Report) Rows() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for rows, err := range r.evidence() {
			if err != nil {
				yield(Row{}, err)
				return
			}
			if len(rows) == 0 || !r.wanted(rows[0].Key.Path) {
				continue
			}
			v, err := r.c.judge(rows)
			if err != nil {
				yield(Row{}, err)
				return
			}
			if r.o.Verdict != "" && v.Kind != r.o.Verdict {
				continue
			}
			if !yield(r.row(rows, v), nil) {
				return
			}
		}
	}
}

// Sessions returns the sessions that the verdicts consider, sorted by ID.
func (r *Report) Sessions() []SessionRow {
	rows := []SessionRow{}
	for _, id := range r.c.ids {
		s := r.c.sessions[id]
		row := SessionRow{ID: id, Agent: s.Agent, Hook: s.Hook, Families: append([]string{}, s.Families...),
			From: s.Started.UTC(), To: s.end().UTC(), AwakeSeconds: s.Awake.Seconds(), Gaps: []GapRow{}}
		for _, g := range s.Gaps {
			row.Gaps = append(row.Gaps, GapRow{From: g.From.UTC(), To: g.To.UTC(), Cause: g.Cause, Count: g.Count})
		}
		rows = append(rows, row)
	}
	return rows
}

// Missing returns those of the options' Executables of which Rows met no
// evidence. It is to be asked when Rows has ended.
func (r *Report) Missing() []string {
	var missing []string
	for i, name := range r.o.Executables {
		if !r.matched[i] {
			missing = append(missing, name)
		}
	}
	return missing
}

// evidence yields the rows of one key at a time: of the executables asked for,
// or of all.
func (r *Report) evidence() iter.Seq2[[]store.Evidence, error] {
	if len(r.o.Executables) == 0 {
		return r.tx.Executables()
	}
	return func(yield func([]store.Evidence, error) bool) {
		paths := slices.Concat(r.o.Executables, r.resolved)
		slices.Sort(paths)
		for _, path := range slices.Compact(paths) {
			rows, err := r.tx.Evidence(path)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, one := range byKey(rows) {
				if !yield(one, nil) {
					return
				}
			}
		}
	}
}

func (r *Report) wanted(path string) bool {
	for i, name := range r.o.Executables {
		if path == name || path == r.resolved[i] {
			r.matched[i] = true
		}
	}
	return len(r.o.Only) == 0 || matchesAny(r.o.Only, path)
}

func (r *Report) row(rows []store.Evidence, v Verdict) Row {
	key := rows[0].Key
	row := Row{Scope: key.Scope, Verdict: v.Kind, Reasons: r.c.reasons(v, rows),
		Runs: RunCount{Seen: v.Seen, Complete: v.Complete}, Network: []NetworkUse{},
		Attempts: attemptRows(v.Attempts, r.killsOf(key)), Entries: []EntryRow{},
		FirstSeen: v.FirstSeen.UTC(), LastSeen: v.LastSeen.UTC()}
	row.Path, row.PathBase64 = printable(key.Path)
	for _, u := range v.Network {
		row.Network = append(row.Network, NetworkUse{Family: u.Family, Type: u.Type, Count: u.Runs, First: u.First.UTC(), Last: u.Last.UTC()})
	}
	for _, e := range v.Entries {
		entry := EntryRow{Runs: e.Runs}
		entry.Name, entry.NameBase64 = printable(e.Name)
		row.Entries = append(row.Entries, entry)
	}
	return row
}

// killsOf is what generations counted for the key: a host's policy does not
// reach containers.
func (r *Report) killsOf(key store.Key) store.Kill {
	if key.Scope != store.HostScope {
		return store.Kill{}
	}
	return r.kills[key.Path]
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

func checkPatterns(patterns []string) error {
	for _, p := range patterns {
		if !doublestar.ValidatePattern(p) {
			return fmt.Errorf("%w: %q is not a pattern", ErrUsage, p)
		}
	}
	return nil
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return doublestar.MatchUnvalidated(p, path) })
}

// resolveName is what a name given by a person stands for on this machine: the
// name itself, made absolute, where it does not resolve.
func resolveName(name string) string {
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	if resolved, err := filepath.EvalSymlinks(abs); err == nil {
		return resolved
	}
	return abs
}
