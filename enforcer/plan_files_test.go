package enforcer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

// A listing that is quiet rests on what was learned: each session that covers
// it must have watched a family.
func TestAListingThatIsQuietIsEnforcedInWhatWasWatched(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Families = []string{"inet", "packet"}
	last := watched("b", 10, 20)
	last.Families = []string{"inet", "inet6"}
	s.sessions = append(s.sessions, last)
	file := s.learned("tool", runs(3))
	s.loaded(store.StageEnforce, file)
	plan := s.mustPlan(file)
	if diff := cmp.Diff([]string{"inet"}, plan.Families); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	if len(plan.Warnings) == 0 || plan.Warnings[0] != "no longer enforced, unlike in generation 1: inet6, packet" {
		t.Errorf("warnings %q", plan.Warnings)
	}
}

func TestAPlanOfNothingNeedsNoFamily(t *testing.T) {
	s := newScene(t)
	s.o.AgentFamilies = []string{"a family of tomorrow"}
	if plan := s.mustPlan(); len(plan.Families) > 0 || len(plan.Warnings) > 0 {
		t.Errorf("families %v, warnings %v; want none", plan.Families, plan.Warnings)
	}
	file := s.learned("tool", runs(3))
	s.loaded(store.StageEnforce, file)
	s.o.Exclude = []string{file}
	if plan := s.mustPlan(); len(plan.Warnings) > 0 {
		t.Errorf("warned of families in which nothing is enforced any more: %v", plan.Warnings)
	}
}

// Of another host, a file is known by what was learned there, and one of the
// same path here says nothing.
func TestFilesOfAnotherHostAreThoseThatWereLearned(t *testing.T) {
	s := newScene(t)
	s.o.Remote = true
	quiet := s.learned("quiet", of(oldFile, 1, 2, runs(3)))
	listed := s.learned("listed", of(oldFile, 1, 2, store.Tally{Seen: 1}))
	s.loaded(store.StageEnforce, listed).Files = map[string]store.FileID{listed: oldFile}
	here := program(t, s.dir, "here")
	s.o.Include = []string{here}
	plan := s.mustPlan(here, listed, quiet)
	if diff := cmp.Diff(map[string]store.FileID{listed: oldFile, quiet: oldFile}, plan.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if len(plan.Replaced) > 0 {
		t.Errorf("replaced %q, which nobody here can say", plan.Replaced)
	}
}

// Replaced are those whose file was known when they were listed, in the order
// of their paths, whether anything was learned of them or not.
func TestReplacedAreTheListedWhoseFileWasKnown(t *testing.T) {
	s := newScene(t)
	early := program(t, s.dir, "a")
	late := s.learned("b", of(oldFile, 1, 2, store.Tally{Seen: 1}))
	unknown := s.learned("c", store.Tally{Seen: 1})
	s.loaded(store.StageEnforce, early, late, unknown).Files = map[string]store.FileID{early: oldFile, late: oldFile}
	if diff := cmp.Diff([]string{early, late}, s.mustPlan(early, late, unknown).Replaced); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
}
