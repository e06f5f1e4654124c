package enforcer

import (
	"strings"
	"testing"

	"profile/store"
)

func narrowed(s store.Session, spans ...store.Narrowed) store.Session {
	s.Narrowed = spans
	return s
}

func TestNothingIsQuietWhileItsSocketsAreNotAskedFor(t *testing.T) {
	const path = "/usr/bin/tool" // rows are seen from 1 to 2
	for _, c := range []struct {
		name    string
		tally   store.Tally
		spans   []store.Narrowed
		kind    string
		atLeast bool
	}{
		{"another path", runs(3), []store.Narrowed{{Path: "/usr/bin/tool2", From: at(0)}}, Quiet, false},
		{"throughout", runs(3), []store.Narrowed{{Path: path, From: at(0)}}, Unproven, true},
		{"from its midst on", runs(3), []store.Narrowed{{Path: path, From: at(1.5)}}, Unproven, true},
		{"until its midst", runs(3), []store.Narrowed{{Path: path, From: at(0), To: at(1.5)}}, Unproven, true},
		{"in its midst", runs(3), []store.Narrowed{{Path: path, From: at(1.2), To: at(1.3)}}, Unproven, true},
		{"before it was seen", runs(3), []store.Narrowed{{Path: path, From: at(0), To: at(0.5)}}, Quiet, false},
		{"after it was seen", runs(3), []store.Narrowed{{Path: path, From: at(3)}}, Quiet, false},
		{"while it goes on", going(runs(3), 1), []store.Narrowed{{Path: path, From: at(3)}}, Unproven, true},
		{"while one that ran before goes on", func() store.Tally {
			t := runs(3)
			t.UnseenCount, t.Unseen = 1, []store.Process{{PID: 7, Start: at(0)}}
			return t
		}(), []store.Narrowed{{Path: path, From: at(3)}}, Unproven, true},
		{"before and after", runs(3), []store.Narrowed{{Path: path, From: at(0), To: at(0.5)}, {Path: path, From: at(3)}}, Quiet, false},
		{"a network user", used(runs(3), "inet", "stream"), []store.Narrowed{{Path: path, From: at(1.5)}}, Network, true},
		{"a network user, once it has gone", used(runs(3), "inet", "stream"), []store.Narrowed{{Path: path, From: at(3)}}, Network, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sessions := map[string]store.Session{"a": narrowed(watched("a", 0, 9), c.spans...)}
			for _, thresholds := range []Thresholds{{}, {AcceptGaps: true}} {
				v, err := Judge([]store.Evidence{row("a", c.tally)}, sessions, thresholds)
				if err != nil {
					t.Fatal(err)
				}
				if v.Kind != c.kind || v.AtLeast != c.atLeast {
					t.Errorf("%s (%q), at least so many: %v; want %s, %v", v.Kind, v.Reasons, v.AtLeast, c.kind, c.atLeast)
				}
				if told := strings.Contains(strings.Join(v.Reasons, " "), "not asked about"); told != (c.kind == Unproven) {
					t.Errorf("reasons %q", v.Reasons)
				}
			}
		})
	}
}

func TestASessionThatNarrowedIsOutweighedByNone(t *testing.T) {
	sessions := map[string]store.Session{
		"a": narrowed(watched("a", 0, 9), store.Narrowed{Path: "/usr/bin/tool", From: at(0)}), "b": watched("b", 0, 9)}
	rows := []store.Evidence{row("a", runs(3)), row("b", runs(3))}
	if v, err := Judge(rows, sessions, Thresholds{}); err != nil || v.Kind != Unproven {
		t.Errorf("%+v, error %v: want unproven", v, err)
	}
	delete(sessions, "a")
	if v, err := Judge(rows[1:], sessions, Thresholds{}); err != nil || v.Kind != Quiet {
		t.Errorf("%+v, error %v: want quiet without that session", v, err)
	}
}
