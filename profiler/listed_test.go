package profiler_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

// killing is an enforcing policy that lists one path.
func killing(name, path string) *tetragon.Policy {
	p := tetragon.NewPolicy(name)
	p.Spec.Options = []tetragon.Option{{Name: tetragon.OptionMode, Value: "enforce"}}
	p.Spec.KProbes = []tetragon.KProbe{{
		Call: tetragon.CallSocketCreate, Args: []tetragon.Arg{{Index: 0, Type: "int"}, {Index: 1, Type: "int"}, {Index: 2, Type: "int"}, {Index: 3, Type: "int"}},
		Selectors: []tetragon.Selector{{
			MatchBinaries:   []tetragon.MatchBinaries{{Operator: "In", Values: []string{path}}},
			MatchNamespaces: []tetragon.MatchNamespaces{{Namespace: "Pid", Operator: "In", Values: []string{"host_ns"}}},
			MatchArgs:       []tetragon.MatchArgs{{Index: 0, Operator: "Equal", Values: []string{"2", "10"}}, {Index: 3, Operator: "Equal", Values: []string{"0"}}},
			MatchActions:    []tetragon.MatchAction{{Action: "Sigkill"}},
		}},
	}}
	return p
}

func TestASocketOfTheListedIsAnAttemptOnATetragonToo(t *testing.T) {
	const policy = "profile-enforce-0123456789ab-g1"
	for _, c := range []struct {
		name, state string
		loaded      bool // the agent has it
		attempt     bool
	}{
		{"in force", store.StateLoaded, true, true},
		{"being loaded", store.StateLoading, false, true},
		{"forgotten by the agent", store.StateLoaded, false, false},
		{"released", store.StateReleased, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
			agent, s := fake.Remote(t), newStore(t)
			if c.loaded {
				if err := agent.Add(t.Context(), killing(policy, "/usr/bin/listed")); err != nil {
					t.Fatal(err)
				}
			}
			gen := store.Generation{N: 1, Policies: []string{policy}, State: c.state, Stage: store.StageEnforce, Agent: agent.Address,
				Cgroup: "/", Paths: []string{"/usr/bin/listed"}, Families: []string{"inet"}, Since: time.Now()}
			if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutGeneration(&gen) }); err != nil {
				t.Fatal(err)
			}
			l := start(t, profiler.Options{Agent: agent, Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
			n := &node{t: t, agent: fake}
			n.runs(100, "/usr/bin/listed", true)
			n.runs(101, "/usr/bin/other", true)
			time.Sleep(idle)
			l.end(t)
			rows := readRows(t, s)
			row := rows["/usr/bin/listed"]
			if uses := len(row.Files[0].Network); (uses == 0) != c.attempt {
				t.Errorf("%d network uses of the listed: %+v", uses, row)
			}
			if got := row.Attempts; (len(got) == 1 && got[0].Stage == store.StageEnforce && got[0].Count == 1) != c.attempt {
				t.Errorf("attempts %+v", got)
			}
			if len(rows["/usr/bin/other"].Files[0].Network) != 1 {
				t.Errorf("the other: %+v", rows["/usr/bin/other"])
			}
		})
	}
}

// What is listed while a learner learns is looked up every second.
func TestWhatIsListedMeanwhileIsLookedUp(t *testing.T) {
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	agent, s := fake.Remote(t), newStore(t)
	l := start(t, profiler.Options{Agent: agent, Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	gen := store.Generation{N: 1, Policies: []string{"profile-enforce-0123456789ab-g1"}, State: store.StateLoading, Stage: store.StageMonitor,
		Agent: agent.Address, Cgroup: "/", Paths: []string{"/usr/bin/listed"}, Families: []string{"inet"}, Since: time.Now()}
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutGeneration(&gen) }); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, agent: fake}
	var row store.Evidence
	for deadline := time.Now().Add(20 * time.Second); len(row.Attempts) == 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no attempt: %+v", row)
		}
		n.runs(100, "/usr/bin/listed", true)
		row = readRows(t, s)["/usr/bin/listed"]
	}
	l.end(t)
	if row.Attempts[0].Stage != store.StageMonitor {
		t.Errorf("attempts %+v", row.Attempts)
	}
}

// What another database lists, or a cluster's object, is not known here, and
// what it does looks like network use. That much is said.
func TestPoliciesOfOthersAreWarnedOf(t *testing.T) {
	for _, c := range []struct {
		name, policy string
		own          bool
		warns        bool
	}{
		{"a cluster's", "profile-enforce-202601310800", false, true},
		{"one that was printed", "profile-enforce", false, true},
		{"its own", "profile-enforce-0123456789ab-g1", true, false},
		{"of another purpose", "someone-elses", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
			agent, s := fake.Remote(t), newStore(t)
			if err := agent.Add(t.Context(), killing(c.policy, "/usr/bin/listed")); err != nil {
				t.Fatal(err)
			}
			if c.own {
				gen := store.Generation{N: 1, Policies: []string{c.policy}, State: store.StateLoaded, Stage: store.StageEnforce, Agent: agent.Address,
					Cgroup: "/", Paths: []string{"/usr/bin/listed"}, Families: []string{"inet"}, Since: time.Now()}
				if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutGeneration(&gen) }); err != nil {
					t.Fatal(err)
				}
			}
			var log strings.Builder
			l := start(t, profiler.Options{Agent: agent, Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(&log, nil))})
			(&node{t: t, agent: fake}).runs(100, "/usr/bin/other", true)
			time.Sleep(idle)
			l.end(t)
			if said := strings.Contains(log.String(), "not of this database") && strings.Contains(log.String(), c.policy); said != c.warns {
				t.Errorf("said: %s", log.String())
			}
		})
	}
}
