package enforcer_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/cgroup/cgrouptest"
	"profile/internal/tetragon"
	"profile/store"
)

// site is a database, an agent dressed as a Tetragon, and a connection to it.
type site struct {
	fake  *agenttest.Agent
	agent *tetragon.Agent
	store *store.Store
	group cgroup.Group // of the whole machine, as the plan has it
	dir   string       // of policies; "" is none
}

// awaySite has an agent of another host, which lists what it is given as in
// force and does nothing.
func awaySite(t *testing.T, o agenttest.Options) *site {
	t.Helper()
	if o.Version == "" {
		o.Version = "v1.7.0"
	}
	s := &site{fake: agenttest.Start(t, o), store: newStore(t), group: cgroup.Group{Path: "/"}}
	s.agent = s.fake.Remote(t)
	return s
}

// realSite has an agent that acts on this kernel, in a cgroup of the test's
// own, in which the canaries run.
func realSite(t *testing.T, o agenttest.Options) *site {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root: it enforces in a cgroup of its own")
	}
	group := cgrouptest.Make(t)
	o.Version, o.Real, o.Group = "v1.7.0", true, group.Path
	s := &site{fake: agenttest.Start(t, o), store: newStore(t), group: group}
	s.group.Path = "/"
	s.agent = s.fake.Local(t)
	return s
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// apply applies a plan of the paths against what is in force.
func (s *site) apply(t *testing.T, stage string, paths []string) (*store.Generation, error) {
	t.Helper()
	plan := &enforcer.Plan{Enforce: paths, Stage: stage, Cgroup: "/", Families: []string{"inet", "inet6"}}
	if g := s.inForce(t); g != nil {
		plan.Loaded = g.N
	}
	return enforcer.Apply(t.Context(), enforcer.ApplyOptions{Agent: s.agent, Store: s.store, Plan: plan, Group: s.group, Untried: true, Dir: s.dir})
}

