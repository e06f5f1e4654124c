package profiler_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

// node tells an agent of processes as a Tetragon does, now.
type node struct {
	t     *testing.T
	agent *agenttest.Agent
	store *store.Store // of who learns from it
	mu    sync.Mutex
	n     int
}

func (n *node) process(pid uint32, binary, flags string) *api.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n++
	return &api.Process{
		ExecId: fmt.Sprintf("%d:%d", n.n, pid), Pid: wrapperspb.UInt32(pid), Binary: binary, Cwd: "/", Flags: flags,
		StartTime: timestamppb.Now(),
	}
}

func stamped(ev *api.GetEventsResponse) *api.GetEventsResponse {
	ev.Time, ev.NodeName = timestamppb.Now(), "node"
	return ev
}

func kprobe(call string, p *api.Process, args ...*api.KprobeArgument) *api.GetEventsResponse {
	return stamped(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessKprobe{ProcessKprobe: &api.ProcessKprobe{
		Process: p, FunctionName: call, Args: args, Action: api.KprobeAction_KPROBE_ACTION_POST}}})
}

func intArg(v int32) *api.KprobeArgument {
	return &api.KprobeArgument{Arg: &api.KprobeArgument_IntArg{IntArg: v}}
}

// run gives the events of one run, with a socket or without.
func (n *node) run(pid uint32, path string, socket bool) []*api.GetEventsResponse {
	shell := n.process(pid, "/usr/bin/bash", "execve")
	p := n.process(pid, path, "execve clone")
	events := []*api.GetEventsResponse{
		kprobe(tetragon.CallExec, shell, &api.KprobeArgument{Arg: &api.KprobeArgument_LinuxBinprmArg{LinuxBinprmArg: &api.KprobeLinuxBinprm{Path: path}}}),
		stamped(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExec{ProcessExec: &api.ProcessExec{Process: p}}}),
	}
	if socket {
		events = append(events, kprobe(tetragon.CallSocketCreate, p, intArg(2), intArg(1), intArg(0), intArg(0)))
	}
	return append(events, stamped(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExit{ProcessExit: &api.ProcessExit{Process: p}}}))
}

// runs posts whole runs, one event after the other.
func (n *node) runs(pid uint32, path string, socket bool) {
	n.t.Helper()
	if !n.agent.Publish(n.run(pid, path, socket)...) {
		n.t.Error("no audit policy is loaded")
	}
}

// forks posts the fork of a process that ran before, as any node does sooner or
// later: it shows that forks are told.
func (n *node) forks(pid, child uint32) {
	n.t.Helper()
	shell := n.process(pid, "/usr/bin/bash", "execve")
	// By the kprobe, or by the tracepoint that an older one has in its place.
	n.agent.Publish(kprobe(tetragon.CallFork, shell, intArg(int32(child)), intArg(int32(child))),
		stamped(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessTracepoint{ProcessTracepoint: &api.ProcessTracepoint{
			Process: shell, Subsys: tetragon.SubsystemSched, Event: tetragon.EventFork,
			Args: []*api.KprobeArgument{intArg(int32(pid)), intArg(int32(child))}}}}))
}

// complete waits until whole runs of a path are stored, of which the agent was
// asked whether any of it was lost.
func (n *node) complete(path string, runs uint64) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		row := readRows(n.t, n.store)[path]
		if len(row.Files) > 0 && row.Files[0].Complete >= runs {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: %+v, want %d complete runs", path, row, runs)
		}
	}
}

// learnFrom learns from an agent of another host while do goes on.
func learnFrom(t *testing.T, o agenttest.Options, do func(*node), change ...func(*profiler.Options)) (map[string]store.Evidence, *store.Session, *agenttest.Agent) {
	t.Helper()
	fake := agenttest.Start(t, o)
	s := newStore(t)
	opts := profiler.Options{
		Agent: fake.Remote(t), Store: s, Group: cgroup.Group{Path: "/"},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, c := range change {
		c(&opts)
	}
	l := start(t, opts)
	n := &node{t: t, agent: fake, store: s}
	n.forks(7, 8)
	do(n)
	session := l.end(t)
	if left := fake.Loaded(); len(left) != 0 {
		t.Errorf("policies %q are left", left)
	}
	return readRows(t, s), session, fake
}

func gapsOf(t *testing.T, s *store.Session) string {
	t.Helper()
	text, err := json.Marshal(s.Gaps)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// jumble gives the events in an order of its own.
func jumble(events []*api.GetEventsResponse, order ...int) []*api.GetEventsResponse {
	var out []*api.GetEventsResponse
	for _, i := range order {
		out = append(out, events[i])
	}
	return out
}
