package agenttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"profile/internal/sensor"
	"profile/internal/tetragon"
)

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
	var refused error
	if s.a.o.Refuse != nil {
		refused = s.a.o.Refuse(p)
	}
	switch {
	case s.a.o.Version != "":
		return s.add(ctx, p, refused)
	case refused != nil:
		return nil, status.Error(codes.Unknown, refused.Error())
	}
	return s.Server.AddTracingPolicy(ctx, req)
}

// add loads a policy as a Tetragon does, unless it is refused. An audit policy
// is listed all the same.
func (s *server) add(ctx context.Context, p *tetragon.Policy, refused error) (*api.AddTracingPolicyResponse, error) {
	if refused == nil {
		refused = s.a.asTetragon(p)
	}
	if !acts(p) {
		if err := s.a.audits.add(p, refused); err != nil {
			return nil, status.Error(codes.Unknown, err.Error())
		}
		return &api.AddTracingPolicyResponse{}, s.feed(ctx)
	}
	if refused != nil {
		return nil, status.Error(codes.Unknown, refused.Error())
	}
	text, err := p.Marshal()
	if err != nil {
		return nil, err
	}
	return s.Server.AddTracingPolicy(ctx, &api.AddTracingPolicyRequest{Yaml: string(text)})
}

// unseen are the numbers of the families that a kprobe sees and the hook of this
// machine's kernel may not: AF_VSOCK and AF_SMC.
var unseen = []string{"40", "43"}

// asTetragon refuses what the version does, and leaves out what a Tetragon
// takes and the sensor does not.
func (a *Agent) asTetragon(p *tetragon.Policy) error {
	if _, enforcing := p.Option(tetragon.OptionMode); enforcing && a.o.Real {
		if a.o.Group == "" {
			return errors.New("this test would enforce on the whole machine")
		}
		p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: tetragon.OptionCgroup, Value: a.o.Group})
	}
	for i := range p.Spec.KProbes {
		if len(p.Spec.KProbes[i].Data) > 0 && a.before("1.6") {
			return fmt.Errorf(`unknown field "spec.kprobes[%d].data"`, i)
		}
		for _, arg := range p.Spec.KProbes[i].Args {
			if arg.BTFType != "" && a.before("1.6") {
				return fmt.Errorf(`unknown field "spec.kprobes[%d].args[0].btfType"`, i)
			}
			if (arg.Type == "socket" || arg.Type == "sockaddr") && a.before("1.4") {
				return fmt.Errorf(`spec.kprobes[%d].args[%d].type: Unsupported value: %q`, i, arg.Index, arg.Type)
			}
		}
		for j := range p.Spec.KProbes[i].Selectors {
			s := &p.Spec.KProbes[i].Selectors[j]
			for k := range s.MatchArgs {
				if a.o.Real && s.MatchArgs[k].Index == 0 {
					s.MatchArgs[k].Values = slices.DeleteFunc(s.MatchArgs[k].Values, func(v string) bool { return slices.Contains(unseen, v) })
				}
			}
		}
	}
	return nil
}

func (s *server) DeleteTracingPolicy(ctx context.Context, req *api.DeleteTracingPolicyRequest) (*api.DeleteTracingPolicyResponse, error) {
	if err := s.a.wait(ctx); err != nil {
		return nil, err
	}
	if s.a.o.RefuseDelete != nil {
		if err := s.a.o.RefuseDelete(req.GetName()); err != nil {
			return nil, status.Error(codes.Unknown, err.Error())
		}
	}
	if s.a.audits != nil && s.a.audits.remove(req.GetName()) {
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
	list.Policies = slices.DeleteFunc(list.Policies, func(st *api.TracingPolicyStatus) bool { return st.GetName() == feedName })
	if s.a.fake != nil { // what a test posts at once is one moment
		s.a.fake.mu.Lock()
		defer s.a.fake.mu.Unlock()
	}
	list.Policies = append(list.Policies, s.a.audits.list()...)
	for _, st := range list.GetPolicies() {
		st.Info = ""
		if s.a.before("1.6") || s.a.o.Uncounted {
			st.Stats = nil
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
	if s.a.o.RefuseMode != nil {
		if err := s.a.o.RefuseMode(req.GetName()); err != nil {
			return nil, status.Error(codes.Unknown, err.Error())
		}
	}
	s.a.mu.Lock()
	s.a.modes = append(s.a.modes, req.GetName())
	s.a.mu.Unlock()
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
	to := &sender{ServerStreamingServer: stream, a: s.a}
	s.a.mu.Lock()
	s.a.senders[to] = true
	s.a.mu.Unlock()
	defer func() {
		s.a.mu.Lock()
		defer s.a.mu.Unlock()
		delete(s.a.senders, to)
	}()
	return s.Server.GetEvents(req, to)
}

// forget takes the enforcing policies off.
func (s *server) forget() error {
	list, err := s.Server.ListTracingPolicies(context.Background(), &api.ListTracingPoliciesRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, st := range list.GetPolicies() {
		_, err := s.Server.DeleteTracingPolicy(context.Background(), &api.DeleteTracingPolicyRequest{Name: st.GetName()})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// loadDir loads every file of the policy directory, whatever its name.
func (a *Agent) loadDir() error {
	if a.o.PolicyDir == "" {
		return nil
	}
	files, err := os.ReadDir(a.o.PolicyDir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if file.IsDir() {
			continue // it looks one directory deep; no test of ours does
		}
		text, err := os.ReadFile(filepath.Join(a.o.PolicyDir, file.Name()))
		if err == nil {
			var p *tetragon.Policy
			if p, err = tetragon.ParsePolicy(text); err == nil {
				_, err = a.server.add(context.Background(), p, nil)
			}
		}
		if err != nil {
			return fmt.Errorf("the agent does not start: %s: %w", file.Name(), err)
		}
	}
	return nil
}
