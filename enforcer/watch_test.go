package enforcer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.etcd.io/bbolt"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// watching is a Watch under way.
type watching struct {
	stop context.CancelFunc
	done chan error

	mu     sync.Mutex
	told   []string
	status *enforcer.Status // the last
	drift  error
}

// watch watches over a site. stop ends it and gives its error.
func (s *site) watch(t *testing.T) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{stop: cancel, done: make(chan error, 1)}
	o := enforcer.WatchOptions{
		Store: s.store, Untried: true,
		Connect: func(context.Context, string) (agent *tetragon.Agent, err error) {
			if agent, err = s.fake.Dial(t.Context(), s.agent.Address); err == nil {
				agent.MaxPolicy = s.agent.MaxPolicy
			}
			return agent, err
		},
		Group: func(string) (cgroup.Group, error) { return s.group, nil },
		Look: func(st *enforcer.Status, drift error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.status, w.drift = st, drift
		},
		Tell: func(text string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, text)
		},
	}
	go func() { w.done <- enforcer.Watch(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		<-w.done
	})
	return w
}

// end interrupts it.
func (w *watching) end(t *testing.T) {
	t.Helper()
	w.stop()
	err := <-w.done
	w.done <- nil
	if err != nil {
		t.Errorf("watch: %v", err)
	}
}

func (w *watching) says(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.told, func(one string) bool { return strings.Contains(one, text) })
}

