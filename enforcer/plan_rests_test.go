package enforcer

import (
	"path/filepath"
	"slices"
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
	s.sessions[0].Cgroup, s.sessions[0].Families = "/other", []string{"inet6"}
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

// A session that proves nothing, or covers less than what is enforced, takes
// nothing from a plan.
func TestSessionsThatThePlanDoesNotRestOnLimitNoFamilies(t *testing.T) {
	for name, change := range map[string]func(*store.Session){
		"without a window": func(s *store.Session) { s.Windows = nil },
		"narrower":         func(s *store.Session) { s.Cgroup = "/a" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			other := watched("b", 10, 20)
			other.Families = []string{"inet"}
			change(&other)
			s.sessions = append(s.sessions, other)
			file := s.learned("tool", runs(3))
			if diff := cmp.Diff(s.sessions[0].Families, s.mustPlan(file).Families); diff != "" {
				t.Errorf("families (-want +got):\n%s", diff)
			}
		})
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

// What was killed while enforced is no reason against enforcing: only what
// would have been killed in monitor waits for a person.
func TestKillsAreNoReasonAgainstThePromotion(t *testing.T) {
	for stage, lifted := range map[string]bool{store.StageEnforce: false, store.StageMonitor: true} {
		s := newScene(t)
		file := s.learned("tool", runs(3))
		s.rows[0].Attempts = []store.Attempt{{Family: "inet", Type: "stream", Stage: stage, Count: 5, First: at(1), Last: at(2)}}
		s.loaded(store.StageMonitor, file)
		if lifted {
			mustHold(t, s.mustPlan(), file, "would have been killed 5 times in monitor")
		} else {
			s.mustPlan(file)
		}
	}
}

// A file that took the place of a listed one, and uses the network, is not what
// was listed.
func TestAReplacedFileThatUsesTheNetworkIsMarked(t *testing.T) {
	s := newScene(t)
	file := program(t, s.dir, "tool")
	gone := filepath.Join(s.dir, "gone")
	s.add("host", file, "a", s.asIs(file, used(runs(1), "inet", "stream")))
	s.loaded(store.StageEnforce, gone, file).Files = map[string]store.FileID{file: oldFile, gone: oldFile}
	plan := s.mustPlan(gone, file)
	if diff := cmp.Diff([]string{file}, plan.Replaced); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if plan.Files[file] != oldFile {
		t.Errorf("listed by %+v", plan.Files[file])
	}
}

func TestWhatAQuietVerdictRestsOnCountsNoSessionThatProvesNothing(t *testing.T) {
	without := watched("b", 10, 20)
	without.Windows = nil
	s := database(t, func(tx *store.Tx) error {
		return putAll(tx, []store.Session{watched("a", 0, 10), without}, nil,
			keyed("host", "/usr/bin/tool", row("a", runs(2))), keyed("host", "/usr/bin/tool", row("b", store.Tally{})))
	})
	rows, _ := reportedFamilies(t, s, ReportOptions{})
	if len(rows) != 1 || len(rows[0].Reasons) != 1 || !strings.Contains(rows[0].Reasons[0], "in 1 session that") {
		t.Errorf("%+v", rows)
	}
}

func TestHowSocketsWereUsedIsTold(t *testing.T) {
	for want, u := range map[string]store.Use{
		"went out (to 192.0.2.7:443)":                                        {Reach: store.ReachOut, Destinations: []string{"192.0.2.7:443"}},
		"exchanged data with another machine (192.0.2.7:443)":                {Reach: store.ReachPeer, Destinations: []string{"192.0.2.7:443"}},
		"stayed on this machine; 1 run used a socket that it had not opened": {Reach: store.ReachLoopback, Inherited: 1},
		"2 runs used a socket that it had not opened":                        {Inherited: 2},
	} {
		if got := tellReach(u, false); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}

// What is printed for review is what is then done: AF_VSOCK is enforced where
// --vsock says so again, if it took that to watch it.
func TestVsockThatWasWatchedByOptionIsEnforcedByOption(t *testing.T) {
	s := newScene(t)
	file := s.learned("tool", runs(3))
	s.sessions[0].Families = append(s.sessions[0].Families, "vsock")
	for _, c := range []struct {
		hook  string
		asked []string // the agent's families, if it is asked
		vsock bool
		want  bool
	}{
		{"cgroup/sock_create tp_btf/sys_enter", nil, false, false},
		{"cgroup/sock_create tp_btf/sys_enter", nil, true, true},
		{"cgroup/sock_create tp_btf/sys_enter", []string{"inet", "inet6"}, false, false},
		{"cgroup/sock_create tp_btf/sys_enter", []string{"inet", "inet6", "vsock"}, true, true},
		{"fmod_ret/security_socket_create", nil, false, true},
	} {
		s.sessions[0].Hook = c.hook
		s.o.AgentFamilies, s.o.Vsock = c.asked, c.vsock
		plan := s.mustPlan(file)
		if got := slices.Contains(plan.Families, "vsock"); got != c.want {
			t.Errorf("%+v: vsock is enforced: %v", c, got)
		}
		told := strings.Contains(strings.Join(plan.Warnings, "\n"), "vsock was watched with --vsock, and is enforced with it alone")
		if told == c.want || slices.Contains(plan.Unwatched, "vsock") {
			t.Errorf("%+v: warnings %q, not watched %v", c, plan.Warnings, plan.Unwatched)
		}
	}
}
