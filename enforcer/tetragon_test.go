package enforcer_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// applied applies a plan of one executable that is not there to an agent that
// lists what it is given as in force, and does nothing.
func applied(t *testing.T, version, stage string, remote, untried bool) (*store.Generation, *tetragon.Agent, error) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root: it starts canaries in the root cgroup")
	}
	fake := agenttest.Start(t, agenttest.Options{Version: version})
	agent := fake.Local(t)
	if remote {
		agent = fake.Remote(t)
	}
	s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	group, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	g, err := enforcer.Apply(t.Context(), enforcer.ApplyOptions{
		Agent: agent, Store: s, Group: group, Untried: untried,
		Plan: &enforcer.Plan{Enforce: []string{"/nowhere/tool"}, Stage: stage, Cgroup: "/", Families: []string{"inet", "inet6"}},
	})
	return g, agent, err
}

func TestAnAgentThatListsAPolicyAndKillsNothingFailsEnforce(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, c := range []struct{ name, version, stage, want string }{
		{"kills nothing", "v1.7.0", store.StageEnforce, "does not act"},
		{"kills nothing, and does not count", "v1.3.0", store.StageEnforce, "does not act"},
		{"counts nothing", "v1.7.0", store.StageMonitor, "does not count"},
		{"would kill in monitor", "v1.3.0", store.StageMonitor, "no monitor mode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, agent, err := applied(t, c.version, c.stage, false, false)
			var failed *enforcer.FailedError
			if g != nil || !errors.As(err, &failed) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("generation %v, error %v; want a *FailedError with %q", g, err, c.want)
			}
			left, err := agent.Policies(t.Context(), tetragon.EnforcePrefix)
			if err != nil || len(left) != 0 {
				t.Errorf("policies %v are left, error %v", left, err)
			}
		})
	}
}

func TestAnAgentOfAnotherHostCannotBeTried(t *testing.T) {
	if _, _, err := applied(t, "v1.7.0", store.StageEnforce, true, false); !errors.Is(err, enforcer.ErrCannotTry) {
		t.Errorf("error %v, want that it cannot be tried", err)
	}
	g, _, err := applied(t, "v1.7.0", store.StageEnforce, true, true)
	if err != nil || g == nil || !g.Tried.IsZero() {
		t.Errorf("generation %+v, error %v; want one that was not tried", g, err)
	}
}
