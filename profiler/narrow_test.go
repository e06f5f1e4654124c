package profiler_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

func isNarrowed(name string) bool { return strings.Contains(name, tetragon.NarrowedSuffix) }

// until waits until the loaded policies are as they should be.
func (n *node) until(what string, is func(loaded []string) bool) []string {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		loaded := n.agent.Loaded()
		if is(loaded) {
			return loaded
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("policies %q are loaded, want %s", loaded, what)
		}
	}
}

// both waits until two policies for sockets are loaded, and gives their names.
func (n *node) both() (old, next string) {
	n.t.Helper()
	loaded := n.until("a narrowed one beside the one in force", func(l []string) bool { return len(l) == 3 && isNarrowed(l[2]) })
	return loaded[1], loaded[2]
}

// narrowed waits until the policy that asks for all sockets is gone.
func (n *node) narrowed() {
	n.t.Helper()
	n.until("narrowed ones alone", func(l []string) bool {
		return len(l) > 1 && !slices.ContainsFunc(l[1:], func(name string) bool { return !isNarrowed(name) })
	})
}

// proveNext lets the next policy tell something.
func (n *node) proveNext() { n.runs(90, "/usr/bin/other", true) }

func judged(t *testing.T, s *store.Session, row store.Evidence) enforcer.Verdict {
	t.Helper()
	v, err := enforcer.Judge([]store.Evidence{row}, map[string]store.Session{s.ID: *s}, enforcer.Thresholds{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func hurry(o *profiler.Options) { o.Hurry() }

func TestLearningNarrowsItself(t *testing.T) {
	t.Parallel()
	rows, session, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		n.runs(101, "/usr/bin/quiet", false)
		n.both()
		// Both policies tell of these: each run counts once.
		for pid := range uint32(5) {
			n.runs(110+pid, "/usr/bin/net", true)
			n.runs(120+pid, "/usr/bin/quiet", false)
			n.runs(130+pid, "/usr/bin/late", true)
		}
		n.narrowed()
		for pid := range uint32(5) {
			n.runs(140+pid, "/usr/bin/net", true) // not told any more
			n.runs(150+pid, "/usr/bin/quiet", false)
		}
		n.runs(160, "/usr/bin/later", true)
		time.Sleep(idle)
	}, hurry)
	if len(session.Gaps) != 0 || len(session.Windows) != 1 {
		t.Errorf("session %+v, want one window and no gap", session)
	}
	if len(session.Narrowed) == 0 || session.Narrowed[0].Path == "/usr/bin/quiet" {
		t.Errorf("narrowed %+v", session.Narrowed)
	}
	for path, want := range map[string]struct{ seen, network uint64 }{
		"/usr/bin/net": {11, 6}, "/usr/bin/late": {5, 5}, "/usr/bin/later": {1, 1}, "/usr/bin/quiet": {11, 0},
	} {
		files := rows[path].Files
		if len(files) != 1 || files[0].Seen != want.seen || files[0].Complete != want.seen || files[0].Clean != want.seen {
			t.Errorf("%s: %+v, want %d runs, all of them complete", path, files, want.seen)
			continue
		}
		var runs uint64
		for _, u := range files[0].Network {
			runs += u.Runs
		}
		if runs != want.network {
			t.Errorf("%s: %d runs with sockets, want %d", path, runs, want.network)
		}
	}
	if v := judged(t, session, rows["/usr/bin/net"]); v.Kind != enforcer.Network || !v.AtLeast {
		t.Errorf("net: %+v, want network, in at least so many runs", v)
	}
	if v := judged(t, session, rows["/usr/bin/quiet"]); v.Kind != enforcer.Quiet || v.AtLeast {
		t.Errorf("quiet: %+v", v)
	}
	for _, p := range fake.Added() {
		for _, k := range p.Spec.KProbes {
			sockets := k.Call == tetragon.CallSocketCreate || k.Call == tetragon.CallConnect || k.Call == tetragon.CallBind
			if sockets == (p.Metadata.Name == profiler.PolicyName(session.ID)) {
				t.Errorf("policy %s has the hook %s", p.Metadata.Name, k.Call)
			}
		}
	}
}

func TestALossWhileAPolicyTakesAnothersPlaceIsAGap(t *testing.T) {
	t.Parallel()
	for name, lossy := range map[string]func(old, next string) string{
		"of the one that goes": func(old, _ string) string { return old },
		"of the next":          func(_, next string) string { return next },
		"of neither, but of the one for processes": func(old, _ string) string {
			return strings.TrimSuffix(old, tetragon.SocketsSuffix)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits as long as a Tetragon may hold events back
			_, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
				n.runs(100, "/usr/bin/net", true)
				n.agent.LoseOf(lossy(n.both()), 5)
				n.proveNext()
				n.narrowed()
				time.Sleep(idle)
			}, hurry)
			var lost uint64
			for _, g := range session.Gaps {
				lost += g.Count
			}
			if lost != 5 {
				t.Errorf("gaps %s, want 5 lost", gapsOf(t, session))
			}
		})
	}
}

