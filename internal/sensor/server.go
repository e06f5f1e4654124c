package sensor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"sort"
	"sync"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"profile/internal/sensor/bpf"
	names "profile/internal/tetragon"
)

// Version is what the sensor answers to GetVersion.
const Version = "profile-sensor v0.1.0"

// maxMessage bounds a request: a policy of 100,000 long paths.
const maxMessage = 64 << 20

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

	probe func() (hooks, error) // of another kernel, in tests
}

// Server is the sensor's side of the gRPC service. Make one with NewServer,
// serve it with Serve, and Close it: that takes the audit policies off;
// enforcing policies stay.
type Server struct {
	tetragon.UnimplementedFineGuidanceSensorsServer

	cfg Config
	hub *hub

	mu     sync.Mutex // one change at a time
	audits map[string]*audit
	nextID uint64
	ids    map[string]uint64
}

// NewServer returns a server on this machine's kernel. Nothing is loaded yet.
func NewServer(cfg Config) *Server {
	if cfg.RingBytes == 0 {
		cfg.RingBytes = ringBytes
	}
	if cfg.probe == nil {
		cfg.probe = probe
	}
	return &Server{cfg: cfg, hub: newHub(), audits: map[string]*audit{}, ids: map[string]uint64{}}
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
	return errors.Join(err, s.close())
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
			_ = a.stop()
		}
	}
	s.hub.own(conn, false)
}

func (s *Server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hub.close()
	var errs []error
	for name, a := range s.audits {
		errs = append(errs, a.stop())
		delete(s.audits, name)
	}
	// What a process that was killed has left goes with whoever comes next.
	return errors.Join(append(errs, sweep(s.cfg.Name))...)
}

// GetVersion implements the service.
func (s *Server) GetVersion(context.Context, *tetragon.GetVersionRequest) (*tetragon.GetVersionResponse, error) {
	return &tetragon.GetVersionResponse{Version: Version}, nil
}

// GetInfo implements the service: the probes name the socket hook, the
// families that it sees, and those that it does not.
func (s *Server) GetInfo(context.Context, *tetragon.GetInfoRequest) (*tetragon.GetInfoResponse, error) {
	h, err := s.cfg.probe()
	if err != nil {
		return nil, failure(err)
	}
	info := &tetragon.GetInfoResponse{Version: Version, Name: names.SensorName}
	add := func(name string, on bool) {
		info.Probes = append(info.Probes, &tetragon.GetInfoResponse_Probe{Name: name, Enabled: wrapperspb.Bool(on)})
	}
	add(names.HookProbe+h.name, true)
	for _, f := range names.NetworkFamilies() {
		n, _ := names.FamilyNumber(f)
		add(names.FamilyProbe+f, slices.Contains(h.families, n))
	}
	return info, nil
}

// GetHealth implements the service.
func (s *Server) GetHealth(context.Context, *tetragon.GetHealthStatusRequest) (*tetragon.GetHealthStatusResponse, error) {
	h := &tetragon.HealthStatus{
		Event: tetragon.HealthStatusType_HEALTH_STATUS_TYPE_STATUS, Status: tetragon.HealthStatusResult_HEALTH_STATUS_RUNNING}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.audits {
		select {
		case <-a.done:
			h.Status, h.Details = tetragon.HealthStatusResult_HEALTH_STATUS_ERROR, fmt.Sprintf("policy %s: %v", a.policy.Name, a.err)
		default:
		}
	}
	return &tetragon.GetHealthStatusResponse{HealthStatus: []*tetragon.HealthStatus{h}}, nil
}