// looked reports whether the last look was at a generation, as it was loaded.
func (w *watching) looked(generation uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status != nil && w.status.Generation == generation && w.drift == nil
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// kills are the kills of a status, without times.
func (s *site) kills(t *testing.T) []enforcer.KillRow {
	t.Helper()
	st, _ := s.status(t)
	rows := slices.Clone(st.Kills)
	for i := range rows {
		rows[i].Last = time.Time{}
	}
	return rows
}

func TestWatchLoadsAgainWhatARestartedAgentForgot(t *testing.T) {
	s := awaySite(t, agenttest.Options{})
	first := s.mustApply(t, store.StageEnforce, []string{"/nowhere/a", "/nowhere/b"})
	w := s.watch(t)
	eventually(t, "listening", func() bool { return s.fake.Listeners() > 0 && w.looked(1) })
	for _, kill := range []struct {
		binary string
		told   bool
	}{{"/nowhere/a", true}, {"/nowhere/b", true}, {"/nowhere/b", true}, {"/nowhere/b", false}, {"/some/link", true}} {
		s.fake.Kill(first.Policies[0], kill.binary, kill.told)
	}
	want := []enforcer.KillRow{{Path: "", Count: 2}, {Path: "/nowhere/a", Count: 1}, {Path: "/nowhere/b", Count: 2}}
	eventually(t, "kills by executable", func() bool { return cmp.Equal(want, s.kills(t)) })

	s.fake.Restart(t, 300*time.Millisecond)
	eventually(t, "a new generation", func() bool { return w.looked(2) })
	s.agent = s.fake.Remote(t)
	second := s.inForce(t)
	if diff := cmp.Diff(first, second, cmpopts.IgnoreFields(store.Generation{}, "N", "Policies", "Since", "Kills", "Counters")); diff != "" {
		t.Errorf("the new generation (-old +new):\n%s", diff)
	}
	if diff := cmp.Diff(second.Policies, s.listed(t)); diff != "" {
		t.Errorf("the agent lists (-recorded +listed):\n%s", diff)
	}
	s.fake.Kill(second.Policies[0], "/nowhere/a", true)
	s.fake.Kill(second.Policies[0], "/nowhere/a", false)
	want[0].Count, want[1].Count = 3, 2
	eventually(t, "kills of both", func() bool { return cmp.Equal(want, s.kills(t)) })
	w.end(t)
	if diff := cmp.Diff(second.Policies, s.listed(t)); diff != "" {
		t.Errorf("after the end the agent lists (-recorded +listed):\n%s", diff)
	}
}

func TestWatchTriesWhatItLoadsAgain(t *testing.T) {
	s := realSite(t, agenttest.Options{})
	first := s.mustApply(t, store.StageEnforce, []string{"/nowhere/a"})
	w := s.watch(t)
	eventually(t, "a look", func() bool { return w.looked(1) })
	began := time.Now()
	s.fake.Restart(t, 0)
	eventually(t, "a new generation", func() bool { return w.looked(2) })
	if g := s.inForce(t); !g.Tried.After(began) || g.Tried.Equal(first.Tried) {
		t.Errorf("tried %v, want it after %v", g.Tried, began)
	}
	w.end(t)
}

// An agent that lists the policy as in force after it was restarted, and kills
// nothing, is not taken for one that does.
func TestWatchDoesNotCountWhatNoLongerActs(t *testing.T) {
	s := realSite(t, agenttest.Options{})
	s.mustApply(t, store.StageEnforce, []string{"/nowhere/a"})
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	s.group = root // the agent of the test does not act there
	w := s.watch(t)
	eventually(t, "a look", func() bool { return w.looked(1) })
	s.fake.Restart(t, 0)
	eventually(t, "that it does not act", func() bool {
		return w.says("could not be loaded again: generation 2 failed and was taken off: policy") && w.says("does not act")
	})
	w.end(t)
	s.agent = s.fake.Local(t)
	var drift *enforcer.DriftError
	if st, err := s.status(t); !errors.As(err, &drift) || st.Generation != 1 || st.Stage != enforcer.StageNone {
		t.Errorf("status %+v, error %v; want that generation 1 is lost", st, err)
	}
}

func TestWatchLeavesARestartedAgentItsPolicyDirectory(t *testing.T) {
	s, dir := keptSite(t)
	s.mustApply(t, store.StageEnforce, s.manyPaths())
	w := s.watch(t)
	eventually(t, "a look", func() bool { return w.looked(1) })
	s.fake.Restart(t, 0)
	eventually(t, "a new generation", func() bool { return w.looked(2) })
	w.end(t)
	s.restart(t)
	g := s.inForce(t)
	if got := files(t, dir); !slices.Equal(got, g.Policies) || !slices.Equal(got, s.listed(t)) {
		t.Errorf("the directory has %q and the agent %q, want %q", got, s.listed(t), g.Policies)
	}
}

func TestWatchLoadsAgainWhatWasDeletedBehindItsBack(t *testing.T) {
	s := awaySite(t, agenttest.Options{})
	g := s.mustApply(t, store.StageMonitor, []string{"/nowhere/a"})
	w := s.watch(t)
	eventually(t, "a look", func() bool { return w.looked(1) })
	if err := s.agent.Delete(t.Context(), g.Policies[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new generation", func() bool { return w.looked(2) })
	if st, err := s.status(t); err != nil || st.Stage != store.StageMonitor {
		t.Errorf("stage %s, error %v; want monitor, as it was", st.Stage, err)
	}
	w.end(t)
}

func TestWatchFollowsOtherCommands(t *testing.T) {
	s := awaySite(t, agenttest.Options{})
	s.mustApply(t, store.StageEnforce, []string{"/nowhere/a"})
	w := s.watch(t)
	eventually(t, "a look", func() bool { return w.looked(1) })
	g := s.mustApply(t, store.StageEnforce, []string{"/nowhere/b"})
	eventually(t, "a look at the other's", func() bool { return w.looked(2) })
	s.fake.Kill(g.Policies[0], "/nowhere/b", true)
	eventually(t, "its kill", func() bool { return cmp.Equal([]enforcer.KillRow{{Path: "/nowhere/b", Count: 1}}, s.kills(t)) })
	if _, err := enforcer.Release(t.Context(), s.agent, s.store); err != nil {
		t.Fatal(err)
	}
	if err := <-w.done; err != nil || !w.says("nothing is in force any more") {
		t.Errorf("error %v, told %q; want that nothing is in force", err, w.told)
	}
	w.done <- nil
	if len(s.fake.Added()) != 2 {
		t.Errorf("%d policies were added, want those of the commands alone", len(s.fake.Added()))
	}
}

// Another process may hold the database for long: a large one is compacted, or
// whoever reads it was stopped.
func TestWatchOutlastsABusyDatabase(t *testing.T) {
	t.Parallel()
	s := awaySite(t, agenttest.Options{})
	s.mustApply(t, store.StageEnforce, []string{"/nowhere/a"})
	w := s.watch(t)
	eventually(t, "a look", func() bool { return w.looked(1) })
	holder, err := bbolt.Open(s.store.Path(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(21 * time.Second) // more than it waits for its turn, twice
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	if !w.says("held by another process") {
		t.Errorf("told %q, want that the database is held", w.told)
	}
	g := s.inForce(t)
	if err := s.agent.Delete(t.Context(), g.Policies[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new generation", func() bool { return w.looked(2) })
	w.end(t)
}

func TestWatchNeedsSomethingInForce(t *testing.T) {
	if err := enforcer.Watch(t.Context(), enforcer.WatchOptions{Store: newStore(t)}); !errors.Is(err, enforcer.ErrNothing) {
		t.Errorf("error %v, want ErrNothing", err)
	}
}

func TestOneListenerWritesDownWhatSeveralHear(t *testing.T) {
	s := awaySite(t, agenttest.Options{Version: "v1.3.0"}) // which does not count
	g := s.mustApply(t, store.StageEnforce, []string{"/nowhere/a"})
	ctx, stop := context.WithCancel(t.Context())
	var all []*enforcer.Listener
	for range 3 {
		all = append(all, enforcer.Listen(ctx, s.agent, s.store))
	}
	eventually(t, "three listen", func() bool { return s.fake.Listeners() == 3 })
	record := func() {
		for _, l := range all {
			if err := l.Record(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	record() // the first takes the lock
	s.fake.Kill(g.Policies[0], "/nowhere/a", true)
	s.fake.Kill(g.Policies[0], "/some/link", true)
	s.fake.Kill(g.Policies[0], "/x/profile-canary-listed-1", true)
	want := []enforcer.KillRow{{Path: "", Count: 1}, {Path: "/nowhere/a", Count: 1}}
	eventually(t, "the kills", func() bool { record(); return cmp.Equal(want, s.kills(t)) })
	time.Sleep(100 * time.Millisecond)
	stop()
	for _, l := range all {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := s.kills(t); !cmp.Equal(want, got) {
		t.Errorf("kills %v, want %v", got, want)
	}
	again := enforcer.Listen(ctx, s.agent, s.store)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
