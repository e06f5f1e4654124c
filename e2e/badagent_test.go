package e2e

import (
	"context"
	"errors"
	"maps"
	"net"
	"strconv"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"
	"google.golang.org/grpc"
)

func init() {
	maps.Copy(commands, map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"badagent": cmdBadAgent,
		"newer":    cmdNewer,
	})
}

// badagent silent|empty|versioned|hanging|plain NAME serves an agent at a unix
// socket, whose address becomes $NAME: one that accepts and says nothing, one
// that implements nothing, one that tells its version and implements nothing
// else, or does not answer anything else, and one that has no policies and must
// be sent none.
func cmdBadAgent(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[1] + ".sock")
	lis, err := net.Listen("unix", path)
	ts.Check(err)
	ts.Setenv(args[1], "unix://"+path)
	if args[0] == "silent" {
		ts.Defer(func() { _ = lis.Close() }) // the kernel accepts
		return
	}
	server := grpc.NewServer()
	switch args[0] {
	case "hanging":
		tetragon.RegisterFineGuidanceSensorsServer(server, hangingAgent{})
	case "versioned":
		tetragon.RegisterFineGuidanceSensorsServer(server, versionedAgent{})
	case "plain":
		tetragon.RegisterFineGuidanceSensorsServer(server, plainAgent{})
	case "empty":
	default:
		ts.Fatalf("there is no bad agent %q", args[0])
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	ts.Defer(func() {
		server.Stop()
		ts.Check(<-served)
	})
}

// versionedAgent says that it is a Tetragon, and implements nothing else.
type versionedAgent struct {
	tetragon.UnimplementedFineGuidanceSensorsServer
}

func (versionedAgent) GetVersion(context.Context, *tetragon.GetVersionRequest) (*tetragon.GetVersionResponse, error) {
	return &tetragon.GetVersionResponse{Version: "v1.3.0"}, nil
}

// hangingAgent tells its version, and from then on does not answer.
type hangingAgent struct{ versionedAgent }

func (hangingAgent) ListTracingPolicies(ctx context.Context, _ *tetragon.ListTracingPoliciesRequest) (*tetragon.ListTracingPoliciesResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hangingAgent) AddTracingPolicy(ctx context.Context, _ *tetragon.AddTracingPolicyRequest) (*tetragon.AddTracingPolicyResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hangingAgent) DeleteTracingPolicy(ctx context.Context, _ *tetragon.DeleteTracingPolicyRequest) (*tetragon.DeleteTracingPolicyResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hangingAgent) GetEvents(_ *tetragon.GetEventsRequest, stream grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// newer FILE makes a database that a profile of the future has written.
func cmdNewer(ts *testscript.TestScript, neg bool, args []string) {
	db, err := bbolt.Open(ts.MkAbs(args[0]), 0o600, nil)
	ts.Check(err)
	ts.Check(db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		return meta.Put([]byte("schema"), []byte(strconv.Itoa(99)))
	}))
	ts.Check(db.Close())
}

// plainAgent is a Tetragon that must be sent no policy.
type plainAgent struct{ versionedAgent }

func (plainAgent) ListTracingPolicies(context.Context, *tetragon.ListTracingPoliciesRequest) (*tetragon.ListTracingPoliciesResponse, error) {
	return &tetragon.ListTracingPoliciesResponse{}, nil
}

func (plainAgent) AddTracingPolicy(context.Context, *tetragon.AddTracingPolicyRequest) (*tetragon.AddTracingPolicyResponse, error) {
	return nil, errors.New("the policy was sent")
}

func (plainAgent) GetEvents(_ *tetragon.GetEventsRequest, stream grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}
