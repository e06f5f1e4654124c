package enforcer

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

// What stands on its listing alone is enforced as it was, in no family that
// nobody watched for it.
func TestAListingThatNothingLearnedCoversKeepsItsFamilies(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Cgroup = "/other"
	file := s.learned("tool", runs(3))
	s.loaded(store.StageEnforce, file).Families = []string{"inet"}
	plan := s.mustPlan(file)
	if diff := cmp.Diff([]string{"inet"}, plan.Families); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	if len(plan.Warnings) > 0 {
		t.Errorf("warned of what it does not rest on: %q", plan.Warnings)
	}
}

// A session that proves nothing takes nothing from a plan.
func TestASessionWithoutAWindowLimitsNoFamilies(t *testing.T) {
	s := newScene(t)
	without := watched("b", 10, 20)
	without.Windows, without.Families = nil, []string{"inet"}
	s.sessions = append(s.sessions, without)
	file := s.learned("tool", runs(3))
	if diff := cmp.Diff(s.sessions[0].Families, s.mustPlan(file).Families); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
}

func TestAContainerThatIsLeftOutHoldsNothing(t *testing.T) {
	s := newScene(t)
	s.sessions = append(s.sessions, watched("b", 20, 30))
	file := program(t, s.dir, "tool")
	s.add("shop", file, "a", used(runs(1), "inet", "stream"))
	s.add("host", file, "b", runs(3))
	mustHold(t, s.mustPlan(), file, "not quiet in container shop")
	s.o.Since = at(15)
	s.mustPlan(file)
}

// A day is enough, and no less.
func TestADayOfLearningIsEnough(t *testing.T) {
	for awake, want := range map[time.Duration]bool{24 * time.Hour: false, 24*time.Hour - time.Second: true} {
		s := newScene(t)
		s.sessions[0].Awake = awake
		warned := strings.Contains(strings.Join(s.mustPlan(s.learned("tool", runs(3))).Warnings, "\n"), "less than a day")
		if warned != want {
			t.Errorf("warned after %v: %v", awake, warned)
		}
	}
}
