package enforcer

import (
	"path/filepath"
	"strings"
	"testing"

	"profile/store"
)

// why is the reason for which a path is held, whole.
func why(t *testing.T, plan *Plan, file string) string {
	t.Helper()
	for _, h := range plan.Held {
		if h.Path == file {
			return h.Why
		}
	}
	t.Errorf("%q is not held; held are %v", file, plan.Held)
	return ""
}

// The places where an executable was learned are those of the sessions in which
// it ran, and which proved something.
func TestTheReasonNamesNoPlaceWhereItDidNotRun(t *testing.T) {
	s := newScene(t)
	for id, cgroup := range map[string]string{"n": "/here", "m": "/elsewhere", "x": "/nothing-proven"} {
		narrow := watched(id, 10, 20)
		narrow.Cgroup = cgroup
		if id == "x" {
			narrow.Windows = nil
		}
		s.sessions = append(s.sessions, narrow)
	}
	file := program(t, s.dir, "tool")
	s.rows = append(s.rows, keyed("host", file, row("n", runs(5))), keyed("host", file, row("x", store.Tally{})))
	if got, want := why(t, s.mustPlan(), file), "learned only in cgroup /here"; got != want {
		t.Errorf("held: %s; want %s", got, want)
	}
}

func TestWiderReachesOutsideTheGlobThatWasLearned(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Only = []string{"/elsewhere/**"}
	file := s.learned("tool", runs(1))
	mustHold(t, s.mustPlan(), file, "outside the --only")
	s.o.Wider = true
	s.mustPlan(file)
}

func TestWhatNobodyWantedIsNotHeldForItsName(t *testing.T) {
	s := newScene(t)
	file := s.learned("\xff", runs(1))
	mustHold(t, s.mustPlan(), file, "not UTF-8")
	s.o.Only = []string{"/elsewhere/**"}
	if plan := s.mustPlan(); len(plan.Held) > 0 {
		t.Errorf("held %v: --only leaves it out", plan.Held)
	}
	s.o.Include = []string{file}
	mustHold(t, s.mustPlan(), file, "not UTF-8")
}

// In a wider cgroup listings are judged anew; one that was never learned cannot
// be.
func TestAListingThatWasNotLearnedIsNotLiftedByAWiderCgroup(t *testing.T) {
	s := newScene(t)
	s.loaded(store.StageEnforce, "/usr/bin/not-learned").Cgroup = "/a"
	if _, err := s.plan(); err == nil || !strings.Contains(err.Error(), "this plan would not: not learned") {
		t.Errorf("error %v, want one that says that it was not learned", err)
	}
}

// What is named twice, once well, is listed and not held besides.
func TestWhatIsListedIsNotHeldByAnotherOfItsNames(t *testing.T) {
	s := newScene(t)
	sshd := program(t, s.dir, "sshd")
	link := filepath.Join(s.dir, "link")
	symlink(t, sshd, link)
	s.o.Include = []string{link, sshd}
	if plan := s.mustPlan(sshd); len(plan.Held) > 0 {
		t.Errorf("held %v", plan.Held)
	}
}

// A listed file that has become a script stays listed, though a person who
// names it anew is told of scripts otherwise.
func TestAListingThatBecameAScriptIsNotHeldBesides(t *testing.T) {
	s := newScene(t)
	script := write(t, s.dir, "tool", "#!/bin/sh\n", 0o755)
	s.o.Include = []string{script}
	mustHold(t, s.mustPlan(), script, "a script")
	s.loaded(store.StageEnforce, script)
	if plan := s.mustPlan(script); len(plan.Held) > 0 {
		t.Errorf("held %v", plan.Held)
	}
}

func TestWhatWasLearnedOfAScriptsPathIsToldBeforeThatItIsOne(t *testing.T) {
	s := newScene(t)
	script := write(t, s.dir, "tool", "#!/bin/sh\n", 0o755)
	s.rows = append(s.rows, keyed("host", script, row("a", used(runs(1), "inet", "stream"))))
	s.o.Include = []string{script}
	mustHold(t, s.mustPlan(), script, "network: inet stream")
}

// --only does not lift what is listed, nor what a directory holds, and hides
// nothing of them.
func TestOnlyDoesNotReachListingsAndDirectories(t *testing.T) {
	s := newScene(t)
	s.o.Only = []string{"/elsewhere/**"}
	file := s.learned("tool", runs(3))
	s.loaded(store.StageEnforce, file).Cgroup = "/a" // in a wider one it is judged anew
	s.mustPlan(file)

	foreign := program(t, s.dir, "\xff")
	s.o.Dirs = []string{s.dir}
	mustHold(t, s.mustPlan(file), foreign, "not UTF-8")
	s.o.Dirs = nil
	s.generations[0].Paths = []string{foreign}
	if _, err := s.plan(); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("error %v, want one that says why it would not be listed any more", err)
	}
}

func TestADirectoryStandsAboveCoverage(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Cgroup = "/a"
	file := program(t, s.dir, "tool")
	s.o.Dirs = []string{s.dir}
	s.mustPlan(file)
}

func TestAPlaceIsNamedOnce(t *testing.T) {
	s := newScene(t)
	file := program(t, s.dir, "tool")
	for _, id := range []string{"n", "m"} {
		narrow := watched(id, 10, 20)
		narrow.Cgroup = "/here"
		s.sessions = append(s.sessions, narrow)
		s.rows = append(s.rows, keyed("host", file, row(id, runs(5))))
	}
	if got, want := why(t, s.mustPlan(), file), "learned only in cgroup /here"; got != want {
		t.Errorf("held: %s; want %s", got, want)
	}
}

func TestOfManyNamesAFewAreTold(t *testing.T) {
	s := newScene(t)
	tally := runs(1)
	for _, name := range []string{"a", "b", "c", "d"} {
		tally.Entries = append(tally.Entries, store.Entry{Name: "/usr/bin/" + name, Runs: 1})
	}
	few := s.learned("few", tally)
	if got := why(t, s.mustPlan(), few); !strings.HasSuffix(got, "several names: a, b, c, d") {
		t.Errorf("held: %s", got)
	}
	for _, name := range []string{"e", "f"} {
		tally.Entries = append(tally.Entries, store.Entry{Name: "/usr/bin/" + name, Runs: 1})
	}
	file := s.learned("multi", tally)
	mustHold(t, s.mustPlan(), file, "several names: a, b, c, d and 2 more")
}

func TestEvidenceOfASessionThatIsNotRecordedMakesNoPlan(t *testing.T) {
	s := newScene(t)
	s.rows = append(s.rows, keyed("host", program(t, s.dir, "tool"), row("ghost", runs(3))))
	if plan, err := s.plan(); err == nil || !strings.Contains(err.Error(), `"ghost"`) {
		t.Errorf("plan %+v, error %v; want one that names the session", plan, err)
	}
}

// Whatever has become of it, a listing stays where a wider cgroup is enforced on
// purpose.
func TestAListingStaysInAWiderCgroupThatIsMeant(t *testing.T) {
	s := newScene(t)
	file := s.learned("tool", store.Tally{Seen: 1})
	s.loaded(store.StageEnforce, file).Cgroup = "/a"
	if _, err := s.plan(); err == nil {
		t.Error("no error, and it would not be listed any more")
	}
	s.o.Wider = true
	s.mustPlan(file)
	s.o.Wider, s.o.Cgroup = false, "/b/../a/"
	if plan := s.mustPlan(file); plan.Cgroup != "/a" {
		t.Errorf("cgroup %s", plan.Cgroup)
	}
}
