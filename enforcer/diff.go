package enforcer

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"profile/store"
)

// Known is what was known at one time: a verdict and the files behind it, by
// key.
type Known map[store.Key]known

type known struct {
	verdict string
	files   []store.FileID
}

// WhatIsKnown judges evidence, sorted by path and scope, by the sessions that
// had ended by a time; zero is any time. What came later, a replaced file too,
// was not known then.
func WhatIsKnown(sessions []store.Session, rows []store.Evidence, until time.Time, t Thresholds) (Known, error) {
	byID, later := map[string]store.Session{}, map[string]bool{}
	for _, s := range sessions {
		if !until.IsZero() && newSession(s).end().After(until) {
			later[s.ID] = true
		} else {
			byID[s.ID] = s
		}
	}
	c := consider(byID, t)
	all := Known{}
	for _, rows := range byKey(kept(rows, func(row *store.Evidence) bool { return !later[row.Session] })) {
		v, err := c.judge(rows)
		if err != nil {
			return nil, err
		}
		if considered := kept(rows, c.has); len(considered) > 0 {
			all[rows[0].Key] = known{v.Kind, c.currentFiles(considered)}
		}
	}
	return all, nil
}

// Change is a difference between what was known at two times. What is
// appeared, gone, verdict or file; From and To are verdicts, "" where there is
// none.
type Change struct {
	Scope      string `json:"scope"`
	Path       string `json:"path"`                  // as in a Row
	PathBase64 string `json:"path_base64,omitempty"` // the same
	What       string `json:"what"`
	From       string `json:"from,omitempty"`
	To         string `json:"to,omitempty"`
}

// Diff tells what changed from one to the other, sorted by path, then scope.
func Diff(from, to Known) []Change {
	keys := slices.Collect(maps.Keys(from))
	for key := range to {
		if _, both := from[key]; !both {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b store.Key) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Scope, b.Scope))
	})
	changes := []Change{}
	for _, key := range keys {
		a, before := from[key]
		b, after := to[key]
		change := Change{Scope: key.Scope, From: a.verdict, To: b.verdict}
		change.Path, change.PathBase64 = printable(key.Path)
		add := func(what string) {
			change.What = what
			changes = append(changes, change)
		}
		switch {
		case !before:
			add("appeared")
			continue
		case !after:
			add("gone")
			continue
		}
		if a.verdict != b.verdict {
			add("verdict")
		}
		if len(a.files) > 0 && len(b.files) > 0 && !sameFile(a.files[0], b.files[0]) {
			add("file")
		}
	}
	return changes
}

// NewUsers returns the paths of executables that used the network in one
// session, and did in none of what was known; sorted. Scopes do not count: a
// build's container has another name each time.
func NewUsers(session string, rows, known []store.Evidence) []string {
	uses := func(e store.Evidence) bool {
		return slices.ContainsFunc(e.Files, func(t store.Tally) bool { return len(t.Network) > 0 })
	}
	users := map[string]bool{}
	for _, e := range rows {
		if e.Session == session && uses(e) {
			users[e.Key.Path] = true
		}
	}
	for _, e := range known {
		if uses(e) {
			delete(users, e.Key.Path)
		}
	}
	return slices.Sorted(maps.Keys(users))
}
