// Package agenttest is an agent that a test makes up: the sensor's own server
// over a kernel that does nothing, or over this machine's, dressed as a
// Tetragon of some version, that lies where it is told to. Only tests import
// it. It has no server of its own.
package agenttest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"profile/internal/sensor"
	"profile/internal/tetragon"
)

// Options say what the agent pretends to be.
type Options struct {
	// Version of Tetragon, such as v1.7.0; "" is the sensor itself.
	Version string
	// Kernel acts; nil is one that does nothing.
	Kernel sensor.Kernel
	// Real takes this machine's kernel in place of Kernel.
	Real bool
	// Send is what is sent in place of each event; nil sends it as it is. It is
	// called by one goroutine at a time.
	Send func(*api.GetEventsResponse) []*api.GetEventsResponse
	// Refuse is the error of AddTracingPolicy for a policy; nil refuses none.
	Refuse func(*tetragon.Policy) error
}

// Agent is a running agent. It is safe for concurrent use.
type Agent struct {
	o    Options
	dir  string
	fake *nothing

	mu      sync.Mutex
	srv     *grpc.Server
	served  chan error
	server  *server
	hung    chan struct{} // not nil while it hangs
	extra   uint64        // posted, and never sent
	adds    []*tetragon.Policy
	traced  map[string]bool // policies of tracepoints, which the sensor has none of
	lastReq *api.GetEventsRequest
}

// Start serves an agent until the test ends.
func Start(t testing.TB, o Options) *Agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "agenttest-") // a test's own directory may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{o: o, dir: dir}
	if o.Kernel == nil && !o.Real {
		a.fake = &nothing{enforced: map[string]*sensor.Enforced{}}
		a.o.Kernel = a.fake
	}
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(a.stop(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *Agent) start() error {
	lis, err := net.Listen("unix", a.socket())
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.extra, a.traced = 0, map[string]bool{}
	a.server = &server{Server: sensor.NewServer(sensor.Config{Name: "agenttest", Node: "node", Kernel: a.o.Kernel}), a: a}
	a.srv, a.served = grpc.NewServer(grpc.MaxRecvMsgSize(4<<20)), make(chan error, 1)
	if a.o.Version == "" {
		a.srv = grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	}
	api.RegisterFineGuidanceSensorsServer(a.srv, a.server)
	go func(srv *grpc.Server, served chan error) { served <- srv.Serve(lis) }(a.srv, a.served)
	return nil
}

func (a *Agent) socket() string { return filepath.Join(a.dir, "agent.sock") }

func (a *Agent) stop() error {
	a.mu.Lock()
	srv, served, server := a.srv, a.served, a.server
	a.mu.Unlock()
	a.Hang(false)
	srv.Stop()
	return errors.Join(<-served, server.Close())
}

// Restart ends every connection and forgets the audit policies, as a Tetragon
// that is restarted does; for so long it cannot be reached.
func (a *Agent) Restart(t testing.TB, gone time.Duration) {
	t.Helper()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(gone)
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
}

// Hang makes every call wait until it no longer hangs.
func (a *Agent) Hang(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case on && a.hung == nil:
		a.hung = make(chan struct{})
	case !on && a.hung != nil:
		close(a.hung)
		a.hung = nil
	}
}

func (a *Agent) wait(ctx context.Context) error {
	a.mu.Lock()
	hung := a.hung
	a.mu.Unlock()
	if hung == nil {
		return nil
	}
	select {
	case <-hung:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Publish posts events of the audit policies; the kprobe events among them are
// given the name of the one that is loaded. It reports whether one is.
func (a *Agent) Publish(events ...*api.GetEventsResponse) bool { return a.fake.publish(events) }

// Lose posts events that are never sent.
func (a *Agent) Lose(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.extra += n
}

// Added are the policies that were added, in order, those that were refused
// too.
func (a *Agent) Added() []*tetragon.Policy {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.adds)
}

// Loaded names the audit policies that are loaded, if the kernel does nothing.
func (a *Agent) Loaded() []string { return a.fake.loaded() }

// Request is the last subscription.
func (a *Agent) Request() *api.GetEventsRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lastReq
}

// Local connects as to an agent of this host, Remote as to one of another.
func (a *Agent) Local(t testing.TB) *tetragon.Agent { return a.connect(t, "unix://"+a.socket()) }

// Remote connects as to an agent of another host.
func (a *Agent) Remote(t testing.TB) *tetragon.Agent { return a.connect(t, "node.example:54321") }

// Address is that of Local.
func (a *Agent) Address() string { return "unix://" + a.socket() }

func (a *Agent) connect(t testing.TB, address string) *tetragon.Agent {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+a.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	closer := func() (err error) {
		once.Do(func() { err = conn.Close() })
		return err
	}
	agent, err := tetragon.Connect(t.Context(), address, conn, closer)
	if err != nil {
		t.Fatal(errors.Join(err, closer()))
	}
	t.Cleanup(func() {
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
	})
	return agent
}

// before reports whether the agent is a Tetragon older than a version of the
// form 1.N.
func (a *Agent) before(minor string) bool {
	if a.o.Version == "" {
		return false
	}
	return strings.TrimPrefix(a.o.Version, "v")[:3] < minor
}

// server is the sensor's, with lies.
type server struct {
	*sensor.Server
	a *Agent
}

func unimplemented(what string) error {
	return status.Error(codes.Unimplemented, "unknown method "+what)
}

func (s *server) GetVersion(ctx context.Context, req *api.GetVersionRequest) (*api.GetVersionResponse, error) {
	if err := s.a.wait(ctx); err != nil {
		return nil, err
	}
	if s.a.o.Version != "" {
		return &api.GetVersionResponse{Version: s.a.o.Version}, nil
	}
	return s.Server.GetVersion(ctx, req)
}

