package profiler_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

// inPod gives the events of a run in a container of an image.
func inPod(events []*api.GetEventsResponse, image string) []*api.GetEventsResponse {
	pod := &api.Pod{Namespace: "shop", Workload: "till", Container: &api.Container{Image: &api.Image{Name: image}}}
	for _, ev := range events {
		for _, p := range []*api.Process{ev.GetProcessExec().GetProcess(), ev.GetProcessExit().GetProcess(), ev.GetProcessKprobe().GetProcess()} {
			if p != nil {
				p.Pod = pod
			}
		}
	}
	return events
}

func TestAPathThatIsLeftOutIsQuietInNoScope(t *testing.T) {
	t.Parallel()
	var s *store.Store
	_, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		n.both()
		n.proveNext()
		n.narrowed()
		// In a container the same path is another program: its socket is not told.
		n.agent.Publish(inPod(n.run(101, "/usr/bin/net", true), "till:1")...)
		// So the path comes out again.
		n.until("a policy that asks for all paths but another", func(l []string) bool {
			for _, p := range n.agent.Added() {
				if p.Metadata.Name == l[len(l)-1] && len(l) == 3 {
					return !slices.Contains(p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values, "/usr/bin/net")
				}
			}
			return false
		})
		n.runs(102, "/usr/bin/further", true)
		time.Sleep(idle)
	}, hurry, func(o *profiler.Options) { s = o.Store })
	for _, row := range allRows(t, s) {
		if row.Key.Path != "/usr/bin/net" {
			continue
		}
		v := judged(t, session, row)
		switch {
		case row.Key.Scope == store.HostScope && v.Kind != enforcer.Network:
			t.Errorf("on the host: %+v, want network", v)
		case row.Key.Scope != store.HostScope && (v.Kind != enforcer.Unproven || !strings.Contains(strings.Join(v.Reasons, " "), "not asked about")):
			t.Errorf("in %s: %+v, want unproven, since its sockets were not asked about", row.Key.Scope, v)
		}
	}
}

func allRows(t *testing.T, s *store.Store) []store.Evidence {
	t.Helper()
	var all []store.Evidence
	err := s.View(t.Context(), func(tx *store.Tx) error {
		for rows, err := range tx.Executables() {
			if err != nil {
				return err
			}
			all = append(all, rows...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A path has come out of the policy, the one before could not be deleted, and
// the agent is restarted: it is given the one before again, and is not asked for
// what the path does.
func TestAPathThatWentInAgainIsNotQuiet(t *testing.T) {
	t.Parallel()
	var tried, again atomic.Bool // the old one was to be deleted; it was loaded again
	var holding, restarted atomic.Bool
	o := agenttest.Options{Version: "v1.7.0",
		RefuseDelete: func(name string) error {
			if holding.Load() && isNarrowed(name) {
				tried.Store(true)
				return errors.New("not now")
			}
			return nil
		},
		Refuse: func(p *tetragon.Policy) error {
			if restarted.Load() && isNarrowed(p.Metadata.Name) && again.Swap(true) {
				return errors.New("no other for a while")
			}
			return nil
		}}
	var s *store.Store
	_, session, fake := learnFrom(t, o, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		n.both()
		n.proveNext()
		n.narrowed()
		holding.Store(true)
		n.agent.Publish(inPod(n.run(101, "/usr/bin/net", false), "till:1")...) // it comes out
		for i := range uint32(60) {
			if n.runs(200+i, fmt.Sprintf("/usr/bin/new-%d", i), true); tried.Load() {
				break
			}
			time.Sleep(time.Second)
		}
		if !tried.Load() {
			t.Fatal("the policy that leaves it out was never to be deleted")
		}
		holding.Store(false)
		restarted.Store(true)
		n.agent.Restart(t, 100*time.Millisecond)
		n.until("one that leaves paths out", func(l []string) bool { return len(l) > 1 && isNarrowed(l[1]) })
		time.Sleep(2500 * time.Millisecond) // more than by how much times are told wider
		for i := range uint32(60) {
			n.agent.Publish(inPod(n.run(300+i, "/usr/bin/net", true), "till:2")...) // its socket is not told
			if time.Sleep(time.Second); rowIn(t, s, "till:2") != nil {
				return
			}
		}
	}, hurry, func(o *profiler.Options) { s = o.Store })
	added := fake.Added()
	if i := slices.IndexFunc(added, func(p *tetragon.Policy) bool {
		k := p.Spec.KProbes[0].Selectors
		return len(k) == 1 && len(k[0].MatchBinaries) == 1 && !slices.Contains(k[0].MatchBinaries[0].Values, "/usr/bin/net")
	}); i < 0 {
		t.Error("no policy asked for the path again")
	}
	row := rowIn(t, s, "till:2")
	if row == nil {
		t.Fatal("the container was not told of")
	}
	v := judged(t, session, *row)
	if v.Kind != enforcer.Unproven || !strings.Contains(strings.Join(v.Reasons, " "), "not asked about") {
		t.Errorf("in %s: %+v, want unproven, since its sockets were not asked about: %+v", row.Key.Scope, v, session.Narrowed)
	}
}

// rowIn is what was stored of /usr/bin/net in a container of an image.
func rowIn(t *testing.T, s *store.Store, image string) *store.Evidence {
	t.Helper()
	for _, row := range allRows(t, s) {
		if row.Key.Path == "/usr/bin/net" && strings.Contains(row.Key.Scope, image) {
			return &row
		}
	}
	return nil
}
