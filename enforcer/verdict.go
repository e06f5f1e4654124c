package enforcer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"profile/store"
)

// Kinds of verdict.
const (
	Network  = "network"  // opened a network socket, or tried to, while not listed
	Quiet    = "quiet"    // proven not to have
	Unproven = "unproven" // all else
)

// Thresholds say which evidence is considered and how much of it a quiet
// verdict needs. The zero value is the default of each.
type Thresholds struct {
	MinRuns    uint64        // complete runs that suffice; 0 means 1
	MinWatch   time.Duration // how long one run still going must have been watched; 0 means an hour
	AcceptGaps bool          // take the verdicts of what no gap is known to have touched
	Since      time.Time     // leaves out sessions that ended before; zero leaves out none
}

func (t Thresholds) withDefaults() Thresholds {
	if t.MinRuns == 0 {
		t.MinRuns = 1
	}
	if t.MinWatch <= 0 {
		t.MinWatch = time.Hour
	}
	return t
}

// othersExcuse is how many complete runs make up for one that is still going
// and was not watched for long enough.
const othersExcuse = 3

// Verdict is what the evidence says of one executable in one scope.
type Verdict struct {
	Kind string // Network, Quiet or Unproven
	// Reasons holds, in plain words, each reason for Unproven.
	Reasons []string
	// Notes holds what a reader of the verdict must know beside it, whatever
	// its kind: the gaps that were accepted.
	Notes []string

	Seen     uint64 // runs whose exec was seen
	Complete uint64 // those whose end was seen in the same window

	Network  []store.Use     // merged, sorted by family and type
	Attempts []store.Attempt // of every session, also of those left out
	Entries  []store.Entry   // merged, sorted by name

	FirstSeen, LastSeen time.Time
	// Files are the identities whose evidence counts, the current one first;
	// empty if no identity is known.
	Files []store.FileID
}

// Judge says what the rows of one key, one row a session, prove by the rules
// of evidence. Only the file that is now at the path counts; where two are
// started by turns, as in two mount namespaces, the worse verdict of them does.
//
// A row whose session is not among the sessions is ignored, and the error
// names it: the verdict holds for the others.
func Judge(rows []store.Evidence, sessions map[string]store.Session, t Thresholds) (Verdict, error) {
	return consider(sessions, t).judge(rows)
}

func (c *considered) judge(rows []store.Evidence) (Verdict, error) {
	var v Verdict
	var errs []error
	known := make([]store.Evidence, 0, len(rows))
	for _, row := range rows {
		if _, ok := c.known[row.Session]; !ok {
			errs = append(errs, fmt.Errorf("evidence of %q names session %q, which is not recorded", row.Key.Path, row.Session))
			continue
		}
		known = append(known, row)
		v.Attempts = mergeAttempts(v.Attempts, row.Attempts)
	}
	v.Files = currentFiles(known)
	c.sum(&v, known)
	c.weigh(&v, known)
	return v, errors.Join(errs...)
}

// sum adds up what a reader is shown: the counts of the files that count.
func (c *considered) sum(v *Verdict, rows []store.Evidence) {
	shown := rows
	if slices.ContainsFunc(rows, c.has) {
		shown = slices.DeleteFunc(slices.Clone(rows), func(row store.Evidence) bool { return !c.has(row) })
	}
	for _, row := range shown {
		if v.FirstSeen.IsZero() || row.FirstSeen.Before(v.FirstSeen) {
			v.FirstSeen = row.FirstSeen
		}
		if row.LastSeen.After(v.LastSeen) {
			v.LastSeen = row.LastSeen
		}
		if !c.has(row) {
			continue
		}
		for _, tally := range row.Files {
			if tally.File.Known() && !slices.Contains(v.Files, tally.File) {
				continue
			}
			v.Seen += tally.Seen
			v.Complete += tally.Complete
			v.Network = mergeUses(v.Network, tally.Network)
			v.Entries = mergeEntries(v.Entries, tally.Entries)
		}
	}
}

// weigh sets the kind and its reasons: the worst over the files that count.
func (c *considered) weigh(v *Verdict, rows []store.Evidence) {
	files := v.Files
	if len(files) == 0 {
		files = []store.FileID{{}}
	}
	var path string
	if len(rows) > 0 {
		path = rows[0].Key.Path
	}
	gaps := c.gaps(path)
	if c.t.AcceptGaps {
		for _, gap := range gaps {
			v.Notes = append(v.Notes, "accepted "+gap)
		}
		gaps = nil
	}
	v.Kind = Quiet
	for _, file := range files {
		kind, reasons := c.gather(rows, file).verdict(c.t)
		switch {
		case kind == Network:
			v.Kind, v.Reasons = Network, nil
			return
		case kind == Unproven:
			v.Kind = Unproven
			for _, r := range reasons {
				if !slices.Contains(v.Reasons, r) {
					v.Reasons = append(v.Reasons, r)
				}
			}
		}
	}
	if strings.HasPrefix(path, store.Unresolved) {
		v.Kind = Unproven
		v.Reasons = append(v.Reasons, "name not resolved")
	}
	if len(gaps) > 0 {
		v.Kind = Unproven
		v.Reasons = append(v.Reasons, gaps...)
	}
}

