package agenttest

import (
	"sync"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"profile/internal/tetragon"
)

// sender sends as a Tetragon does: it does not say when it is subscribed, and
// adds nothing of the sensor's own.
type sender struct {
	grpc.ServerStreamingServer[api.GetEventsResponse]
	a  *Agent
	mu sync.Mutex // a stream takes one event at a time
}

// SendHeader sends none.
func (s *sender) SendHeader(metadata.MD) error { return nil }

// Send sends what the test makes of an event.
func (s *sender) Send(ev *api.GetEventsResponse) error {
	if ev.GetRateLimitInfo() != nil {
		return nil // a Tetragon tells of it in the export file alone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []*api.GetEventsResponse{ev}
	if s.a.o.Send != nil {
		all = s.a.o.Send(ev)
	}
	for _, ev := range all {
		if err := s.ServerStreamingServer.Send(ev); err != nil {
			return err
		}
	}
	return nil
}

// Kill has an enforcing policy count a kill of what was started as binary, if
// the kernel does nothing, and if told says so to whoever listens.
func (a *Agent) Kill(policy, binary string, told bool) {
	a.fake.count(policy, binary)
	if !told {
		return
	}
	ev := &api.GetEventsResponse{Time: timestamppb.Now(), Event: &api.GetEventsResponse_ProcessKprobe{ProcessKprobe: &api.ProcessKprobe{
		Process: &api.Process{Binary: binary}, FunctionName: tetragon.CallSocketCreate,
		PolicyName: policy, Action: api.KprobeAction_KPROBE_ACTION_SIGKILL}}}
	a.mu.Lock()
	defer a.mu.Unlock()
	for to := range a.senders {
		_ = to.Send(ev) // it may be hanging up
	}
}

// Listeners is how many streams are open.
func (a *Agent) Listeners() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.senders)
}
