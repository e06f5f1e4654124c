package sensor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"runtime"
	"slices"
	"sort"
	"sync"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	names "profile/internal/tetragon"
)

// Version is what the sensor answers to GetVersion.
const Version = "profile-sensor v0.1.0"

// maxMessage bounds a request: a policy of 100,000 long paths.
const maxMessage = names.SensorRequest

// Config says how a sensor is set up.
type Config struct {
	// Name of the directory of pins: one for each database, so that what is
	// in force for two of them does not meet. Letters, digits, '-' and '_'.
	Name string
	// Node is the name of the machine in events.
	Node string
	// RingBytes is the size of the event ring, a power of two of at least a
	// page; 0 is the usual one.
	RingBytes uint32

	// Kernel is where policies act; nil is this machine's.
	Kernel Kernel

	// Of another kernel, in tests.
	probe  func() (hooks, error)
	missed func(*observer) (uint64, error)
}

// Server is the sensor's side of the gRPC service. Make one with NewServer,
// and serve it with Serve, which at its end takes the audit policies off;
// enforcing policies stay.
type Server struct {
	tetragon.UnimplementedFineGuidanceSensorsServer

	kernel Kernel
	hub    *hub

	mu     sync.Mutex // one change at a time
	audits map[string]*loadedAudit
	nextID uint64
	ids    map[string]uint64
}

// loadedAudit is an audit policy, and the connection whose it is; 0 if it is
// nobody's.
type loadedAudit struct {
	Audit
	owner uint64
}

// NewServer returns a server on a kernel. Nothing is loaded yet.
func NewServer(cfg Config) *Server {
	if cfg.Kernel == nil {
		cfg.Kernel = Machine(cfg)
	}
	return &Server{kernel: cfg.Kernel, hub: newHub(), audits: map[string]*loadedAudit{}, ids: map[string]uint64{}}
}

// Serve answers on a listener until the context ends, and closes the server.
func (s *Server) Serve(ctx context.Context, lis net.Listener) error {
	tracked := &conns{ended: s.hangUp}
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.StatsHandler(tracked))
	tetragon.RegisterFineGuidanceSensorsServer(srv, s)
	stop := context.AfterFunc(ctx, func() {
		s.hub.close()
		srv.GracefulStop()
	})
	defer stop()
	err := srv.Serve(lis)
	srv.Stop()
	tracked.wg.Wait()
	return errors.Join(err, s.Close())
}

// hangUp takes off the audit policies of a learner that has gone.
func (s *Server) hangUp(conn uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.audits {
		if a.owner == conn {
			delete(s.audits, name)
			// There is nobody left to tell; the observer's links are gone with
			// their descriptors whatever the error.
			_ = a.Stop()
		}
	}
	s.hub.own(conn, false)
}

// Close takes the audit policies off. Serve does so by itself.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hub.close()
	var errs []error
	for name, a := range s.audits {
		errs = append(errs, a.Stop())
		delete(s.audits, name)
	}
	// What a process that was killed has left goes with whoever comes next.
	return errors.Join(append(errs, s.kernel.Tidy())...)
}

// GetVersion implements the service.
func (s *Server) GetVersion(context.Context, *tetragon.GetVersionRequest) (*tetragon.GetVersionResponse, error) {
	return &tetragon.GetVersionResponse{Version: Version}, nil
}

// GetInfo implements the service: the probes name the socket hook, the
// families that it sees, and those that it does not.
func (s *Server) GetInfo(context.Context, *tetragon.GetInfoRequest) (*tetragon.GetInfoResponse, error) {
	hook, families, uses, err := s.kernel.Hook()
	if err != nil {
		return nil, failure(err)
	}
	info := &tetragon.GetInfoResponse{Version: Version, Name: names.SensorName,
		Build: &tetragon.GetInfoResponse_BuildInfo{GoVersion: runtime.Version()}} // tetra counts on one
	add := func(name string, on bool) {
		info.Probes = append(info.Probes, &tetragon.GetInfoResponse_Probe{Name: name, Enabled: wrapperspb.Bool(on)})
	}
	add(names.HookProbe+hook, true)
	for _, call := range uses {
		add(names.UseProbe+call, true)
	}
	for _, f := range names.NetworkFamilies() {
		n, _ := names.FamilyNumber(f)
		add(names.FamilyProbe+f, slices.Contains(families, n))
	}
	return info, nil
}

