package enforcer

import (
	"fmt"
	"slices"
	"strings"

	"profile/store"
)

// session tells what one session saw, and what it lost meanwhile.
func (x *explainer) session(row store.Evidence) []string {
	s := x.c.known[row.Session]
	var ran []string
	add := func(n uint64, what string) {
		if n > 0 {
			ran = append(ran, fmt.Sprintf("%d %s", n, what))
		}
	}
	var sum store.Tally
	for _, t := range row.Files {
		sum.Seen += t.Seen
		sum.Complete += t.Complete
		sum.Crossed += t.Crossed
		sum.UnseenCount += t.UnseenCount
		sum.Going.Clean += t.Going.Clean + t.Going.Touched
	}
	add(sum.Seen, "seen")
	add(sum.Complete, "complete")
	add(sum.Going.Clean, "still going at its end")
	add(sum.Crossed, "across unwatched time")
	add(sum.UnseenCount, "whose start was not seen")
	if len(ran) == 0 {
		ran = append(ran, "none of its own")
	}
	line := fmt.Sprintf("session %s (%s, %s): runs: %s", s.ID, x.c.span(s), tellPlace(s), strings.Join(ran, ", "))
	if !x.c.has(&row) {
		line += "; left out by --since"
	}
	lines := []string{line}
	if end := x.tellEnd(s); end != "" {
		lines = append(lines, "  "+end)
	}
	if what := sessionRow(&session{Session: s}).NotWatched(); what != "" {
		lines = append(lines, "  not watched: "+what)
	}
	for _, n := range s.Narrowed {
		if n.Path != row.Key.Path {
			continue
		}
		to := "its end"
		if !n.To.IsZero() {
			to = tellTime(n.To)
		}
		lines = append(lines, fmt.Sprintf("  from %s to %s the agent was not asked of its sockets: it was known by its path for a network user", tellTime(n.From), to))
	}
	for _, g := range s.Gaps {
		where := "across its runs"
		if g.To.Before(row.FirstSeen) || g.From.After(row.LastSeen) {
			where = "outside the time in which it was seen"
		}
		lines = append(lines, fmt.Sprintf("  %s, %s", tellGaps(store.Session{ID: s.ID, Gaps: []store.Gap{g}}), where))
	}
	return lines
}

// span tells when a session was, and how much of it was watched awake.
func (c *considered) span(s store.Session) string {
	return fmt.Sprintf("%s to %s, watched for %s awake", tellTime(s.Started), tellTime(newSession(s).end()), tellDuration(s.Awake))
}

func tellPlace(s store.Session) string {
	if s.Agent == store.Recording {
		return "a recording"
	}
	return tellWhere(s.Cgroup) + ", agent " + s.Agent
}

// tellEnd tells how a session ended that did not end by itself.
func (x *explainer) tellEnd(s store.Session) string {
	switch {
	case s.Ended.IsZero() && s.BootID != "" && x.boot != "" && s.BootID != x.boot:
		return "it was ended by a reboot: what was still going then is not complete"
	case s.Ended.IsZero():
		return "it has not ended, or was killed"
	case slices.Contains([]string{"", store.EndStopped, store.EndTime, store.EndCommand, store.EndRecord}, s.End):
		return ""
	}
	return "how it ended: " + s.End
}
