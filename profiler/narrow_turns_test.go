package profiler_test

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"profile/internal/agenttest"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

// onlySession is what is stored of the one session by now.
func onlySession(t *testing.T, s *store.Store) store.Session {
	t.Helper()
	var all []store.Session
	if err := s.View(t.Context(), func(tx *store.Tx) (err error) {
		all, err = tx.Sessions()
		return err
	}); err != nil || len(all) != 1 {
		t.Fatalf("%d sessions are stored (%v), want one", len(all), err)
	}
	return all[0]
}

// A policy is loaded whole: a learner that ends meanwhile waits for it, and
// takes it off.
func TestALearnerThatEndsLeavesNoPolicyThatWasStillLoading(t *testing.T) {
	t.Parallel()
	entered, release := make(chan bool, 100), make(chan struct{})
	_, _, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0", Refuse: func(p *tetragon.Policy) error {
		if isNarrowed(p.Metadata.Name) {
			entered <- true
			<-release
		}
		return nil
	}}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		<-entered
		time.AfterFunc(4*time.Second, func() { close(release) })
	}, hurry)
	<-release
	time.Sleep(time.Second) // longer than it takes to load it
	if left := fake.Loaded(); len(left) > 0 {
		t.Errorf("policies %q are left", left)
	}
}

// What was loading, or waited for its turn, is gone with the agent that had it.
func TestAnAgentThatRestartsBetweenTwoPoliciesIsNarrowedAllTheSame(t *testing.T) {
	t.Parallel()
	rows, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		n.both()
		n.agent.Restart(t, 100*time.Millisecond)
		n.both()
		n.runs(101, "/usr/bin/net", true)
		n.proveNext()
		n.narrowed()
		time.Sleep(idle)
	}, hurry)
	if len(session.Narrowed) == 0 {
		t.Error("it is not stored that anything was narrowed")
	}
	if got := rows["/usr/bin/net"].Files[0]; len(got.Network) != 1 || got.Network[0].Runs != 2 {
		t.Errorf("net: %+v, want two runs with a socket", got)
	}
}

func TestAPolicyThatCannotBeDeletedIsTriedAgain(t *testing.T) {
	t.Parallel()
	var refused atomic.Int32
	_, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0", RefuseDelete: func(string) error {
		if refused.Add(1) <= 2 {
			return errors.New("busy")
		}
		return nil
	}}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		old, _ := n.both()
		n.proveNext()
		n.narrowed()
		for _, name := range n.agent.Loaded() {
			if name == old {
				t.Errorf("%s is loaded", old)
			}
		}
		time.Sleep(idle)
	}, hurry)
	if n := refused.Load(); n < 3 {
		t.Errorf("it was tried %d times", n)
	}
	if len(session.Gaps) > 0 {
		t.Errorf("gaps %s", gapsOf(t, session))
	}
}

// An agent that counts nothing may hold an event back for half a minute: until
// then the policy that posted it stays.
func TestOfAnAgentThatCountsNothingThePolicyInForceStaysForAWhile(t *testing.T) {
	t.Parallel()
	learnFrom(t, agenttest.Options{Version: "v1.3.0"}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		both := n.until("a narrowed one beside the one in force", func(l []string) bool { return isNarrowed(l[len(l)-1]) })
		for range 8 {
			n.proveNext()
			time.Sleep(time.Second)
		}
		if loaded := n.agent.Loaded(); !slices.Equal(loaded, both) {
			t.Errorf("policies %q are loaded, want still %q", loaded, both)
		}
	}, hurry)
}

// Once the policy in force leaves out what is known, none is loaded until more
// is; and none leaves out more than it has room for.
func TestAPolicyIsLoadedOnlyWhereItSaysSomethingElse(t *testing.T) {
	t.Parallel()
	var paths int
	_, _, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		for i := range uint32(profiler.MaxNarrowed + 50) {
			n.runs(1000+i, fmt.Sprintf("/usr/bin/net-%04d", i), true)
		}
		n.both()
		n.proveNext()
		n.narrowed()
		deadline := time.Now().Add(time.Minute)
		for before := -1; before != len(n.agent.Added()); {
			if time.Now().After(deadline) {
				t.Error("policies are loaded again and again")
				break
			}
			before = len(n.agent.Added())
			for range 3 {
				n.proveNext()
				time.Sleep(profiler.PollEvery)
			}
		}
	}, hurry)
	for _, p := range fake.Added() {
		if isNarrowed(p.Metadata.Name) {
			paths = max(paths, len(p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values))
		}
	}
	if paths != profiler.MaxNarrowed {
		t.Errorf("a policy leaves out %d paths, want %d", paths, profiler.MaxNarrowed)
	}
}