func TestAPolicyThatCannotBeLoadedLeavesTheOneInForce(t *testing.T) {
	t.Parallel()
	tried := make(chan bool, 100)
	rows, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0", Refuse: func(p *tetragon.Policy) error {
		if isNarrowed(p.Metadata.Name) {
			tried <- true
			return errors.New("no room")
		}
		return nil
	}}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		for range 2 {
			<-tried
		}
		n.runs(101, "/usr/bin/net", true)
		time.Sleep(idle)
	}, hurry)
	if len(session.Narrowed) != 0 || len(session.Gaps) != 0 {
		t.Errorf("session %+v, want that nothing was narrowed, and no gap", session)
	}
	if got := rows["/usr/bin/net"].Files[0]; len(got.Network) != 1 || got.Network[0].Runs != 2 {
		t.Errorf("net: %+v, want two runs with a socket", got)
	}
}

func TestAPolicyThatTellsNothingTakesNoOthersPlace(t *testing.T) {
	t.Parallel()
	rows, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0", Send: func(ev *api.GetEventsResponse) []*api.GetEventsResponse {
		if isNarrowed(ev.GetProcessKprobe().GetPolicyName()) {
			return nil
		}
		return []*api.GetEventsResponse{ev}
	}}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		n.both()
		for pid := range uint32(4) {
			n.runs(110+pid, "/usr/bin/net", true)
			n.runs(120+pid, "/usr/bin/second", true)
			time.Sleep(time.Second)
		}
		n.both()
	}, hurry)
	if len(session.Narrowed) != 0 {
		t.Errorf("narrowed %+v, and the policy in force asked for all", session.Narrowed)
	}
	if got := rows["/usr/bin/net"].Files[0]; got.Network[0].Runs != 5 {
		t.Errorf("net: %+v, want five runs with a socket", got)
	}
	if len(session.Gaps) == 0 {
		t.Error("no gap, and what the next policy posted was lost")
	}
}

func TestAPolicyThatToldOfUsesAloneTakesNoOthersPlace(t *testing.T) {
	t.Parallel()
	var s *store.Store
	_, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		_, next := n.both()
		for pid := range uint32(10) { // longer than it takes to know that nothing was lost
			n.connects(110+pid, "/usr/bin/handed", false, "192.0.2.1:443")
			time.Sleep(500 * time.Millisecond)
		}
		if loaded := n.agent.Loaded(); len(loaded) != 3 || loaded[2] != next {
			t.Errorf("policies %q are loaded, and the next one has told of no socket", loaded)
		}
		if narrowed := onlySession(t, s).Narrowed; len(narrowed) > 0 {
			t.Errorf("it is stored that %v is asked for no longer, and the policy in force asks for all", narrowed)
		}
		n.proveNext()
		n.narrowed()
	}, hurry, func(o *profiler.Options) { s = o.Store })
	if len(session.Narrowed) == 0 || len(session.Gaps) != 0 {
		t.Errorf("session %+v, want one that was narrowed at last, without a gap", session)
	}
}

func TestAnAgentThatRestartsIsNarrowedAsBefore(t *testing.T) {
	t.Parallel()
	rows, session, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		n.both()
		n.proveNext()
		n.narrowed()
		time.Sleep(time.Second) // the learner is yet to be told that the other is deleted
		n.agent.Restart(t, 100*time.Millisecond)
		n.narrowed()
		n.runs(101, "/usr/bin/net", true)
		n.runs(102, "/usr/bin/new", true)
		time.Sleep(idle)
	}, hurry)
	added := fake.Added()
	if last := added[len(added)-1]; !isNarrowed(last.Metadata.Name) {
		t.Errorf("policy %s was loaded last, want a narrowed one", last.Metadata.Name)
	}
	if v := judged(t, session, rows["/usr/bin/net"]); v.Kind != enforcer.Network || !v.AtLeast {
		t.Errorf("net: %+v", v)
	}
	if got := rows["/usr/bin/new"].Files[0]; len(got.Network) != 1 {
		t.Errorf("new: %+v, want a network user", got)
	}
}

func TestPathsThatNoPolicyCanNameAreAskedForOn(t *testing.T) {
	t.Parallel()
	_, _, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		for i, path := range []string{"/usr/bin/net", "/usr/bin/" + strings.Repeat("x", 250), "/usr/bin/odd\uFFFDname", "memfd:", "/usr/bin/a: b"} {
			n.runs(100+uint32(i), path, true)
		}
		n.both()
		n.proveNext()
		n.narrowed()
	}, hurry)
	want := "[/usr/bin/a: b /usr/bin/net]"
	for _, p := range fake.Added() {
		if isNarrowed(p.Metadata.Name) {
			if got := fmt.Sprint(p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values); got != want {
				t.Errorf("left out: %s, want %s", got, want)
			}
			break
		}
	}
}

func TestPoliciesOfAKilledLearnerAreDeletedByTheNext(t *testing.T) {
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	agent, s := fake.Remote(t), newStore(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	dead := store.Session{ID: "20260102t030405z-abcdef", Started: at}
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutSession(&dead) }); err != nil {
		t.Fatal(err)
	}
	others := profiler.ProcessPolicy("20260102t030405z-fedcba") // of another database
	for _, p := range []*tetragon.Policy{
		profiler.ProcessPolicy(dead.ID), profiler.ForkPolicy(dead.ID), profiler.SocketPolicy(dead.ID, agent, 1, nil),
		profiler.SocketPolicy(dead.ID, agent, 2, []string{"/usr/bin/net"}), others,
	} {
		if err := agent.Add(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	o := options(t, agent, s, cgroup.Group{Path: "/"})
	start(t, o).end(t)
	if left := fake.Loaded(); len(left) != 1 || left[0] != others.Metadata.Name {
		t.Errorf("policies %q are left, want the other database's alone", left)
	}
}