func (s *server) GetInfo(ctx context.Context, req *api.GetInfoRequest) (*api.GetInfoResponse, error) {
	switch {
	case s.a.before("1.7"):
		return nil, unimplemented("GetInfo")
	case s.a.o.Version != "":
		return &api.GetInfoResponse{Version: s.a.o.Version, Name: "tetragon"}, nil
	}
	return s.Server.GetInfo(ctx, req)
}

func (s *server) AddTracingPolicy(ctx context.Context, req *api.AddTracingPolicyRequest) (*api.AddTracingPolicyResponse, error) {
	if err := s.a.wait(ctx); err != nil {
		return nil, err
	}
	p, err := tetragon.ParsePolicy([]byte(req.GetYaml()))
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	s.a.mu.Lock()
	s.a.adds = append(s.a.adds, p)
	s.a.mu.Unlock()
	if s.a.o.Refuse != nil {
		if err := s.a.o.Refuse(p); err != nil {
			return nil, status.Error(codes.Unknown, err.Error())
		}
	}
	if s.a.o.Version == "" {
		return s.Server.AddTracingPolicy(ctx, req)
	}
	if len(p.Spec.TracePoints) > 0 {
		s.a.mu.Lock()
		defer s.a.mu.Unlock()
		s.a.traced[p.Metadata.Name] = true
		return &api.AddTracingPolicyResponse{}, nil
	}
	if err := s.a.asTetragon(p); err != nil {
		return nil, err
	}
	text, err := p.Marshal()
	if err != nil {
		return nil, err
	}
	return s.Server.AddTracingPolicy(ctx, &api.AddTracingPolicyRequest{Yaml: string(text)})
}

// vsock is the number of AF_VSOCK.
const vsock = "40"

// asTetragon refuses what the version does, and leaves out what a Tetragon
// takes and the sensor does not.
func (a *Agent) asTetragon(p *tetragon.Policy) error {
	for i := range p.Spec.KProbes {
		for _, arg := range p.Spec.KProbes[i].Args {
			if arg.BTFType != "" && a.before("1.6") {
				return status.Error(codes.Unknown, `unknown field "spec.kprobes[2].args[0].btfType"`)
			}
		}
		for j := range p.Spec.KProbes[i].Selectors {
			s := &p.Spec.KProbes[i].Selectors[j]
			for k := range s.MatchArgs {
				if a.o.Real && s.MatchArgs[k].Index == 0 {
					// A kprobe sees it; the hook of this kernel may not.
					s.MatchArgs[k].Values = slices.DeleteFunc(s.MatchArgs[k].Values, func(v string) bool { return v == vsock })
				}
			}
			s.MatchBinaries = slices.DeleteFunc(s.MatchBinaries, func(b tetragon.MatchBinaries) bool { return b.Operator == "NotIn" })
		}
	}
	return nil
}

func (s *server) DeleteTracingPolicy(ctx context.Context, req *api.DeleteTracingPolicyRequest) (*api.DeleteTracingPolicyResponse, error) {
	s.a.mu.Lock()
	traced := s.a.traced[req.GetName()]
	delete(s.a.traced, req.GetName())
	s.a.mu.Unlock()
	if traced {
		return &api.DeleteTracingPolicyResponse{}, nil
	}
	return s.Server.DeleteTracingPolicy(ctx, req)
}

func (s *server) ListTracingPolicies(ctx context.Context, req *api.ListTracingPoliciesRequest) (*api.ListTracingPoliciesResponse, error) {
	if err := s.a.wait(ctx); err != nil {
		return nil, err
	}
	list, err := s.Server.ListTracingPolicies(ctx, req)
	if err != nil || s.a.o.Version == "" {
		return list, err
	}
	s.a.mu.Lock()
	extra := s.a.extra
	for name := range s.a.traced {
		list.Policies = append(list.Policies, &api.TracingPolicyStatus{
			Name: name, Sensors: []string{"generic_tracepoint"}, State: api.TracingPolicyState_TP_STATE_ENABLED})
	}
	s.a.mu.Unlock()
	for _, st := range list.GetPolicies() {
		st.Info = ""
		switch counters := st.GetStats().GetActionCounters(); {
		case s.a.before("1.6"):
			st.Stats = nil
		case strings.HasPrefix(st.GetName(), tetragon.LearnPrefix):
			counters.Post += extra
		}
		if s.a.before("1.7") && st.GetMode() == api.TracingPolicyMode_TP_MODE_MONITOR_ONLY {
			st.Mode = api.TracingPolicyMode_TP_MODE_ENFORCE
		}
		if s.a.before("1.4") {
			st.Mode = api.TracingPolicyMode_TP_MODE_UNKNOWN
		}
	}
	return list, nil
}

func (s *server) ConfigureTracingPolicy(ctx context.Context, req *api.ConfigureTracingPolicyRequest) (*api.ConfigureTracingPolicyResponse, error) {
	if s.a.before("1.4") {
		return nil, unimplemented("ConfigureTracingPolicy")
	}
	return s.Server.ConfigureTracingPolicy(ctx, req)
}

func (s *server) GetEvents(req *api.GetEventsRequest, stream grpc.ServerStreamingServer[api.GetEventsResponse]) error {
	if err := s.a.wait(stream.Context()); err != nil {
		return err
	}
	s.a.mu.Lock()
	s.a.lastReq = proto.Clone(req).(*api.GetEventsRequest)
	s.a.mu.Unlock()
	if s.a.o.Version == "" {
		return s.Server.GetEvents(req, stream)
	}
	return s.Server.GetEvents(&api.GetEventsRequest{}, &sender{stream, s.a})
}
