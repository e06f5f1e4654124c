package e2e

import (
	"context"
	"net"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refuser answers as a Tetragon that refuses every policy: all errors of a real
// one are of that code.
type refuser struct {
	api.UnimplementedFineGuidanceSensorsServer
}

func (refuser) GetVersion(context.Context, *api.GetVersionRequest) (*api.GetVersionResponse, error) {
	return &api.GetVersionResponse{Version: "v1.7.0"}, nil
}

func (refuser) ListTracingPolicies(context.Context, *api.ListTracingPoliciesRequest) (*api.ListTracingPoliciesResponse, error) {
	return &api.ListTracingPoliciesResponse{}, nil
}

func (refuser) AddTracingPolicy(context.Context, *api.AddTracingPolicyRequest) (*api.AddTracingPolicyResponse, error) {
	return nil, status.Error(codes.Unknown, "this cluster takes no policies")
}

func (refuser) GetEvents(_ *api.GetEventsRequest, stream grpc.ServerStreamingServer[api.GetEventsResponse]) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// refusing NAME starts an agent that refuses every policy; its address becomes
// $NAME.
func cmdRefusing(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs("agent.sock")
	lis, err := net.Listen("unix", path)
	ts.Check(err)
	srv := grpc.NewServer()
	api.RegisterFineGuidanceSensorsServer(srv, refuser{})
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(lis) }()
	ts.Defer(func() { srv.Stop(); <-done })
	ts.Setenv(args[0], "unix://"+path)
}
