package enforcer

import (
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
	// Changes says, in plain words, what would take those reasons away.
	Changes []string
	// Notes holds what a reader of the verdict must know beside it, whatever
	// its kind: the gaps that were accepted.
	Notes []string

	Seen     uint64 // runs whose exec was seen
	Complete uint64 // those whose end was seen in the same window

	Network []store.Use // merged, sorted by family and type
	// AtLeast says that a session did not ask of all sockets, so that Network
	// counts too few runs, or has too few families and types.
	AtLeast  bool
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
	known := kept(rows, func(row *store.Evidence) bool {
		_, ok := c.known[row.Session]
		if !ok {
			errs = append(errs, fmt.Errorf("evidence of %q names session %q, which is not recorded", row.Key.Path, row.Session))
		}
		return ok
	})
	for i := range known {
		v.Attempts = mergeAttempts(v.Attempts, known[i].Attempts)
	}
	v.Files = c.currentFiles(known)
	c.sum(&v, known)
	c.weigh(&v, known)
	return v, errors.Join(errs...)
}

// sum adds up what a reader is shown: the counts of the files that count.
func (c *considered) sum(v *Verdict, rows []store.Evidence) {
	shown := kept(rows, c.has)
	if len(shown) == 0 {
		shown = rows
	}
	for i := range shown {
		row := &shown[i]
		if v.FirstSeen.IsZero() || row.FirstSeen.Before(v.FirstSeen) {
			v.FirstSeen = row.FirstSeen
		}
		if row.LastSeen.After(v.LastSeen) {
			v.LastSeen = row.LastSeen
		}
		if !c.has(row) {
			continue
		}
		v.AtLeast = v.AtLeast || c.sessions[row.Session].unasked(row)
		for i := range row.Files {
			tally := &row.Files[i]
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

// kept gives the rows that keep says to keep, which are most often all. It asks
// about each row once.
func kept(rows []store.Evidence, keep func(*store.Evidence) bool) []store.Evidence {
	var some []store.Evidence
	all := true
	for i := range rows {
		switch ok := keep(&rows[i]); {
		case !ok && all:
			some, all = append(some, rows[:i]...), false
		case ok && !all:
			some = append(some, rows[i])
		}
	}
	if all {
		return rows
	}
	return some
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
		if kind == Network {
			v.Kind, v.Reasons = Network, nil
			return
		}
		for _, r := range reasons {
			v.because(r)
		}
	}
	if strings.HasPrefix(path, store.Unresolved) {
		v.because(reason{"name not resolved", "learn with an agent that tells the resolved executable, or on its own host"})
	}
	if v.AtLeast {
		v.because(reason{"its sockets were not asked about: a network user somewhere else has the same path",
			"leave that session out with --since, once it ran in one in which no executable of its path used the network"})
	}
	for _, gap := range gaps {
		v.because(reason{gap, "leave that session out with --since, or say --accept-gaps to take the runs that no gap is known to have touched"})
	}
}

// because adds a reason for Unproven, once.
func (v *Verdict) because(r reason) {
	v.Kind = Unproven
	if !slices.Contains(v.Reasons, r.why) {
		v.Reasons = append(v.Reasons, r.why)
	}
	if !slices.Contains(v.Changes, r.change) {
		v.Changes = append(v.Changes, r.change)
	}
}

// reason is a reason for Unproven and what would take it away.
type reason struct{ why, change string }

// currentFiles returns the identities whose evidence counts on each machine,
// that of the file exec'd last first: a file is replaced by another of its own
// machine alone. What does not say its machine is of the only one that is said.
func (c *considered) currentFiles(rows []store.Evidence) []store.FileID {
	machines := map[string][]store.Evidence{}
	for _, row := range rows {
		machine := c.known[row.Session].Machine
		machines[machine] = append(machines[machine], row)
	}
	if _, unsaid := machines[""]; len(machines) == 1 || unsaid && len(machines) == 2 {
		return currentOnOne(rows).files
	}
	var all []current
	for _, rows := range machines {
		if one := currentOnOne(rows); len(one.files) > 0 {
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b current) int { return b.last.Compare(a.last) })
	var files []store.FileID
	for _, one := range all {
		for _, file := range one.files {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files
}

// current are the identities whose evidence counts on one machine, and when the
// first of them was exec'd last.
type current struct {
	files []store.FileID
	last  time.Time
}

// currentOnOne returns the identities whose evidence counts: the one exec'd
// last, and whatever was still exec'd after that one was first. A file that
// was never seen to be exec'd is current only if none was.
func currentOnOne(rows []store.Evidence) current {
	type span struct {
		file        store.FileID
		first, last time.Time
	}
	spans := make([]span, 0, 4)
	for i := range rows {
		for j := range rows[i].Files {
			tally := &rows[i].Files[j]
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
		return current{}
	}
	latest := slices.MaxFunc(spans, func(a, b span) int { return a.last.Compare(b.last) })
	now := current{files: []store.FileID{latest.file}, last: latest.last}
	for _, s := range spans {
		if s.file != latest.file && !s.last.Before(latest.first) {
			now.files = append(now.files, s.file)
		}
	}
	return now
}

// weight is the evidence on one file, as far as its verdict needs it.
type weight struct {
	rows     bool // a considered session has a row of it
	network  bool
	complete uint64
	crossed  uint64
	seen     uint64
	unseen   uint64
	long     bool          // a run still going was watched for long enough
	short    bool          // another was not
	shortest time.Duration // that one was watched for, if short
	spoilt   uint64        // complete runs that do not count, for a gap that was accepted
	noHook   string        // what has no socket hook, "" if all have
}

// gather weighs the tallies of one file; those of an unknown file are taken
// for its own.
func (c *considered) gather(rows []store.Evidence, file store.FileID) weight {
	var w weight
	for i := range rows {
		row := &rows[i]
		s, ok := c.sessions[row.Session]
		if !ok {
			continue
		}
		for i := range row.Files {
			tally := &row.Files[i]
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
				w.spoilt += tally.Complete - tally.Clean
				complete, going, oldest, newest = tally.Clean, tally.Going.Clean, tally.Going.Oldest, tally.Going.Newest
			}
			w.complete += complete
			if going > 0 {
				w.long = w.long || s.watched(oldest) >= c.t.MinWatch
				if watched := s.watched(newest); watched < c.t.MinWatch && (!w.short || watched < w.shortest) {
					w.short, w.shortest = true, watched
				}
			}
		}
	}
	return w
}

func (w weight) verdict(t Thresholds) (kind string, reasons []reason) {
	if w.network {
		return Network, nil
	}
	if w.crossed > 0 {
		reasons = append(reasons, reason{"runs cross unwatched time",
			"leave the sessions with those runs out with --since, once it ran in one that was watched throughout"})
	}
	if w.short && w.complete < othersExcuse {
		reasons = append(reasons, reason{"still going", fmt.Sprintf(
			"let it end while learning, or learn on until its newest run was watched for %s (so far %s), or see %s besides",
			tellDuration(t.MinWatch), tellDuration(w.shortest), moreRuns(othersExcuse-w.complete))})
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
func (w weight) tooFew(t Thresholds) []reason {
	var reasons []reason
	if w.noHook != "" {
		reasons = append(reasons, reason{w.noHook, "learn with an agent whose socket hook posts events"})
	}
	more := moreRuns(t.MinRuns-w.complete) + " while learning"
	untouched := ""
	if w.spoilt > 0 {
		untouched = " that no gap touched"
	}
	switch {
	case !w.rows:
		reasons = append(reasons, reason{"not seen in the sessions considered", more})
	case w.seen == 0 && w.crossed == 0 && w.unseen > 0:
		reasons = append(reasons, reason{"start not seen", "restart it while learning"})
	case w.complete == 0:
		reasons = append(reasons, reason{fmt.Sprintf("no complete run%s (needs %d)", untouched, t.MinRuns), more})
	default:
		reasons = append(reasons, reason{fmt.Sprintf("too few complete runs%s: %d (needs %d)", untouched, w.complete, t.MinRuns), more})
	}
	return reasons
}

func moreRuns(n uint64) string {
	if n == 1 {
		return "one more complete run"
	}
	return fmt.Sprintf("%d more complete runs", n)
}
