package enforcer

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func TestPlanRefusesToEnforceMoreWidelyThanWasLearned(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Cgroup = "/a"
	file := s.learned("tool", runs(1))
	for _, c := range []struct {
		cgroup  string
		covered bool
	}{{"/", false}, {"/b", false}, {"/ab", false}, {"/a", true}, {"/a/b", true}} {
		s.o.Cgroup = c.cgroup
		plan, err := s.plan()
		var coverage *CoverageError
		if c.covered {
			if err != nil || len(plan.Enforce) != 1 {
				t.Errorf("in %s: %v, %v", c.cgroup, plan, err)
			}
		} else if !errors.As(err, &coverage) || !strings.Contains(err.Error(), "learned only in cgroup /a") {
			t.Errorf("in %s: error %v, want a *CoverageError that names cgroup /a", c.cgroup, err)
		}
	}
	s.o.Cgroup, s.o.Wider = "/", true
	s.mustPlan(file)
	s.o.Wider, s.o.Include = false, []string{"/bin/true"}
	plan := s.mustPlan(resolveName("/bin/true"))
	mustHold(t, plan, file, "learned only in cgroup /a")
}

// Each command that is learned has a cgroup of its own.
func TestARefusalNamesTwoOfManyPlaces(t *testing.T) {
	err := &CoverageError{Cgroup: "/", Learned: []string{"in cgroup /1", "in cgroup /2", "in cgroup /3", "in cgroup /4"}}
	want := "learned only in cgroup /1 and in cgroup /2 and in 2 other places: enforcing on the whole machine is wider than that"
	if got := err.Error(); got != want || len(err.Learned) != 4 {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPlanHoldsWhatRestsOnNarrowerSessions(t *testing.T) {
	s := newScene(t)
	narrow := watched("n", 10, 20)
	narrow.Cgroup = "/a"
	s.sessions = append(s.sessions, narrow)
	both := s.learned("both", runs(1))
	s.rows = append(s.rows, keyed("host", both, row("n", used(runs(1), "inet", "stream"))))
	only := program(t, s.dir, "only")
	s.rows = append(s.rows, keyed("host", only, row("n", runs(5))))
	few := s.learned("few", store.Tally{Seen: 1})
	s.rows = append(s.rows, keyed("host", few, row("n", runs(5))))
	plan := s.mustPlan()
	mustHold(t, plan, both, "network: inet stream")
	mustHold(t, plan, only, "learned only in cgroup /a")
	mustHold(t, plan, few, "learned only in cgroup /a")
	s.o.Wider = true
	s.mustPlan(few, only)
}

func TestPlanTakesARecordingForNoCoverage(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Agent = store.Recording
	file := s.learned("tool", runs(1))
	_, err := s.plan()
	var coverage *CoverageError
	if !errors.As(err, &coverage) || !strings.Contains(err.Error(), "learned only from a recording") {
		t.Errorf("error %v, want a *CoverageError that names the recording", err)
	}
	s.o.Wider = true
	s.mustPlan(file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.mustPlan(file) // it never was of this machine
}

func TestPlanHoldsWhatASessionWasNotAskedToWatch(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Only = []string{"/elsewhere/**"}
	file := s.learned("tool", runs(1))
	mustHold(t, s.mustPlan(), file, "outside the --only")
	s.o.Only = []string{"/other/**"}
	if plan := s.mustPlan(); len(plan.Held) != 0 {
		t.Errorf("held %v: --only leaves it out", plan.Held)
	}
}

func TestPlanOnlyRestrictsWhatWasLearned(t *testing.T) {
	s := newScene(t)
	in, out := s.learned("in/tool", runs(1)), s.learned("out/tool", runs(1))
	s.o.Only = []string{s.dir + "/in/*"}
	s.mustPlan(in)
	s.o.Include = []string{out}
	s.mustPlan(in, out)
	s.o.Include = nil
	s.loaded(store.StageEnforce, out)
	s.mustPlan(in, out)
}

func TestPlanEnforcesTheFamiliesThatWereWatched(t *testing.T) {
	s := newScene(t)
	b := watched("b", 10, 20)
	b.Families = []string{"inet", "inet6", "vsock"}
	blind := watched("c", 20, 30)
	blind.Families, blind.NoSocketHook = nil, true
	s.sessions = append(s.sessions, b, blind)
	file := s.learned("tool", runs(1))
	want := func(families ...string) {
		t.Helper()
		plan, err := s.plan()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(families, plan.Families); diff != "" {
			t.Errorf("families (-want +got):\n%s", diff)
		}
	}
	want("inet", "inet6")
	s.o.AgentFamilies = []string{"inet", "packet"}
	want("inet")
	s.rows, s.o.Include = nil, []string{file}
	want("inet", "packet")
	s.o.AgentFamilies = nil
	want("inet", "inet6", "vsock") // what the last session watched
	s.sessions = nil
	want("inet", "inet6", "packet", "vsock") // what any Tetragon compares with by Equal
	s.loaded(store.StageEnforce, "/usr/bin/gone").Families = []string{"inet6"}
	want("inet6")
	s.o.AgentFamilies = []string{"packet"}
	if _, err := s.plan(); err == nil || !strings.Contains(err.Error(), "no socket family") {
		t.Errorf("error %v, want one that says there is no family", err)
	}
}
