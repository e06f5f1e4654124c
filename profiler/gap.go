package profiler

import (
	"strings"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// maxGaps bounds the record of gaps, and adjacent is how near two of one cause
// may lie to be one: a gap is never recorded smaller than it was.
const (
	maxGaps  = 64
	adjacent = time.Second
)

// loss is a loss of observations, at an unknown moment between two.
type loss struct {
	from, to int64
	cause    string
	count    uint64
}

// gap notes a loss of observations. It touches every run that is alive, every
// one that ended since the last canary, and every one that begins no later
// than the loss: what was lost can be anyone's. Outside a window nothing is
// claimed, so that nothing is lost there.
func (f *Fold) gap(from, to int64, cause string, n uint64) {
	from, to = min(from, to), max(from, to) // events come out of order
	if to > f.loss.to {
		f.loss = loss{from, to, cause, n}
	}
	if !f.windows.open {
		return
	}
	f.losses++
	f.counts.Lost += n
	f.touched = true
	from = max(from, f.windows.from)
	g := store.Gap{From: wall(from), To: wall(max(from, to)), Cause: cause, Count: n}
	same := -1
	for i := range f.gaps {
		if f.gaps[i].Cause != cause {
			continue
		}
		same = i
		if !g.From.After(f.gaps[i].To.Add(adjacent)) && !f.gaps[i].From.After(g.To.Add(adjacent)) {
			widen(&f.gaps[i], g)
			return
		}
	}
	if len(f.gaps) < maxGaps {
		f.gaps = append(f.gaps, g)
		return
	}
	if same < 0 {
		same = len(f.gaps) - 1
	}
	widen(&f.gaps[same], g)
}

func widen(g *store.Gap, by store.Gap) {
	if by.From.Before(g.From) {
		g.From = by.From
	}
	if by.To.After(g.To) {
		g.To = by.To
	}
	g.Count += by.Count
}

// lapse notes that sockets were taken for attempts on which no policy acted.
func (f *Fold) lapse(k *api.ProcessKprobe, at int64) {
	since, why := at, "a policy in force acts no more"
	for _, d := range k.GetData() {
		switch d.GetLabel() {
		case tetragon.LabelSince:
			since = min(at, d.GetLongArg())
		case tetragon.LabelWhy:
			why = d.GetStringArg()[:min(len(d.GetStringArg()), maxCause)]
		}
	}
	f.gap(since, at, strings.ToValidUTF8(why, "")+"; network use may have been taken for attempts", 0)
}

// maxCause bounds what an agent can say of a gap, in bytes.
const maxCause = 512

const unreadable = "lines of the record cannot be read"

// Unread says that lines of a record could not be read, between the last event
// and the next.
func (f *Fold) Unread(lines int) { f.unread += lines }

// UnreadFile says that lines of a record could not be read, and that they can
// have stood anywhere in it. It is for the end of the record.
func (f *Fold) UnreadFile(lines int) { f.gap(0, f.latest, unreadable, uint64(lines)) }

func (f *Fold) settleUnread(at int64) {
	if f.unread > 0 {
		f.gap(f.previous, at, unreadable, uint64(f.unread))
		f.unread = 0
	}
}

// uncounted says in plain words what this session cannot count, "" if it
// counts all.
func (f *Fold) uncounted() string {
	forks := f.cfg.Forks
	if f.cfg.Canary == "" {
		// No canary has shown that its hook works: an event of it must.
		forks = f.forkHook && (forks || f.cfg.Policy == "")
	}
	switch {
	case !f.cfg.Losses && !forks:
		return "losses and forks cannot be counted"
	case !f.cfg.Losses:
		return "losses cannot be counted"
	case !forks:
		return "forks cannot be counted"
	case f.unknownUse > 0:
		return "a socket was opened by a process whose executable is not known"
	}
	return ""
}

// Lost notes a loss that the agent's counters tell of, within a span.
func (f *Fold) Lost(from, to time.Time, cause string, n uint64) {
	f.gap(from.UnixNano(), to.UnixNano(), cause, n)
}