// GetHealth implements the service.
func (s *Server) GetHealth(context.Context, *tetragon.GetHealthStatusRequest) (*tetragon.GetHealthStatusResponse, error) {
	h := &tetragon.HealthStatus{
		Event: tetragon.HealthStatusType_HEALTH_STATUS_TYPE_STATUS, Status: tetragon.HealthStatusResult_HEALTH_STATUS_RUNNING, Details: "running"}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.audits {
		if err := a.Err(); err != nil {
			h.Status, h.Details = tetragon.HealthStatusResult_HEALTH_STATUS_ERROR, fmt.Sprintf("policy %s: %v", name, err)
		}
	}
	return &tetragon.GetHealthStatusResponse{HealthStatus: []*tetragon.HealthStatus{h}}, nil
}

// AddTracingPolicy implements the service. An audit policy with
// names.OptionDetails is a learner's: it is taken off when the connection that
// added it ends, and its events are for that one alone.
func (s *Server) AddTracingPolicy(ctx context.Context, req *tetragon.AddTracingPolicyRequest) (*tetragon.AddTracingPolicyResponse, error) {
	_, families, _, err := s.kernel.Hook()
	if err != nil {
		return nil, failure(err)
	}
	p, err := compile(req.GetYaml(), families)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	loaded, err := s.find(p.Name)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if loaded {
		return nil, status.Errorf(codes.AlreadyExists, "policy %s is loaded already", p.Name)
	}
	if p.Enforcing {
		err = s.kernel.Enforce(p)
	} else {
		err = s.addAudit(ctx, p)
	}
	if err != nil {
		return nil, failure(fmt.Errorf("policy %s: %w", p.Name, err))
	}
	return &tetragon.AddTracingPolicyResponse{}, nil
}

