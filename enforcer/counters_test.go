package enforcer

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"profile/internal/tetragon"
	"profile/store"
)

func TestWhatACounterTellsOverRestarts(t *testing.T) {
	type asked struct {
		instance string
		count    uint64
		kills    uint64 // that are known then
	}
	for _, c := range []struct {
		name  string
		tried bool
		asked []asked
	}{
		{"the canary alone", true, []asked{{"a", 1, 0}}},
		{"the same goes on", true, []asked{{"a", 1, 0}, {"a", 4, 3}, {"a", 4, 3}}},
		{"the first kill after a restart", true, []asked{{"a", 1, 0}, {"b", 1, 1}, {"b", 2, 2}}},
		{"as many as before", true, []asked{{"a", 3, 2}, {"b", 3, 5}}},
		{"more than before", true, []asked{{"a", 3, 2}, {"b", 7, 9}, {"b", 8, 10}}},
		{"fewer than before", true, []asked{{"a", 6, 5}, {"b", 2, 7}, {"c", 1, 8}}},
		{"none since", true, []asked{{"a", 6, 5}, {"b", 0, 5}, {"b", 1, 6}}},
		{"a restart that the count alone tells", true, []asked{{"", 6, 5}, {"", 2, 7}, {"", 3, 8}}},
		{"a restart that nothing tells", true, []asked{{"", 2, 1}, {"", 3, 2}}},
		{"not known at first", true, []asked{{"", 2, 1}, {"a", 3, 2}, {"b", 3, 5}}},
		{"not known for once", true, []asked{{"a", 2, 1}, {"", 3, 2}, {"a", 3, 2}}},
		{"not known once restarted", true, []asked{{"a", 2, 1}, {"", 3, 2}, {"b", 3, 4}}},
		{"never tried", false, []asked{{"a", 3, 3}, {"b", 3, 6}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var counter store.Counter
			for i, ask := range c.asked {
				var kills uint64
				if kills, counter = readCounter(counter, ask.count, ask.instance, c.tried); kills != ask.kills {
					t.Fatalf("asked the %d. time: %d kills, want %d (%+v)", i+1, kills, ask.kills, counter)
				}
			}
		})
	}
}

// Of an agent whose process is known all is told that could be; where it is not
// always known, never more than that. A canary is no kill.
func TestKillsAreNeverMoreThanThereWere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		exact := rapid.Bool().Draw(rt, "always known")
		count, restarts := uint64(1), 0 // the canary
		var there, read uint64          // kills: of this process, and of those before as far as they were read
		var latest uint64               // of this one, when last read
		var counter store.Counter
		ask := func() {
			instance := strconv.Itoa(restarts)
			if !exact && rapid.Bool().Draw(rt, "unknown") {
				instance = ""
			}
			var kills uint64
			kills, counter = readCounter(counter, count, instance, true)
			if kills > read+there || exact && kills != read+there {
				rt.Fatalf("%d kills are told, there were %d (%+v)", kills, read+there, counter)
			}
			latest = there
		}
		ask()
		rt.Repeat(map[string]func(*rapid.T){
			"kill":    func(*rapid.T) { count, there = count+1, there+1 },
			"restart": func(*rapid.T) { restarts, count, read, there, latest = restarts+1, 0, read+latest, 0, 0 },
			"ask":     func(*rapid.T) { ask() },
		})
	})
}

