package enforcer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"profile/internal/owner"
	"profile/store"
)

// moreStories are golden cases of what is told of sessions.
var moreStories = map[string]func(s *scene) (name string, o ExplainOptions){
	"left-out": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		s.sessions = append(s.sessions, withGap(watched("b", 20, 30),
			store.Gap{From: at(20), To: at(20.5), Cause: "before", Count: 1},
			store.Gap{From: at(22), To: at(22.5), Cause: "meanwhile", Count: 2},
			store.Gap{From: at(28), To: at(28.5), Cause: "afterwards", Count: 3}))
		s.add("host", file, "a", s.asIs(file, runs(9)))
		t := touched(going(runs(2), 23))
		t.Crossed, t.UnseenCount = 4, 5
		e := s.add("host", file, "b", s.asIs(file, t))
		e.FirstSeen, e.LastSeen = at(21), at(25)
		return file, ExplainOptions{Thresholds: Thresholds{Since: at(15), AcceptGaps: true}, Given: true}
	},
	"not-ended": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		boot, err := bootID()
		if err != nil {
			s.t.Fatal(err)
		}
		s.sessions[0] = narrowed(s.sessions[0], store.Narrowed{Path: file, From: at(1), To: at(2)}, store.Narrowed{Path: file, From: at(3)},
			store.Narrowed{Path: file + "2", From: at(1)})
		s.sessions[0].Ended, s.sessions[0].BootID = time.Time{}, boot
		s.add("host", file, "a", s.asIs(file, used(runs(1), "inet", "stream")))
		return file, ExplainOptions{}
	},
	// Of the file that was there before nothing counts, its arguments neither.
	"kept-arguments": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		t := runs(3)
		t.Args = []string{"--now \x1b[2J", "-v"}
		t.FirstExec, t.LastExec = at(2), at(3)
		old := runs(1)
		old.Args = []string{"--before"}
		old.File, old.FirstExec, old.LastExec = store.FileID{Dev: 1, Ino: 2, Size: 3, CtimeNS: 4}, at(1), at(1)
		e := s.add("host", file, "a", s.asIs(file, t))
		e.Files = append(e.Files, old)
		s.sessions = append(s.sessions, watched("b", 20, 30))
		t.Args = []string{"-v", "a b"}
		s.add("host", file, "b", s.asIs(file, t))
		return file, ExplainOptions{}
	},
	// On the host it is a symlink.
	"in-a-container": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		s.add("host", file, "a", s.asIs(file, runs(2)))
		link := filepath.Join(s.dir, "link")
		symlink(s.t, file, link)
		s.add("pod:shop/till:till:1", link, "a", used(runs(1), "inet", "stream"))
		return link, ExplainOptions{}
	},
	"in-a-container-alone": func(s *scene) (string, ExplainOptions) {
		file := filepath.Join(s.dir, "boxed")
		s.add("container:3fc4ccfe745870e2c0d99f71f30ff06", file, "a", runs(1))
		return file, ExplainOptions{}
	},
	"record": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		s.sessions[0].Agent, s.sessions[0].End = store.Recording, "the agent went away"
		s.add("host", file, "a", s.asIs(file, runs(1)))
		g := s.loaded(store.StageMonitor, file)
		g.Cgroup, g.Since = "/shop", at(5)
		return file, ExplainOptions{Given: true}
	},
	"monitored": func(s *scene) (string, ExplainOptions) {
		file, other := program(s.t, s.dir, "tool"), program(s.t, s.dir, "other")
		s.add("host", other, "a", s.asIs(other, runs(1)))
		s.add("shop", other, "a", s.asIs(other, used(runs(1), "inet6", "dgram")))
		g := s.loaded(store.StageMonitor, file)
		g.Since, g.MinRuns, g.AcceptGaps = at(5), 3, true
		g.Kills = []store.Kill{{Path: other, Would: 3, LastWould: at(6)}} // on the host
		return other, ExplainOptions{}
	},
}

func TestExplainTellsOfSessions(t *testing.T) { mustTell(t, moreStories) }

func TestExplainTellsWhatAProgramCouldDo(t *testing.T) {
	self, err := os.Executable() // a Go program with gRPC in it
	if err != nil {
		t.Fatal(err)
	}
	if told := tellAbility(self); !strings.Contains(told, "could open sockets, resolve names") || !strings.Contains(told, fallsBack) {
		t.Errorf("told: %s", told)
	}
}

func TestExplainTellsWhoOwnsAFile(t *testing.T) {
	one, two := owner.Package{Name: "one", Version: "1-2"}, owner.Package{Name: "two"}
	for want, owners := range map[string][]owner.Package{"the package one 1-2": {one}, "the packages one 1-2 and two": {one, two}} {
		if got := tellOwners(owners); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}

// How a session ended is told where it did not end by itself.
func TestTheEndOfASessionIsToldUnlessItWasMeant(t *testing.T) {
	x := &explainer{boot: "now"}
	for _, c := range []struct{ boot, end, want string }{
		{"now", "", ""},
		{"now", store.EndStopped, ""},
		{"now", store.EndTime, ""},
		{"now", store.EndCommand, ""},
		{"", store.EndRecord, ""},
		{"now", store.EndKilled, "how it ended: killed"},
		{"before", store.EndReboot, "how it ended: ended by a reboot"},
		{"now", "the agent went away", "how it ended: the agent went away"},
	} {
		s := watched("a", 0, 10)
		s.BootID, s.End = c.boot, c.end
		if got := x.tellEnd(s); got != c.want {
			t.Errorf("an end %q is told as %q, want %q", c.end, got, c.want)
		}
	}
}
