package enforcer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"profile/store"
)

// considered are the sessions that a judgement considers.
type considered struct {
	t        Thresholds
	known    map[string]store.Session // every recorded session
	sessions map[string]*session
	ids      []string // of sessions, sorted
}

// session is a session with what is worked out of it once.
type session struct {
	store.Session
	last store.Window // its last window; zero without any
	gap  string       // its gaps in plain words; "" without any
}

func consider(sessions map[string]store.Session, t Thresholds) *considered {
	c := &considered{t: t.withDefaults(), known: sessions, sessions: map[string]*session{}}
	for id, s := range sessions {
		one := newSession(s)
		if !one.end().Before(t.Since) {
			c.sessions[id] = one
		}
	}
	c.ids = slices.Sorted(maps.Keys(c.sessions))
	return c
}

func newSession(s store.Session) *session {
	one := &session{Session: s, gap: tellGaps(s)}
	if n := len(s.Windows); n > 0 {
		one.last = s.Windows[n-1]
	}
	return one
}

// only returns what remains when the sessions that keep refuses are not
// considered.
func (c *considered) only(keep func(*session) bool) *considered {
	less := &considered{t: c.t, known: c.known, sessions: map[string]*session{}}
	for _, id := range c.ids {
		if s := c.sessions[id]; keep(s) {
			less.sessions[id] = s
			less.ids = append(less.ids, id)
		}
	}
	return less
}

// has reports whether the row's session is considered.
func (c *considered) has(row *store.Evidence) bool {
	_, ok := c.sessions[row.Session]
	return ok
}

// gaps tells the gaps of every considered session that would have seen the
// path, whether it has a row of it or not: the row can be what was lost.
func (c *considered) gaps(path string) []string {
	var told []string
	for _, id := range c.ids {
		if s := c.sessions[id]; s.gap != "" && s.watches(path) {
			told = append(told, s.gap)
		}
	}
	return told
}

// places names, in plain words, where the sessions learned.
func (c *considered) places() []string {
	var places []string
	for _, id := range c.ids {
		place := "from a recording"
		if s := c.sessions[id]; s.Agent != store.Recording {
			place = "in " + tellCgroup(s.Cgroup)
		}
		if !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	return places
}

// covers reports whether what runs in the cgroup ran under the session's eyes.
// A recording does not say of which machine it is.
func (s *session) covers(cgroup string) bool {
	return s.Agent != store.Recording && contains(s.Cgroup, cgroup)
}

// end is when the session ended; while it is live, or if it was killed, where
// its last window does.
func (s *session) end() time.Time {
	if !s.Ended.IsZero() {
		return s.Ended
	}
	return later(s.last.To, s.Started)
}

// proves reports whether the session can prove anything at all.
func (s *session) proves() bool { return !s.NoSocketHook && len(s.Windows) > 0 }

// watches reports whether the session was asked to watch the path. A pattern
// that cannot be read watches nothing.
func (s *session) watches(path string) bool {
	return len(s.Only) == 0 || slices.ContainsFunc(s.Only, func(pattern string) bool {
		return doublestar.MatchUnvalidated(pattern, path)
	})
}

// unasked reports whether the session did not ask of the sockets of a row's
// path at some time at which one of its executable may have run.
func (s *session) unasked(row *store.Evidence) bool {
	going := slices.ContainsFunc(row.Files, func(t store.Tally) bool { return t.Going.Clean+t.Going.Touched > 0 || len(t.Unseen) > 0 })
	return slices.ContainsFunc(s.Narrowed, func(n store.Narrowed) bool {
		return n.Path == row.Key.Path && (going || !n.From.After(row.LastSeen)) && (n.To.IsZero() || !n.To.Before(row.FirstSeen))
	})
}

// watched is for how long a run that was still going at the end of the last
// window had been watched since its exec.
func (s *session) watched(exec time.Time) time.Duration {
	if exec.IsZero() || exec.Before(s.last.From) {
		return 0
	}
	return max(0, s.last.To.Sub(exec))
}

// tellGaps sums up the gaps of a session in one sentence, "" if it has none.
func tellGaps(s store.Session) string {
	if len(s.Gaps) == 0 {
		return ""
	}
	var lost uint64
	var causes []string
	unknown := false
	from, to := s.Gaps[0].From, s.Gaps[0].To
	for _, g := range s.Gaps {
		lost += g.Count
		unknown = unknown || g.Count == 0
		from, to = earlier(from, g.From), later(to, g.To)
		if !slices.Contains(causes, g.Cause) {
			causes = append(causes, g.Cause)
		}
	}
	many := count(lost, "observation")
	switch {
	case lost == 0:
		many = "an unknown number of observations"
	case unknown:
		many = "at least " + many
	}
	return fmt.Sprintf("gap: %s lost between %s and %s in session %s (%s)", many,
		from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339), s.ID, strings.Join(causes, "; "))
}

// contains reports whether inner is outer or lies below it. Both are absolute
// and clean.
func contains(outer, inner string) bool {
	return outer == "/" || inner == outer || strings.HasPrefix(inner, outer+"/")
}

func tellCgroup(cgroup string) string {
	if cgroup == "/" {
		return "the whole machine"
	}
	return "cgroup " + cgroup
}

func tellWhere(cgroup string) string {
	if cgroup == "/" {
		return "on the whole machine"
	}
	return "in " + tellCgroup(cgroup)
}