// currentFiles returns the identities whose evidence counts: the one exec'd
// last, and whatever was still exec'd after that one was first. A file that
// was never seen to be exec'd is current only if none was.
func currentFiles(rows []store.Evidence) []store.FileID {
	type span struct {
		file        store.FileID
		first, last time.Time
	}
	var spans []span
	for _, row := range rows {
		for _, tally := range row.Files {
			if !tally.File.Known() {
				continue
			}
			i := slices.IndexFunc(spans, func(s span) bool { return s.file == tally.File })
			if i < 0 {
				i = len(spans)
				spans = append(spans, span{file: tally.File})
			}
			s := &spans[i]
			if s.first.IsZero() || !tally.FirstExec.IsZero() && tally.FirstExec.Before(s.first) {
				s.first = tally.FirstExec
			}
			if tally.LastExec.After(s.last) {
				s.last = tally.LastExec
			}
		}
	}
	if len(spans) == 0 {
		return nil
	}
	current := slices.MaxFunc(spans, func(a, b span) int { return a.last.Compare(b.last) })
	files := []store.FileID{current.file}
	for _, s := range spans {
		if s.file != current.file && !s.last.Before(current.first) {
			files = append(files, s.file)
		}
	}
	return files
}

// weight is the evidence on one file, as far as its verdict needs it.
type weight struct {
	rows     bool // a considered session has a row of it
	network  bool
	complete uint64
	crossed  uint64
	seen     uint64
	unseen   uint64
	long     bool   // a run still going was watched for long enough
	short    bool   // another was not
	noHook   string // what has no socket hook, "" if all have
}

// gather weighs the tallies of one file; those of an unknown file are taken
// for its own.
func (c *considered) gather(rows []store.Evidence, file store.FileID) weight {
	var w weight
	for _, row := range rows {
		s, ok := c.sessions[row.Session]
		if !ok {
			continue
		}
		for _, tally := range row.Files {
			if tally.File.Known() && tally.File != file {
				continue
			}
			w.rows = true
			w.network = w.network || len(tally.Network) > 0
			if s.NoSocketHook {
				w.noHook = "the session has no socket hook"
				if s.Agent == store.Recording {
					w.noHook = "the record has no socket hook"
				}
				continue
			}
			w.seen += tally.Seen
			w.crossed += tally.Crossed
			w.unseen += tally.UnseenCount
			complete, going, oldest, newest := tally.Complete, tally.Going.Clean+tally.Going.Touched, tally.Going.OldestAny, tally.Going.NewestAny
			if c.t.AcceptGaps {
				complete, going, oldest, newest = tally.Clean, tally.Going.Clean, tally.Going.Oldest, tally.Going.Newest
			}
			w.complete += complete
			if going > 0 {
				w.long = w.long || s.watched(oldest) >= c.t.MinWatch
				w.short = w.short || s.watched(newest) < c.t.MinWatch
			}
		}
	}
	return w
}

func (w weight) verdict(t Thresholds) (kind string, reasons []string) {
	if w.network {
		return Network, nil
	}
	if w.crossed > 0 {
		reasons = append(reasons, "runs cross unwatched time")
	}
	if w.short && w.complete < othersExcuse {
		reasons = append(reasons, "still going")
	}
	if w.complete < t.MinRuns && !w.long {
		reasons = append(reasons, w.tooFew(t)...)
	}
	if len(reasons) > 0 {
		return Unproven, reasons
	}
	return Quiet, nil
}

// tooFew says why there are not enough runs.
func (w weight) tooFew(t Thresholds) []string {
	var reasons []string
	if w.noHook != "" {
		reasons = append(reasons, w.noHook)
	}
	switch {
	case !w.rows:
		reasons = append(reasons, "not seen in the sessions considered")
	case w.seen == 0 && w.crossed == 0 && w.unseen > 0:
		reasons = append(reasons, "start not seen")
	case w.complete == 0:
		reasons = append(reasons, fmt.Sprintf("no complete run (needs %d)", t.MinRuns))
	default:
		reasons = append(reasons, fmt.Sprintf("too few complete runs: %d (needs %d)", w.complete, t.MinRuns))
	}
	return reasons
}

func mergeUses(into, more []store.Use) []store.Use {
	for _, u := range more {
		i, found := slices.BinarySearchFunc(into, u, func(a, b store.Use) int {
			return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Type, b.Type))
		})
		if !found {
			into = slices.Insert(into, i, u)
			continue
		}
		into[i].Runs += u.Runs
		into[i].First, into[i].Last = earlier(into[i].First, u.First), later(into[i].Last, u.Last)
	}
	return into
}

func mergeAttempts(into, more []store.Attempt) []store.Attempt {
	for _, a := range more {
		i, found := slices.BinarySearchFunc(into, a, func(a, b store.Attempt) int {
			return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Stage, b.Stage))
		})
		if !found {
			into = slices.Insert(into, i, a)
			continue
		}
		into[i].Count += a.Count
		into[i].First, into[i].Last = earlier(into[i].First, a.First), later(into[i].Last, a.Last)
	}
	return into
}

func mergeEntries(into, more []store.Entry) []store.Entry {
	for _, e := range more {
		i, found := slices.BinarySearchFunc(into, e, func(a, b store.Entry) int { return cmp.Compare(a.Name, b.Name) })
		if !found {
			into = slices.Insert(into, i, e)
			continue
		}
		into[i].Runs += e.Runs
		into[i].Script = into[i].Script || e.Script
	}
	return into
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