// failure gives an error the code that says whose it is.
func failure(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, fs.ErrNotExist):
		return status.Error(codes.NotFound, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

func (s *Server) addAudit(ctx context.Context, p *Policy) error {
	var owner uint64
	if p.Details {
		owner = connOf(ctx)
	}
	for name, other := range s.audits {
		if other.owner == owner {
			return fmt.Errorf("audit policy %s is loaded already, and this sensor keeps one at a time for a client", name)
		}
	}
	if owner != 0 {
		s.hub.own(owner, true)
	}
	a, err := s.kernel.Audit(p, func(ev *tetragon.GetEventsResponse) { s.hub.publish(owner, ev) })
	if err != nil {
		s.hub.own(owner, false)
		return err
	}
	s.audits[p.Name] = &loadedAudit{a, owner}
	return nil
}

func (s *Server) find(name string) (bool, error) {
	if s.audits[name] != nil {
		return true, nil
	}
	all, err := s.kernel.Enforced()
	return slices.ContainsFunc(all, func(e Enforced) bool { return e.Name == name }), err
}

// DeleteTracingPolicy implements the service. What a learner has loaded goes with
// its connection, and no other can take it off.
func (s *Server) DeleteTracingPolicy(ctx context.Context, req *tetragon.DeleteTracingPolicyRequest) (*tetragon.DeleteTracingPolicyResponse, error) {
	if err := refuseNamespace(req.GetNamespace()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := req.GetName()
	if a := s.audits[name]; a != nil {
		if a.owner != 0 && a.owner != connOf(ctx) {
			return nil, status.Errorf(codes.FailedPrecondition, "policy %s is of a learner that is at work, and goes with it", name)
		}
		delete(s.audits, name)
		s.hub.own(a.owner, false)
		if err := a.Stop(); err != nil {
			return nil, failure(fmt.Errorf("policy %s: %w", name, err))
		}
		return &tetragon.DeleteTracingPolicyResponse{}, nil
	}
	found, err := s.kernel.Remove(name)
	if err == nil && !found {
		return nil, status.Errorf(codes.NotFound, "policy %s is not loaded", name)
	}
	if err != nil {
		return nil, failure(err)
	}
	return &tetragon.DeleteTracingPolicyResponse{}, nil
}

// refuseNamespace refuses to take a policy of a Kubernetes namespace for one of
// this machine that has its name.
func refuseNamespace(name string) error {
	if name == "" {
		return nil
	}
	return refusal("namespace", "%q, and this sensor's policies are in none", name)
}

// ConfigureTracingPolicy implements the service: it switches an enforcing
// policy between its modes at once.
func (s *Server) ConfigureTracingPolicy(_ context.Context, req *tetragon.ConfigureTracingPolicyRequest) (*tetragon.ConfigureTracingPolicyResponse, error) {
	if req.Enable != nil {
		return nil, refusal("enable", "this sensor has no policies that are loaded and disabled: add or delete it")
	}
	if err := refuseNamespace(req.GetNamespace()); err != nil {
		return nil, err
	}
	mode := req.GetMode()
	if mode != tetragon.TracingPolicyMode_TP_MODE_ENFORCE && mode != tetragon.TracingPolicyMode_TP_MODE_MONITOR {
		return nil, refusal("mode", "%s is neither enforce nor monitor", mode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.audits[req.GetName()] != nil {
		return nil, refusal("mode", "policy %s has no enforcing action", req.GetName())
	}
	found, err := s.kernel.SetMode(req.GetName(), mode)
	if err != nil {
		return nil, failure(err)
	}
	if !found {
		return nil, status.Errorf(codes.NotFound, "policy %s is not loaded", req.GetName())
	}
	return &tetragon.ConfigureTracingPolicyResponse{}, nil
}

// ListTracingPolicies implements the service. The info of an enforcing policy
// is a names.PolicyInfo.
func (s *Server) ListTracingPolicies(context.Context, *tetragon.ListTracingPoliciesRequest) (*tetragon.ListTracingPoliciesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*tetragon.TracingPolicyStatus
	for name, a := range s.audits {
		list = append(list, s.auditStatus(name, a))
	}
	all, err := s.kernel.Enforced()
	if err != nil {
		return nil, failure(err)
	}
	for _, e := range all {
		st, err := s.enforcedStatus(e)
		if err != nil {
			return nil, failure(err)
		}
		list = append(list, st)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].GetName() < list[j].GetName() })
	return &tetragon.ListTracingPoliciesResponse{Policies: list}, nil
}

func (s *Server) id(name string) uint64 {
	if s.ids[name] == 0 {
		s.nextID++
		s.ids[name] = s.nextID
	}
	return s.ids[name]
}

func (s *Server) auditStatus(name string, a Audit) *tetragon.TracingPolicyStatus {
	st := &tetragon.TracingPolicyStatus{
		Id: s.id(name), Name: name, Sensors: a.Sensors(),
		State: tetragon.TracingPolicyState_TP_STATE_ENABLED, Mode: tetragon.TracingPolicyMode_TP_MODE_MONITOR_ONLY,
		Stats: &tetragon.TracingPolicyStats{ActionCounters: &tetragon.TracingPolicyActionCounters{Post: a.Posted()}},
	}
	if err := a.Err(); err != nil {
		st.State, st.Error = tetragon.TracingPolicyState_TP_STATE_ERROR, err.Error()
	}
	return st
}

func (s *Server) enforcedStatus(e Enforced) (*tetragon.TracingPolicyStatus, error) {
	st := &tetragon.TracingPolicyStatus{
		Id: s.id(e.Name), Name: e.Name, State: tetragon.TracingPolicyState_TP_STATE_ENABLED, Sensors: e.Programs, Mode: e.Mode,
	}
	if e.Err != nil {
		st.State, st.Error, st.Sensors = tetragon.TracingPolicyState_TP_STATE_ERROR, e.Err.Error(), nil
	}
	counters := &tetragon.TracingPolicyActionCounters{}
	for _, k := range e.Info.Kills {
		counters.Signal += k.Kills
		counters.MonitorSignal += k.Would
	}
	st.Stats = &tetragon.TracingPolicyStats{ActionCounters: counters}
	text, err := json.Marshal(e.Info)
	st.Info = string(text)
	return st, err
}

// GetEvents implements the service: every event from the moment of the call
// on that the filters let through, of which event_set, policy_names and field
// filters are known.
func (s *Server) GetEvents(req *tetragon.GetEventsRequest, stream grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	f, err := readFilters(req)
	if err != nil {
		return err
	}
	sub := s.hub.subscribe(connOf(stream.Context()))
	defer s.hub.unsubscribe(sub)
	// The headers tell the client that it is subscribed.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	return sub.forward(stream.Context(), func(ev *tetragon.GetEventsResponse) error {
		if ev = f.of(ev); ev == nil {
			return nil
		}
		return stream.Send(ev)
	})
}
