package tetragon

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// stuck says what it is, and answers nothing else.
type stuck struct {
	tetragon.UnimplementedFineGuidanceSensorsServer
}

func (stuck) GetVersion(context.Context, *tetragon.GetVersionRequest) (*tetragon.GetVersionResponse, error) {
	return &tetragon.GetVersionResponse{Version: "v1.7.0"}, nil
}

func (stuck) GetInfo(context.Context, *tetragon.GetInfoRequest) (*tetragon.GetInfoResponse, error) {
	return &tetragon.GetInfoResponse{Name: SensorName, Probes: []*tetragon.GetInfoResponse_Probe{
		{Name: FamilyProbe + "inet", Enabled: wrapperspb.Bool(true)}}}, nil
}

func (stuck) ListTracingPolicies(ctx context.Context, _ *tetragon.ListTracingPoliciesRequest) (*tetragon.ListTracingPoliciesResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (stuck) AddTracingPolicy(ctx context.Context, _ *tetragon.AddTracingPolicyRequest) (*tetragon.AddTracingPolicyResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (stuck) DeleteTracingPolicy(ctx context.Context, _ *tetragon.DeleteTracingPolicyRequest) (*tetragon.DeleteTracingPolicyResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (stuck) GetEvents(_ *tetragon.GetEventsRequest, stream grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// serveAgent serves an agent, and returns its address.
func serveAgent(t *testing.T, agent tetragon.FineGuidanceSensorsServer) string {
	path := filepath.Join(t.TempDir(), "agent.sock")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	tetragon.RegisterFineGuidanceSensorsServer(srv, agent)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "unix://" + path
}

// No call of an agent that hangs goes on for ever, and that it is waited for is
// told meanwhile.
func TestAnAgentThatHangsIsGivenUp(t *testing.T) {
	var mu sync.Mutex
	var said []string
	p := &patience{answer: 400 * time.Millisecond, load: 900 * time.Millisecond, tell: 150 * time.Millisecond, say: func(what string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, what)
	}}
	a, err := dial(t.Context(), serveAgent(t, stuck{}), p)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for name, c := range map[string]struct {
		call    func() error
		limit   time.Duration
		without bool // it is not told of
	}{
		"ListTracingPolicies": {call: func() error { _, err := a.Policies(t.Context(), ""); return err }, limit: p.answer},
		"AddTracingPolicy":    {call: func() error { return a.Add(t.Context(), NewPolicy("x")) }, limit: p.load},
		"DeleteTracingPolicy": {call: func() error { return a.Delete(t.Context(), "x") }, limit: p.answer},
		"GetEvents": {call: func() error {
			_, err := a.Subscribe(t.Context(), &tetragon.GetEventsRequest{})
			return err
		}, limit: p.answer, without: true},
	} {
		t.Run(name, func(t *testing.T) {
			mu.Lock()
			said = nil
			mu.Unlock()
			begun := time.Now()
			err := c.call()
			if took := time.Since(begun); took < c.limit {
				t.Errorf("given up after %s, before %s", took, c.limit)
			}
			if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "no answer to "+name) {
				t.Errorf("the error is %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !c.without && (len(said) == 0 || !strings.Contains(said[0], "waiting for the agent to answer "+name)) {
				t.Errorf("it was told %q", said)
			}
		})
	}
}

// Who gives up first gets his own error.
func TestAnImpatientCallerIsNotToldOfADeadline(t *testing.T) {
	a, err := dial(t.Context(), serveAgent(t, stuck{}), patient(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := a.Policies(ctx, ""); status.Code(err) != codes.Canceled {
		t.Errorf("the error is %v, want one of a call that was cancelled", err)
	}
}
