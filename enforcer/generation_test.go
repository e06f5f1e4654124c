package enforcer

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"profile/internal/canary"
	"profile/internal/tetragon"
	"profile/store"
)

func TestOnThisHost(t *testing.T) {
	for address, want := range map[string]bool{
		"unix:///var/run/tetragon/tetragon.sock": true, "unix:rel.sock": true, "localhost:54321": true, "127.0.0.1:54321": true, "127.8.0.1:1": true,
		"[::1]:54321": true, "dns:///localhost:54321": true, "passthrough:///127.0.0.1:1": true,
		"node7:54321": false, "10.0.0.1:54321": false, "[2001:db8::1]:54321": false, "localhost.example.org:54321": false, "dns:///node7:54321": false, "": false,
	} {
		if got := OnThisHost(&tetragon.Agent{Address: address, Name: "tetragon"}); got != want {
			t.Errorf("%q: %v, want %v", address, got, want)
		}
	}
	if !OnThisHost(&tetragon.Agent{Address: tetragon.Embedded, Name: tetragon.SensorName}) {
		t.Error("the embedded sensor is on this host")
	}
}

func TestWhatTheListedCanaryProves(t *testing.T) {
	for _, c := range []struct {
		name   string
		stage  string
		res    canary.Result
		counts bool
		says   string // "" if it proves that the policy acts
	}{
		{"killed", store.StageEnforce, canary.Result{Killed: true}, true, ""},
		{"killed by an agent that does not count", store.StageEnforce, canary.Result{Killed: true}, false, ""},
		{"lived", store.StageEnforce, canary.Result{}, true, "does not act"},
		{"refused", store.StageEnforce, canary.Result{Refused: true}, true, "does not kill"},
		{"lived in monitor", store.StageMonitor, canary.Result{}, true, ""},
		{"killed in monitor", store.StageMonitor, canary.Result{Killed: true}, true, "more than count"},
		{"refused in monitor", store.StageMonitor, canary.Result{Refused: true}, true, "more than count"},
		{"lived in a monitor that does not count", store.StageMonitor, canary.Result{}, false, "does not count"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkListed(c.stage, c.res, c.counts)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}

func TestKillsOfTheSensorLeaveOutCanaries(t *testing.T) {
	info, err := json.Marshal(tetragon.PolicyInfo{Kills: []tetragon.PolicyKill{
		{Path: []byte("/usr/bin/wget"), Would: 1, LastWould: at(2)},
		{Path: []byte("/var/lib/profile/profile.db.canary/profile-canary-listed-1"), Kills: 1},
		{Path: []byte("/usr/bin/curl"), Kills: 3, LastKill: at(1)},
		{Path: []byte("/usr/bin/jq")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	sensor := &tetragon.Agent{Name: tetragon.SensorName}
	g := store.Generation{Policies: []string{"p", "q"}, Paths: []string{"/usr/bin/curl", "/usr/bin/jq", "/usr/bin/wget"}, Stage: store.StageEnforce}
	got, _, err := readKills(sensor, listing{policies: []*api.TracingPolicyStatus{{Name: "p", Info: string(info)}, {Name: "q", Info: string(info)}, {Name: "another", Info: string(info)}}}, g)
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Kill{{Path: "/usr/bin/curl", Kills: 6, LastKill: at(1)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kills (-want +got):\n%s", diff)
	}
	g.Stage = store.StageMonitor
	if got, _, err = readKills(sensor, listing{policies: []*api.TracingPolicyStatus{{Name: "p", Info: string(info)}}}, g); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]store.Kill{{Path: "/usr/bin/wget", Would: 1, LastWould: at(2)}}, got); diff != "" {
		t.Errorf("kills of the stage monitor (-want +got):\n%s", diff)
	}
	if _, _, err := readKills(sensor, listing{policies: []*api.TracingPolicyStatus{{Name: "p", Info: "{"}}}, g); err == nil {
		t.Error("counts that cannot be read are no error")
	}
}

func TestKillsOfAnAgentThatCannotTellExecutablesApart(t *testing.T) {
	names := []string{"p", "q", "r"}
	counted := func(signal, monitor uint64) *api.TracingPolicyStatus {
		return &api.TracingPolicyStatus{Stats: &api.TracingPolicyStats{ActionCounters: &api.TracingPolicyActionCounters{Signal: signal, MonitorSignal: monitor}}}
	}
	all := func(listed ...*api.TracingPolicyStatus) []*api.TracingPolicyStatus { return listed }
	for _, c := range []struct {
		name string
		st   []*api.TracingPolicyStatus
		g    store.Generation
		want []store.Kill
	}{
		{"no counters", all(&api.TracingPolicyStatus{Name: "p"}), store.Generation{}, nil},
		{"one of them was the canary's", all(counted(3, 0)), store.Generation{Stage: store.StageEnforce, Tried: at(1)}, []store.Kill{{Kills: 2}}},
		{"the canary's alone", all(counted(0, 1)), store.Generation{Stage: store.StageMonitor, Tried: at(1)}, nil},
		{"never tried", all(counted(3, 0)), store.Generation{Stage: store.StageEnforce}, []store.Kill{{Kills: 3}}},
		{"promoted from monitor", all(counted(3, 7)), store.Generation{Stage: store.StageEnforce, Tried: at(1)}, []store.Kill{{Kills: 2}}},
		{"in several policies, each with a canary", all(counted(3, 0), counted(1, 0), counted(5, 0)), store.Generation{Stage: store.StageEnforce, Tried: at(1)}, []store.Kill{{Kills: 6}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.g.Policies = names
			for i := range c.st {
				c.st[i].Name = names[i]
			}
			got, _, err := readKills(&tetragon.Agent{Name: "tetragon"}, listing{policies: c.st}, c.g)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("kills (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRecordedKillsNeverGoDown(t *testing.T) {
	recorded := []store.Kill{{Path: "/a", Kills: 5, LastKill: at(5)}, {Path: "/c", Would: 1}}
	got := raiseKills(recorded, []store.Kill{{Path: "/a", Kills: 2, LastKill: at(6)}, {Path: "/b", Kills: 1}, {Path: "/c", Would: 4}})
	want := []store.Kill{{Path: "/a", Kills: 5, LastKill: at(6)}, {Path: "/b", Kills: 1}, {Path: "/c", Would: 4}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kills (-want +got):\n%s", diff)
	}
	if recorded[1].Would != 1 {
		t.Error("the record was changed in place")
	}
}

// A time of the kernel's clock is another each time that it is made one of day.
func TestAKillThatIsCountedAgainKeepsItsTime(t *testing.T) {
	recorded := []store.Kill{{Path: "/a", Kills: 2, LastKill: at(5), Would: 1, LastWould: at(4)}}
	again := []store.Kill{{Path: "/a", Kills: 2, LastKill: at(5).Add(300), Would: 1, LastWould: at(4).Add(300)}}
	if diff := cmp.Diff(recorded, raiseKills(recorded, again)); diff != "" {
		t.Errorf("counted again (-want +got):\n%s", diff)
	}
	more := []store.Kill{{Path: "/a", Kills: 3, LastKill: at(6), Would: 2, LastWould: at(7)}}
	if diff := cmp.Diff(more, raiseKills(recorded, more)); diff != "" {
		t.Errorf("counted on (-want +got):\n%s", diff)
	}
}

func TestWhatTwoGenerationsCountIsCountedOnce(t *testing.T) {
	old := []store.Kill{{Path: "/a", Kills: 5, LastKill: at(5)}, {Path: "/b", Would: 3}, {Path: "/c", Kills: 1}}
	got := lowerKills(old, []store.Kill{{Path: "/a", Kills: 2, LastKill: at(6)}, {Path: "/b", Would: 4}, {Path: "/d", Kills: 9}})
	want := []store.Kill{{Path: "/a", Kills: 3, LastKill: at(5)}, {Path: "/b"}, {Path: "/c", Kills: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPolicyNamesBelongToTheirDatabase(t *testing.T) {
	one, other := database(t, func(*store.Tx) error { return nil }), database(t, func(*store.Tx) error { return nil })
	if policyPrefix(one) == policyPrefix(other) {
		t.Fatalf("both are %s", policyPrefix(one))
	}
	name := policyName(one, 7)
	if !strings.HasPrefix(name, tetragon.EnforcePrefix) || !strings.HasSuffix(name, "-g7") {
		t.Errorf("name %s", name)
	}
	got := highest(one, []*api.TracingPolicyStatus{{Name: policyName(one, 3)}, {Name: policyName(one, 7)}, {Name: policyPrefix(one) + "gx"}, {Name: policyName(one, 8) + "-2"}, {Name: policyName(other, 9)}})
	if got != 8 {
		t.Errorf("highest %d, want 8", got)
	}
}

func TestInForce(t *testing.T) {
	for _, c := range []struct {
		name   string
		states []string
		want   uint64
	}{
		{"nothing", nil, 0},
		{"released", []string{store.StateReplaced, store.StateReleased}, 0},
		{"loaded", []string{store.StateReplaced, store.StateLoaded, store.StateFailed}, 2},
		{"loaded beside what a killed command left", []string{store.StateLoaded, store.StateLoading}, 1},
		{"only what a killed command left", []string{store.StateReleased, store.StateLoading}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := database(t, func(tx *store.Tx) error {
				for i, state := range c.states {
					if err := tx.PutGeneration(&store.Generation{N: uint64(i + 1), State: state}); err != nil {
						return err
					}
				}
				return nil
			})
			g, err := InForce(context.Background(), s)
			if err != nil {
				t.Fatal(err)
			}
			var got uint64
			if g != nil {
				got = g.N
			}
			if got != c.want {
				t.Errorf("generation %d, want %d", got, c.want)
			}
		})
	}
}

func TestStatusOfWhatTheAgentLists(t *testing.T) {
	const policy, second = "profile-enforce-x-g3", "profile-enforce-x-g3-2"
	const (
		unknown, enforce, monitor = api.TracingPolicyMode_TP_MODE_UNKNOWN, api.TracingPolicyMode_TP_MODE_ENFORCE, api.TracingPolicyMode_TP_MODE_MONITOR
		on, broken                = api.TracingPolicyState_TP_STATE_ENABLED, api.TracingPolicyState_TP_STATE_ERROR
	)
	one := func(name string, mode api.TracingPolicyMode, state api.TracingPolicyState) *api.TracingPolicyStatus {
		return &api.TracingPolicyStatus{Name: name, Mode: mode, State: state, Error: "why"}
	}
	listed := func(all ...*api.TracingPolicyStatus) []*api.TracingPolicyStatus { return all }
	recorded := func(state, stage string, more ...string) *store.Generation {
		return &store.Generation{N: 3, Policies: append([]string{policy}, more...), State: state, Stage: stage, Agent: "embedded", Since: at(1)}
	}
	for _, c := range []struct {
		name   string
		g      *store.Generation
		listed []*api.TracingPolicyStatus
		modes  bool
		stage  string
		says   string // "" if all is as recorded
	}{
		{"nothing", nil, nil, true, StageNone, ""},
		{"enforced", recorded(store.StateLoaded, "enforce"), listed(one(policy, enforce, on)), true, "enforce", ""},
		{"monitored", recorded(store.StateLoaded, "monitor"), listed(one(policy, monitor, on)), true, "monitor", ""},
		{"by an agent without modes", recorded(store.StateLoaded, "enforce"), listed(one(policy, unknown, on)), false, "enforce", ""},
		{"gone", recorded(store.StateLoaded, "enforce"), nil, true, StageNone, "nothing of it is enforced"},
		{"broken", recorded(store.StateLoaded, "enforce"), listed(one(policy, enforce, broken)), true, StageNone, "as TP_STATE_ERROR: why"},
		{"loading, as after a restart", recorded(store.StateLoaded, "enforce"),
			listed(one(policy, unknown, api.TracingPolicyState_TP_STATE_LOADING)), true, StageNone, "is still loading its policy " + policy + ", which is not enforced yet"},
		{"another mode", recorded(store.StateLoaded, "enforce"), listed(one(policy, monitor, on)), true, "monitor", "has it in mode monitor"},
		{"a mode that it does not tell", recorded(store.StateLoaded, "enforce"), listed(one(policy, unknown, on)), true, StageNone, "has it in mode none"},
		{"left loading", recorded(store.StateLoading, "enforce"), listed(one(policy, enforce, on)), true, "enforce", "killed while it loaded"},
		{"left loading, and not loaded", recorded(store.StateLoading, "enforce"), nil, true, StageNone, "killed while it loaded"},
		{"of a database that was lost", nil, listed(one(policy, enforce, on)), true, "enforce", policy + " is loaded too"},
		{"of a lost database, and broken", nil, listed(one(policy, enforce, broken)), true, StageNone, policy + " is loaded too"},
		{"another beside it", recorded(store.StateLoaded, "enforce"), listed(one(policy, enforce, on), one("profile-enforce-x-g2", enforce, on)), true,
			"enforce", "profile-enforce-x-g2 is loaded too"},
		{"one that enforces beside it", recorded(store.StateLoaded, "monitor"), listed(one(policy, monitor, on), one("profile-enforce-x-g2", monitor, on), one("profile-enforce-x-g4", enforce, on)), true,
			"enforce", "profile-enforce-x-g2 is loaded too"},
		{"one that only counts beside it", recorded(store.StateLoaded, "enforce"), listed(one(policy, enforce, on), one("profile-enforce-x-g2", monitor, on)), true,
			"enforce", "profile-enforce-x-g2 is loaded too"},
		{"in two policies", recorded(store.StateLoaded, "enforce", second), listed(one(policy, enforce, on), one(second, enforce, on)), true, "enforce", ""},
		{"one of two is gone", recorded(store.StateLoaded, "enforce", second), listed(one(policy, enforce, on)), true, "enforce", "only 1 of its 2 policies: " + second + " is gone"},
		{"one of two in another mode", recorded(store.StateLoaded, "enforce", second), listed(one(policy, monitor, on), one(second, enforce, on)), true, "enforce", "in several modes"},
		{"one of two broken", recorded(store.StateLoaded, "enforce", second), listed(one(policy, enforce, on), one(second, enforce, broken)), true, "enforce", "lists its policy " + second + " as TP_STATE_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status := &Status{Stage: StageNone}
			err := status.compare(c.g, c.listed, c.modes)
			if status.Stage != c.stage {
				t.Errorf("stage %s, want %s", status.Stage, c.stage)
			}
			var drift *DriftError
			if c.says == "" && err != nil || c.says != "" && (!errors.As(err, &drift) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}

func TestStatusOfNothingNeedsNoAgent(t *testing.T) {
	s := database(t, func(tx *store.Tx) error {
		return putAll(tx, nil, []store.Generation{
			{N: 1, State: store.StateReplaced, Kills: []store.Kill{{Path: "/b", Kills: 1, LastKill: at(1)}, {Path: "/a", Would: 2, LastWould: at(3)}}},
			{N: 2, State: store.StateReleased, Kills: []store.Kill{{Path: "/b", Kills: 4, LastKill: at(2)}}}})
	})
	status, err := GetStatus(context.Background(), nil, s)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"schema":1,"stage":"none","generation":0,"since":null,"agent":"",` +
		`"kills":[{"path":"/b","count":5,"last":"2026-03-01T02:00:00Z"}],"would_kill":[{"path":"/a","count":2,"last":"2026-03-01T03:00:00Z"}]}`
	if string(text) != want {
		t.Errorf("%s\nwant %s", text, want)
	}
}

func TestStatusDoesNotGuessWhatAnAgentHolds(t *testing.T) {
	s := database(t, func(tx *store.Tx) error {
		return tx.PutGeneration(&store.Generation{N: 1, State: store.StateLoaded, Agent: "node7:54321"})
	})
	embedded := &tetragon.Agent{Address: tetragon.Embedded, Name: tetragon.SensorName, Client: lister{}}
	for _, agent := range []*tetragon.Agent{nil, embedded} {
		if _, err := GetStatus(context.Background(), agent, s); err == nil || !strings.Contains(err.Error(), "is with agent node7:54321, which was not asked") {
			t.Errorf("asked %v: error %v, want one that names the agent", agent, err)
		}
	}
}

// A socket of which the kernel could not tell, for want of memory, whose it is
// was opened. It is said.
func TestStatusTellsOfWhatCouldNotBeJudged(t *testing.T) {
	s := database(t, func(*store.Tx) error { return nil })
	name := policyName(s, 1)
	if err := s.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutGeneration(&store.Generation{N: 1, State: store.StateLoaded, Stage: store.StageEnforce, Agent: tetragon.Embedded, Policies: []string{name}})
	}); err != nil {
		t.Fatal(err)
	}
	info, err := json.Marshal(tetragon.PolicyInfo{Errors: 2})
	if err != nil {
		t.Fatal(err)
	}
	sensor := &tetragon.Agent{Address: tetragon.Embedded, Name: tetragon.SensorName, Abilities: tetragon.Abilities{Monitor: true},
		Client: lister{listed: []*api.TracingPolicyStatus{
			{Name: name, State: api.TracingPolicyState_TP_STATE_ENABLED, Mode: api.TracingPolicyMode_TP_MODE_ENFORCE, Info: string(info)}}}}
	status, err := GetStatus(t.Context(), sensor, s)
	if err != nil {
		t.Fatal(err)
	}
	if status.Unjudged != 2 {
		t.Errorf("status %+v, want 2 that could not be judged", status)
	}
}

// lister is an agent that lists policies, and does nothing else.
type lister struct {
	api.FineGuidanceSensorsClient
	listed []*api.TracingPolicyStatus
}

func (l lister) ListTracingPolicies(context.Context, *api.ListTracingPoliciesRequest, ...grpc.CallOption) (*api.ListTracingPoliciesResponse, error) {
	return &api.ListTracingPoliciesResponse{Policies: l.listed}, nil
}

func TestApplyRefusesBeforeItAsksTheAgent(t *testing.T) {
	s := database(t, func(*store.Tx) error { return nil })
	away := &tetragon.Agent{Address: "node7:54321", Name: "tetragon"}
	plan := &Plan{Enforce: []string{"/usr/bin/a"}, Cgroup: "/", Stage: store.StageEnforce}
	if _, err := Apply(context.Background(), ApplyOptions{Agent: away, Store: s, Plan: &Plan{Cgroup: "/"}}); !errors.Is(err, ErrEmptyPlan) {
		t.Errorf("an empty plan: %v, want ErrEmptyPlan", err)
	}
	o := ApplyOptions{Agent: away, Store: s, Plan: plan}
	o.Group.Path = "/a"
	if _, err := Apply(context.Background(), o); err == nil || !strings.Contains(err.Error(), "the plan is for the whole machine, not for cgroup /a") {
		t.Errorf("another cgroup: %v", err)
	}
	o.Group.Path = "/"
	if _, err := Apply(context.Background(), o); !errors.Is(err, ErrCannotTry) {
		t.Errorf("another host: %v, want ErrCannotTry", err)
	}
}

func TestFailedErrorSaysWhatIsInForce(t *testing.T) {
	cause := errors.New("it does not act")
	for _, c := range []struct {
		err  *FailedError
		says string
	}{
		{&FailedError{Generation: 1, Err: cause}, "generation 1 failed and was taken off: it does not act; nothing is in force"},
		{&FailedError{Generation: 4, InForce: 3, Err: cause, Left: errors.New("no answer")}, "generation 4 failed: it does not act; it could not be taken off and may be in force: no answer"},
		{&FailedError{Generation: 4, InForce: 3, Err: cause}, "generation 4 failed and was taken off: it does not act; generation 3 stays in force"},
	} {
		if c.err.Error() != c.says || !errors.Is(c.err, cause) {
			t.Errorf("%q, want %q", c.err.Error(), c.says)
		}
	}
}