func (s *site) mustApply(t *testing.T, stage string, paths []string) *store.Generation {
	t.Helper()
	g, err := s.apply(t, stage, paths)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (s *site) inForce(t *testing.T) *store.Generation {
	t.Helper()
	g, err := enforcer.InForce(t.Context(), s.store)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// listed names the enforcing policies that the agent has, sorted.
func (s *site) listed(t *testing.T) []string {
	t.Helper()
	all, err := s.agent.Policies(t.Context(), tetragon.EnforcePrefix)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, st := range all {
		names = append(names, st.GetName())
	}
	slices.Sort(names)
	return names
}

func (s *site) status(t *testing.T) (*enforcer.Status, error) {
	t.Helper()
	st, err := enforcer.GetStatus(t.Context(), s.agent, s.store)
	if st == nil {
		t.Fatal(err)
	}
	return st, err
}

// manyPaths do not fit into one request to an agent that takes little.
func (s *site) manyPaths() []string {
	s.agent.MaxPolicy = 4 << 10
	var paths []string
	for i := range 21 {
		paths = append(paths, fmt.Sprintf("/nowhere/%s/%05d", strings.Repeat("long", 45), i))
	}
	return paths
}

func TestWhatATetragonTakesAtOnce(t *testing.T) {
	s := awaySite(t, agenttest.Options{})
	for _, c := range []struct {
		bytes int
		taken bool
	}{{s.agent.MaxPolicy, true}, {s.agent.MaxPolicy + 1<<10, false}} {
		_, err := s.agent.Client.AddTracingPolicy(t.Context(), &api.AddTracingPolicyRequest{Yaml: strings.Repeat("#", c.bytes)})
		if got := status.Code(err) != codes.ResourceExhausted; err == nil || got != c.taken {
			t.Errorf("%d bytes: %v; want that they are read: %v", c.bytes, err, c.taken)
		}
	}
}

func TestAGenerationTooLargeForOneRequestIsSeveralPolicies(t *testing.T) {
	s := awaySite(t, agenttest.Options{})
	paths := s.manyPaths()
	first := s.mustApply(t, store.StageEnforce, paths)
	if len(first.Policies) < 2 {
		t.Fatalf("policies %q, want several", first.Policies)
	}
	if diff := cmp.Diff(first.Policies, s.listed(t)); diff != "" {
		t.Errorf("the agent lists (-recorded +listed):\n%s", diff)
	}
	var sent []string
	for _, p := range s.fake.Added() {
		values := p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values
		if len(values) == 0 {
			t.Errorf("policy %s lists nothing", p.Metadata.Name)
		}
		sent = append(sent, values...)
	}
	if diff := cmp.Diff(paths, sent); diff != "" {
		t.Errorf("the policies list (-want +got):\n%s", diff)
	}
	if status, err := s.status(t); err != nil || status.Stage != store.StageEnforce {
		t.Errorf("stage %s, error %v", status.Stage, err)
	}
	for i, name := range first.Policies {
		for range i + 1 {
			s.fake.Kill(name, paths[i], false)
		}
	}
	// All of the second are loaded before one of the first goes.
	second := s.mustApply(t, store.StageEnforce, paths[1:])
	if diff := cmp.Diff(second.Policies, s.listed(t)); diff != "" {
		t.Errorf("the agent lists (-recorded +listed):\n%s", diff)
	}
	status, err := s.status(t)
	if want := []enforcer.KillRow{{Count: 3}}; err != nil || !cmp.Equal(status.Kills, want) {
		t.Errorf("kills %v, error %v; want those of both policies: %v", status.Kills, err, want)
	}
	released, err := enforcer.Release(t.Context(), s.agent, s.store)
	slices.Sort(released.Policies)
	if want := (enforcer.Released{Policies: second.Policies}); err != nil || !cmp.Equal(released, want) || len(s.listed(t)) != 0 {
		t.Errorf("released %+v, error %v, left %q", released, err, s.listed(t))
	}
}

func TestAGenerationThatLoadsByHalfIsTakenOffWhole(t *testing.T) {
	refuse := false
	s := awaySite(t, agenttest.Options{Refuse: func(p *tetragon.Policy) error {
		if refuse && strings.HasSuffix(p.Metadata.Name, "-2") {
			return errors.New("no memory")
		}
		return nil
	}})
	paths := s.manyPaths()
	old := s.mustApply(t, store.StageEnforce, paths)
	refuse = true
	var failed *enforcer.FailedError
	if g, err := s.apply(t, store.StageEnforce, paths[1:]); g != nil || !errors.As(err, &failed) || failed.InForce != old.N || failed.Left != nil || !strings.Contains(err.Error(), "no memory") {
		t.Fatalf("generation %v, error %v; want a *FailedError that leaves generation %d", g, err, old.N)
	}
	if diff := cmp.Diff(old.Policies, s.listed(t)); diff != "" {
		t.Errorf("the agent lists (-old +listed):\n%s", diff)
	}
	if g := s.inForce(t); g == nil || g.N != old.N {
		t.Errorf("in force %+v, want generation %d", g, old.N)
	}
	if _, err := s.status(t); err != nil {
		t.Error(err)
	}
	if err := s.agent.Delete(t.Context(), old.Policies[1]); err != nil {
		t.Fatal(err)
	}
	var drift *enforcer.DriftError
	if _, err := s.status(t); !errors.As(err, &drift) || !strings.Contains(err.Error(), old.Policies[1]+" is gone") {
		t.Errorf("error %v, want that policy %s is gone", err, old.Policies[1])
	}
}

// What --watch cannot load it tries again for as long as it runs: were the list
// kept each time, the database would grow by some megabytes an hour, and be read
// whole each second.
func TestAListThatFailsAgainAndAgainIsKeptOnce(t *testing.T) {
	s := awaySite(t, agenttest.Options{Refuse: func(*tetragon.Policy) error { return errors.New("no memory") }})
	fail := func(paths ...string) {
		t.Helper()
		var failed *enforcer.FailedError
		if _, err := s.apply(t, store.StageEnforce, paths); !errors.As(err, &failed) {
			t.Fatalf("error %v, want a *FailedError", err)
		}
	}
	fail("/nowhere/a", "/nowhere/b")
	fail("/nowhere/a", "/nowhere/b")
	fail("/nowhere/a", "/nowhere/b")
	fail("/nowhere/a")
	var lists []int
	if err := s.store.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.Generations()
		for _, g := range all {
			if g.State != store.StateFailed || g.Stage != store.StageEnforce || g.Ended.IsZero() {
				t.Errorf("generation %d is recorded as %+v, want it failed", g.N, g)
			}
			lists = append(lists, len(g.Paths))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := []int{0, 0, 2, 1}; !slices.Equal(lists, want) {
		t.Errorf("lists of %v paths, want %v", lists, want)
	}
}

// One who learns is given the time to notice what will kill.
func TestWhatIsLoadedIsRecordedInTimeForWhoLearns(t *testing.T) {
	for _, learning := range []bool{false, true} {
		var waited time.Duration
		var s *site
		s = awaySite(t, agenttest.Options{Refuse: func(*tetragon.Policy) error {
			g, err := enforcer.InForce(t.Context(), s.store)
			if err != nil || g == nil {
				return fmt.Errorf("nothing is recorded: %w", err)
			}
			waited = time.Since(g.Since)
			return nil
		}})
		if learning {
			lock, err := s.store.LockLearn()
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Release()
		}
		s.mustApply(t, store.StageEnforce, []string{"/nowhere/tool"})
		if (waited > time.Second) != learning {
			t.Errorf("it was loaded after %s, and a session that learns is %v", waited, learning)
		}
		if s.mustApply(t, store.StageEnforce, []string{"/nowhere/tool"}); waited > time.Second {
			t.Errorf("the same was loaded after %s", waited)
		}
	}
}

func TestAStatusTellsThatARestartedAgentForgotTheGeneration(t *testing.T) {
	s := awaySite(t, agenttest.Options{})
	g := s.mustApply(t, store.StageEnforce, []string{"/nowhere/tool"})
	s.fake.Kill(g.Policies[0], "/nowhere/tool", false)
	if _, err := s.status(t); err != nil {
		t.Fatal(err)
	}
	s.fake.Restart(t, 0)
	s.agent = s.fake.Remote(t)
	status, err := s.status(t)
	var drift *enforcer.DriftError
	if !errors.As(err, &drift) || !strings.Contains(err.Error(), "does not list it: nothing of it is enforced") || status.Stage != enforcer.StageNone {
		t.Errorf("stage %s, error %v; want that nothing is enforced", status.Stage, err)
	}
	if want := []enforcer.KillRow{{Count: 1}}; !cmp.Equal(status.Kills, want) {
		t.Errorf("kills %v, want those of before: %v", status.Kills, want)
	}
}

func TestEachPolicyOfAGenerationIsTried(t *testing.T) {
	s := realSite(t, agenttest.Options{})
	g := s.mustApply(t, store.StageEnforce, s.manyPaths())
	if len(g.Policies) < 2 || g.Tried.IsZero() {
		t.Fatalf("policies %q, tried %v", g.Policies, g.Tried)
	}
	canaries := map[string]bool{}
	for _, p := range s.fake.Added() {
		values := p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values
		canaries[values[len(values)-1]] = true
	}
	if len(canaries) != len(g.Policies) {
		t.Errorf("canaries %v, want one for each of %d policies", canaries, len(g.Policies))
	}
	if status, err := s.status(t); err != nil || len(status.Kills) != 0 {
		t.Errorf("kills %v, error %v; want none but the canaries'", status.Kills, err)
	}
}

func TestMonitorIsPromotedBySwitchingItsPolicies(t *testing.T) {
	paths := []string{"/nowhere/a", "/nowhere/b"}
	for _, c := range []struct {
		name   string
		refuse bool // to switch
		paths  []string
		anew   bool // has policies of its own
	}{
		{"the same list", false, paths, false},
		{"another list", false, paths[1:], true},
		{"an agent that does not switch", true, paths, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := realSite(t, agenttest.Options{RefuseMode: func(string) error {
				if c.refuse {
					return errors.New("not now")
				}
				return nil
			}})
			old := s.mustApply(t, store.StageMonitor, paths)
			g := s.mustApply(t, store.StageEnforce, c.paths)
			if g.N == old.N || g.Tried.IsZero() || slices.Equal(g.Policies, old.Policies) == c.anew {
				t.Errorf("generation %+v after %+v", g, old)
			}
			if diff := cmp.Diff(g.Policies, s.listed(t)); diff != "" {
				t.Errorf("the agent lists (-recorded +listed):\n%s", diff)
			}
			if switched := s.fake.Switched(); (len(switched) > 0) == c.anew {
				t.Errorf("switched %q", switched)
			}
			status, err := s.status(t)
			if err != nil || status.Stage != store.StageEnforce || len(status.Kills)+len(status.WouldKill) != 0 {
				t.Errorf("status %+v, error %v; want enforce, with no kills but the canaries'", status, err)
			}
		})
	}
}

// An agent whose policy does not act once it is switched is found out, the
// policy is switched back, and the new one that is tried instead is taken off.
func TestAPromotionThatDoesNotActLeavesMonitor(t *testing.T) {
	s := realSite(t, agenttest.Options{})
	old := s.mustApply(t, store.StageMonitor, []string{"/nowhere/a"})
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	s.group = root // the agent of the test does not act there
	var failed *enforcer.FailedError
	if _, err := s.apply(t, store.StageEnforce, []string{"/nowhere/a"}); !errors.As(err, &failed) || failed.InForce != old.N || !strings.Contains(err.Error(), "does not act") {
		t.Fatalf("error %v, want that it does not act", err)
	}
	status, err := s.status(t)
	if err != nil || status.Stage != store.StageMonitor || !slices.Equal(s.listed(t), old.Policies) {
		t.Errorf("stage %s, listed %q, error %v; want generation %d in monitor", status.Stage, s.listed(t), err, old.N)
	}
	st, err := s.agent.Policy(t.Context(), old.Policies[0])
	if err != nil || st.GetMode() != api.TracingPolicyMode_TP_MODE_MONITOR {
		t.Errorf("policy %v, error %v; want it in monitor", st, err)
	}
}
