package enforcer

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"

	"github.com/bmatcuk/doublestar/v4"

	"profile/store"
)

// Schema is the version of every machine-readable form that this package gives.
const Schema = 1

// ErrUsage is wrapped by errors about what the caller asked for, as against
// what could not be done.
var ErrUsage = errors.New("wrong use")

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
	families map[string]*Family // of the rows so far, by pattern
	matched  []bool             // by index of o.Executables
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
	r := &Report{tx: tx, o: o, c: c, kills: sumKills(generations), families: map[string]*Family{}, matched: make([]bool, len(o.Executables))}
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
// error it ends. It is to be used once. Evidence is read, and judged, while
// earlier rows are still with the caller: neither the report nor its transaction
// must be used in the loop.
func (r *Report) Rows() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		// Files are looked at on this side of the two, which has less to do.
		for one, err := range ahead(r.judged()) {
			if len(one.files) > 0 {
				one.row.look(one.path, one.files)
			}
			if !yield(one.row, err) {
				return
			}
		}
	}
}

// judgedRow is a row before its file is looked at, which is at the path on this
// machine, if there are files of which the evidence counts.
type judgedRow struct {
	row   Row
	path  string
	files []store.FileID
}

func (r *Report) judged() iter.Seq2[judgedRow, error] {
	return func(yield func(judgedRow, error) bool) {
		for rows, err := range ahead(r.evidence()) {
			if err != nil {
				yield(judgedRow{}, err)
				return
			}
			if len(rows) == 0 || !r.wanted(rows[0].Key.Path) {
				continue
			}
			v, err := r.c.judge(rows)
			if err != nil {
				yield(judgedRow{}, err)
				return
			}
			if r.o.Verdict != "" && v.Kind != r.o.Verdict {
				continue
			}
			one := judgedRow{row: r.row(rows, v)}
			if key := rows[0].Key; key.Scope == store.HostScope {
				one.path, one.files = key.Path, v.Files
			}
			if !yield(one, nil) {
				return
			}
		}
	}
}

// Sessions returns the sessions that the verdicts consider, sorted by ID.
func (r *Report) Sessions() []SessionRow {
	rows := []SessionRow{}
	for _, id := range r.c.ids {
		rows = append(rows, sessionRow(r.c.sessions[id]))
	}
	return rows
}

func sessionRow(s *session) SessionRow {
	row := SessionRow{ID: s.ID, Agent: s.Agent, Hook: s.Hook, Families: append([]string{}, s.Families...),
		From: s.Started.UTC(), To: s.end().UTC(), AwakeSeconds: s.Awake.Seconds(), Gaps: []GapRow{},
		UsesWatched: s.Reach, HandedWatched: s.Handed, SendsWatched: s.Reach && !s.NoSendHook}
	for _, g := range s.Gaps {
		row.Gaps = append(row.Gaps, GapRow{From: g.From.UTC(), To: g.To.UTC(), Cause: g.Cause, Count: g.Count})
	}
	return row
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

// Families returns the families of the rows, sorted by pattern: of paths that
// change, each one program. It is to be asked when Rows has ended.
func (r *Report) Families() []Family {
	families := []Family{}
	for _, pattern := range slices.Sorted(maps.Keys(r.families)) {
		families = append(families, *r.families[pattern])
	}
	return families
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

// killsOf is what generations counted for the key: a host's policy does not
// reach containers.
func (r *Report) killsOf(key store.Key) store.Kill {
	if key.Scope != store.HostScope {
		return store.Kill{}
	}
	return r.kills[key.Path]
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
