package profiler_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"profile/internal/agenttest"
	"profile/internal/canary"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

// What others bring into force while a learner learns is warned of once.
func TestPoliciesOfOthersThatAppearAreWarnedOf(t *testing.T) {
	t.Parallel()
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	agent, s := fake.Remote(t), newStore(t)
	var log strings.Builder
	l := start(t, profiler.Options{Agent: agent, Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	(&node{t: t, agent: fake}).runs(100, "/usr/bin/other", true)
	time.Sleep(profiler.PollEvery + time.Second)
	if err := agent.Add(t.Context(), killing("profile-enforce-else", "/usr/bin/listed")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * profiler.PollEvery)
	l.end(t)
	if n := strings.Count(log.String(), "not of this database"); n != 1 || !strings.Contains(log.String(), "profile-enforce-else") {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

// listing puts a generation into a database that lists one path.
func listing(t *testing.T, s *store.Store, agent *tetragon.Agent, policy, path, state string) {
	t.Helper()
	gen := store.Generation{N: 1, Policies: []string{policy}, State: state, Stage: store.StageEnforce, Agent: agent.Address,
		Cgroup: "/", Paths: []string{path}, Families: []string{"inet"}, Since: time.Now()}
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutGeneration(&gen) }); err != nil {
		t.Fatal(err)
	}
}

// Once a policy has gone, by a release or behind the back of its database, what it
// listed uses the network: also what was taken for an attempt until that was noticed,
// since a service that is restarted may open no other socket for days. What is
// known to have been an attempt stays one.
func TestWhatNoLongerActsHidesNoNetworkUse(t *testing.T) {
	t.Parallel()
	const policy = "profile-enforce-0123456789ab-g1"
	for _, c := range []struct {
		name  string
		state string // that the generation gets
		later bool   // a socket after it was noticed
		runs  uint64
	}{
		{"released", store.StateReleased, false, 1},
		{"released, and again", store.StateReleased, true, 2},
		{"gone", "", false, 1},
		{"gone, and again", "", true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
			agent, s := fake.Remote(t), newStore(t)
			if err := agent.Add(t.Context(), killing(policy, "/usr/bin/listed")); err != nil {
				t.Fatal(err)
			}
			listing(t, s, agent, policy, "/usr/bin/listed", store.StateLoaded)
			l := start(t, profiler.Options{Agent: agent, Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
			n := &node{t: t, agent: fake}
			n.forks(7, 8)
			n.runs(99, "/usr/bin/other", true)
			n.runs(100, "/usr/bin/listed", true) // it acts still
			time.Sleep(2 * profiler.PollEvery)
			if err := agent.Delete(t.Context(), policy); err != nil {
				t.Fatal(err)
			}
			going := n.run(101, "/usr/bin/listed", true)
			n.agent.Publish(going[:3]...)
			if c.state != "" {
				listing(t, s, agent, policy, "/usr/bin/listed", c.state)
			}
			time.Sleep(2 * profiler.PollEvery)
			n.agent.Publish(going[3:]...)
			if c.later {
				n.runs(102, "/usr/bin/listed", true)
			}
			time.Sleep(profiler.PollEvery)
			session := l.end(t)
			row := readRows(t, s)["/usr/bin/listed"]
			if uses := row.Files[0].Network; len(uses) != 1 || uses[0].Runs != c.runs {
				t.Errorf("network use %+v, want %d runs", uses, c.runs)
			}
			if len(row.Attempts) != 1 || len(session.Gaps) != 0 {
				t.Errorf("attempts %+v, gaps %s", row.Attempts, gapsOf(t, session))
			}
		})
	}
}

// An agent loads its policy directory some seconds after it answers: what it
// kills from then on makes no network user.
func TestWhatIsLoadedLateIsListed(t *testing.T) {
	t.Parallel()
	const policy = "profile-enforce-0123456789ab-g1"
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	agent, s := fake.Remote(t), newStore(t)
	listing(t, s, agent, policy, "/usr/bin/listed", store.StateLoaded)
	l := start(t, profiler.Options{Agent: agent, Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	n := &node{t: t, agent: fake}
	n.runs(99, "/usr/bin/other", true)
	time.Sleep(profiler.PollEvery)
	if err := agent.Add(t.Context(), killing(policy, "/usr/bin/listed")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * profiler.PollEvery)
	n.runs(100, "/usr/bin/listed", true)
	time.Sleep(idle)
	l.end(t)
	if row := readRows(t, s)["/usr/bin/listed"]; len(row.Files[0].Network) != 0 || len(row.Attempts) != 1 {
		t.Errorf("%+v, want an attempt", row)
	}
}

// What was lost of the last is found out for half a minute, in which what comes
// is stored as before.
func TestWhatComesWhileASessionEndsIsStored(t *testing.T) {
	t.Parallel()
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	s := newStore(t)
	l := start(t, profiler.Options{Agent: fake.Remote(t), Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	n := &node{t: t, agent: fake}
	n.runs(99, "/usr/bin/net", true)
	time.Sleep(profiler.PollEvery + time.Second)
	fake.Lose(7)
	l.stop()
	time.Sleep(idle)
	n.runs(100, "/usr/bin/late", true)
	time.Sleep(3 * time.Second)
	select {
	case <-l.done:
		t.Fatal("the session has ended")
	default:
	}
	if row, ok := readRows(t, s)["/usr/bin/late"]; !ok || len(row.Files[0].Network) != 1 {
		t.Errorf("row %+v, want the network use", row)
	}
	if one := readSessions(t, s)[0]; !one.Ended.IsZero() || one.End != "" {
		t.Errorf("the session ended %s, %q", one.Ended, one.End)
	}
	<-l.done
	if one := readSessions(t, s)[0]; one.Ended.IsZero() || one.End != store.EndStopped {
		t.Errorf("the session ended %s, %q", one.Ended, one.End)
	}
}

// What one sort of agent has in force the other does not tell of.
func TestWhatAnotherAgentHasInForceIsWarnedOf(t *testing.T) {
	for _, c := range []struct {
		name, version string
		here          bool // it is this agent's
	}{{"a Tetragon's, at the sensor", "", false}, {"the sensor's, at a Tetragon", "v1.7.0", false}, {"the sensor's own", "", true}, {"a Tetragon's own", "v1.7.0", true}} {
		t.Run(c.name, func(t *testing.T) {
			const policy = "profile-enforce-0123456789ab-g1"
			fake := agenttest.Start(t, agenttest.Options{Version: c.version})
			agent, s := fake.Remote(t), newStore(t)
			if c.here {
				if err := agent.Add(t.Context(), killing(policy, "/usr/bin/listed")); err != nil {
					t.Fatal(err)
				}
			}
			listing(t, s, agent, policy, "/usr/bin/listed", store.StateLoaded)
			dir, err := canary.Dir(s.Path())
			if err != nil {
				t.Fatal(err)
			}
			var log strings.Builder
			ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
			defer stop()
			// At the sensor that acts on nothing no canary comes back, which is another matter.
			_, err = profiler.Learn(ctx, profiler.Options{Agent: agent, Store: s, Group: cgroup.Group{Path: "/"}, CanaryDir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil && c.version != "" {
				t.Fatal(err)
			}
			if said := strings.Contains(log.String(), "does not act at this agent"); said == c.here {
				t.Errorf("said: %s", log.String())
			}
		})
	}
}