// A policy that another process loaded, or that one loaded again, counts anew.
func TestEachPolicyHasItsOwnCounter(t *testing.T) {
	agent := &tetragon.Agent{Name: "tetragon"}
	counted := func(name string, id, signal uint64) *api.TracingPolicyStatus {
		return &api.TracingPolicyStatus{Name: name, Id: id, Stats: &api.TracingPolicyStats{ActionCounters: &api.TracingPolicyActionCounters{Signal: signal}}}
	}
	g := store.Generation{Policies: []string{"p", "q"}, Stage: store.StageEnforce, Tried: at(1)}
	for i, c := range []struct {
		instance string
		listed   []*api.TracingPolicyStatus
		want     uint64
	}{
		{"a", []*api.TracingPolicyStatus{counted("p", 3, 2), counted("q", 4, 1)}, 1},
		{"a", []*api.TracingPolicyStatus{counted("q", 4, 3), counted("p", 3, 2)}, 3},
		{"a", []*api.TracingPolicyStatus{counted("q", 5, 3), counted("p", 3, 2)}, 6},
		{"b", []*api.TracingPolicyStatus{counted("q", 5, 1)}, 6}, // p is loaded later
		{"b", []*api.TracingPolicyStatus{counted("q", 5, 1), counted("p", 3, 4)}, 11},
	} {
		kills, counters, err := readKills(agent, listing{c.listed, c.instance}, g)
		if err != nil {
			t.Fatal(err)
		}
		g.Counters = counters
		if g.Kills = raiseKills(g.Kills, kills); len(g.Kills) != 1 || g.Kills[0].Kills != c.want {
			t.Errorf("asked the %d. time: %+v, want %d", i+1, g.Kills, c.want)
		}
	}
	if diff := cmp.Diff([]store.Counter{
		{Policy: "p", Instance: "b policy 3", Count: 4, Before: 1, Anew: true},
		{Policy: "q", Instance: "b policy 5", Count: 1, Before: 5, Anew: true},
	}, g.Counters); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

// overtaken is an agent that lists one policy, after something has happened.
type overtaken struct {
	api.FineGuidanceSensorsClient
	before func() uint64 // gives the count
}

func (l overtaken) ListTracingPolicies(context.Context, *api.ListTracingPoliciesRequest, ...grpc.CallOption) (*api.ListTracingPoliciesResponse, error) {
	return &api.ListTracingPoliciesResponse{Policies: []*api.TracingPolicyStatus{{Name: tetragon.EnforcePrefix + "x-g1",
		Stats: &api.TracingPolicyStats{ActionCounters: &api.TracingPolicyActionCounters{Signal: l.before()}}}}}, nil
}

// What an agent said before another command asked it is lower than what that
// has recorded, and no restart.
func TestAnAnswerThatAnotherHasOvertakenIsNotRecorded(t *testing.T) {
	s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	record := func(count uint64) {
		t.Helper()
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			return tx.PutGeneration(&store.Generation{N: 1, State: store.StateLoaded, Stage: store.StageEnforce, Tried: at(1),
				Policies: []string{tetragon.EnforcePrefix + "x-g1"}, Paths: []string{"/usr/bin/curl"},
				Counters: []store.Counter{{Policy: tetragon.EnforcePrefix + "x-g1", Count: count}}, Kills: []store.Kill{{Kills: count - 1}}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	record(3)
	asked := 0
	agent := &tetragon.Agent{Name: "tetragon", Address: "node:1", Client: overtaken{before: func() uint64 {
		if asked++; asked == 1 {
			record(8) // another command is given a later answer
			return 5
		}
		return 9
	}}}
	if err := CountKills(t.Context(), agent, s); err != nil {
		t.Fatal(err)
	}
	g, err := InForce(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if asked != 2 || len(g.Kills) != 1 || g.Kills[0].Kills != 8 || g.Counters[0].Count != 9 || g.Counters[0].Anew {
		t.Errorf("asked %d times, and recorded are %+v, %+v; want 8 kills, of the second answer", asked, g.Kills, g.Counters)
	}
}

func TestThatAnAgentWasRestartedIsTold(t *testing.T) {
	for _, anew := range []bool{false, true} {
		s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(t.Context(), func(tx *store.Tx) error {
			return tx.PutGeneration(&store.Generation{N: 1, State: store.StateReleased, Stage: store.StageEnforce,
				Policies: []string{"p"}, Counters: []store.Counter{{Policy: "p", Count: 3, Anew: anew}}, Kills: []store.Kill{{Kills: 2}}})
		}); err != nil {
			t.Fatal(err)
		}
		status, err := GetStatus(t.Context(), nil, s)
		if err != nil {
			t.Fatal(err)
		}
		if status.Restarted != anew {
			t.Errorf("restarted %v, want %v", status.Restarted, anew)
		}
	}
}