// AddTracingPolicy implements the service. An audit policy with
// names.OptionDetails is a learner's: it is taken off when the connection that
// added it ends, and its events are for that one alone.
func (s *Server) AddTracingPolicy(ctx context.Context, req *tetragon.AddTracingPolicyRequest) (*tetragon.AddTracingPolicyResponse, error) {
	h, err := s.cfg.probe()
	if err != nil {
		return nil, failure(err)
	}
	p, err := compile(req.GetYaml(), h.families)
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
		err = loadEnforcement(p, h, s.cfg.Name)
	} else {
		err = s.addAudit(ctx, p, h)
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

func (s *Server) addAudit(ctx context.Context, p *Policy, h hooks) error {
	var owner uint64
	if p.Details {
		owner = connOf(ctx)
	}
	for _, other := range s.audits {
		if other.owner == owner {
			return fmt.Errorf("audit policy %s is loaded already, and this sensor keeps one at a time for a client", other.policy.Name)
		}
	}
	if owner != 0 {
		s.hub.own(owner, true)
	}
	a, err := startAudit(p, h, s.cfg, func(ev *tetragon.GetEventsResponse) { s.hub.publish(owner, ev) })
	if err != nil {
		s.hub.own(owner, false)
		return err
	}
	a.owner = owner
	s.audits[p.Name] = a
	return nil
}

func (s *Server) find(name string) (bool, error) {
	if s.audits[name] != nil {
		return true, nil
	}
	found := false
	err := s.eachEnforcement(func(e *enforcement, _ *sharedMaps) error {
		found = found || e.Name == name
		return nil
	})
	return found, err
}

// eachEnforcement calls do for each pinned policy, under the lock that every
// change takes. It is no error that there is none.
func (s *Server) eachEnforcement(do func(*enforcement, *sharedMaps) error) error {
	dir, shared, unlock, err := lockPins(s.cfg.Name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := enforcements(dir, shared)
	for _, e := range all {
		if err = do(e, shared); err != nil {
			break
		}
	}
	return errors.Join(err, unlock())
}

// DeleteTracingPolicy implements the service.
func (s *Server) DeleteTracingPolicy(_ context.Context, req *tetragon.DeleteTracingPolicyRequest) (*tetragon.DeleteTracingPolicyResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := req.GetName()
	if a := s.audits[name]; a != nil {
		delete(s.audits, name)
		s.hub.own(a.owner, false)
		if err := a.stop(); err != nil {
			return nil, failure(fmt.Errorf("policy %s: %w", name, err))
		}
		return &tetragon.DeleteTracingPolicyResponse{}, nil
	}
	found := false
	err := s.eachEnforcement(func(e *enforcement, shared *sharedMaps) error {
		if e.label() != name {
			return nil
		}
		found = true
		return e.remove(shared)
	})
	if err == nil && !found {
		return nil, status.Errorf(codes.NotFound, "policy %s is not loaded", name)
	}
	if err == nil {
		err = sweep(s.cfg.Name)
	}
	if err != nil {
		return nil, failure(err)
	}
	return &tetragon.DeleteTracingPolicyResponse{}, nil
}

// label is the policy's name, or one made up for pins that do not tell it.
func (e *enforcement) label() string {
	if e.Name == "" {
		return fmt.Sprintf("%s%d", names.BrokenPrefix, e.slot)
	}
	return e.Name
}

// ConfigureTracingPolicy implements the service: it switches an enforcing
// policy between its modes at once.
func (s *Server) ConfigureTracingPolicy(_ context.Context, req *tetragon.ConfigureTracingPolicyRequest) (*tetragon.ConfigureTracingPolicyResponse, error) {
	if req.Enable != nil {
		return nil, refusal("enable", "this sensor does not disable a policy: delete it")
	}
	modes := map[tetragon.TracingPolicyMode]bpf.SensorMode{
		tetragon.TracingPolicyMode_TP_MODE_ENFORCE: bpf.SensorModeMODE_ENFORCE,
		tetragon.TracingPolicyMode_TP_MODE_MONITOR: bpf.SensorModeMODE_MONITOR,
	}
	mode, ok := modes[req.GetMode()]
	if !ok {
		return nil, refusal("mode", "%s is neither enforce nor monitor", req.GetMode())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.audits[req.GetName()] != nil {
		return nil, refusal("mode", "policy %s has no enforcing action", req.GetName())
	}
	found := false
	err := s.eachEnforcement(func(e *enforcement, shared *sharedMaps) error {
		if e.Name != req.GetName() {
			return nil
		}
		found = true
		return e.setMode(shared, mode)
	})
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
	for _, a := range s.audits {
		list = append(list, s.auditStatus(a))
	}
	err := s.eachEnforcement(func(e *enforcement, _ *sharedMaps) error {
		st, err := s.enforcementStatus(e)
		list = append(list, st)
		return err
	})
	if err != nil {
		return nil, failure(err)
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

func (s *Server) auditStatus(a *audit) *tetragon.TracingPolicyStatus {
	st := &tetragon.TracingPolicyStatus{
		Id: s.id(a.policy.Name), Name: a.policy.Name, Sensors: []string{a.observer.hooks.name},
		State: tetragon.TracingPolicyState_TP_STATE_ENABLED, Mode: tetragon.TracingPolicyMode_TP_MODE_MONITOR_ONLY,
		Stats: &tetragon.TracingPolicyStats{ActionCounters: &tetragon.TracingPolicyActionCounters{Post: a.posted()}},
	}
	select {
	case <-a.done:
		st.State, st.Error = tetragon.TracingPolicyState_TP_STATE_ERROR, fmt.Sprint(a.err)
	default:
	}
	return st
}

func (s *Server) enforcementStatus(e *enforcement) (*tetragon.TracingPolicyStatus, error) {
	st := &tetragon.TracingPolicyStatus{Id: s.id(e.label()), Name: e.label()}
	if e.err != nil {
		st.State, st.Error = tetragon.TracingPolicyState_TP_STATE_ERROR, e.err.Error()
	} else {
		st.State, st.Sensors = tetragon.TracingPolicyState_TP_STATE_ENABLED, e.Programs
	}
	switch e.mode {
	case bpf.SensorModeMODE_ENFORCE:
		st.Mode = tetragon.TracingPolicyMode_TP_MODE_ENFORCE
	case bpf.SensorModeMODE_MONITOR:
		st.Mode = tetragon.TracingPolicyMode_TP_MODE_MONITOR
	}
	counters := &tetragon.TracingPolicyActionCounters{}
	info := names.PolicyInfo{Cgroup: e.Cgroup, Errors: e.failed}
	for _, t := range e.stats {
		counters.Signal += t.tally.Kills
		counters.MonitorSignal += t.tally.Would
		if t.tally.Kills+t.tally.Would == 0 {
			continue
		}
		kill, would := t.times()
		info.Kills = append(info.Kills, names.PolicyKill{
			Path: []byte(t.path), Kills: t.tally.Kills, Would: t.tally.Would, LastKill: kill, LastWould: would})
	}
	st.Stats = &tetragon.TracingPolicyStats{ActionCounters: counters}
	text, err := json.Marshal(info)
	st.Info = string(text)
	return st, err
}

// GetEvents implements the service: every event from the moment of the call
// on. Filters and aggregation are refused.
func (s *Server) GetEvents(req *tetragon.GetEventsRequest, stream grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	switch {
	case len(req.GetAllowList()) > 0:
		return refusal("allow_list", "this sensor sends every event")
	case len(req.GetDenyList()) > 0:
		return refusal("deny_list", "this sensor sends every event")
	case len(req.GetFieldFilters()) > 0:
		return refusal("field_filters", "this sensor sends every field")
	case req.GetAggregationOptions() != nil:
		return refusal("aggregation_options", "this sensor aggregates nothing")
	}
	sub := s.hub.subscribe(connOf(stream.Context()))
	defer s.hub.unsubscribe(sub)
	// The headers tell the client that it is subscribed.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	return sub.forward(stream.Context(), stream.Send)
}
