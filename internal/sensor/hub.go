package sensor

import (
	"context"
	"sync"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// queueLength is how many events wait for one subscriber before they are
// dropped, and counted. An event is a few pointers here: the messages that it
// names are shared.
const queueLength = 1 << 16

// hub hands each event to every subscriber. One that is slow loses events, and
// is told so; it holds up nobody.
type hub struct {
	mu     sync.Mutex
	subs   map[*subscriber]bool
	closed bool
}

type subscriber struct {
	queue   chan *tetragon.GetEventsResponse
	gone    chan struct{} // closed with the hub
	dropped uint64        // guarded by the hub
}

func newHub() *hub { return &hub{subs: map[*subscriber]bool{}} }

func (h *hub) subscribe() *subscriber {
	s := &subscriber{queue: make(chan *tetragon.GetEventsResponse, queueLength), gone: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(s.gone)
	}
	h.subs[s] = true
	return s
}

func (h *hub) unsubscribe(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	for s := range h.subs {
		close(s.gone)
	}
}

func (h *hub) publish(ev *tetragon.GetEventsResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.offer(ev)
	}
}

// offer queues an event, or counts it as dropped. What was dropped is told
// before anything that follows it.
func (s *subscriber) offer(ev *tetragon.GetEventsResponse) {
	if s.dropped > 0 {
		notice := &tetragon.GetEventsResponse{
			Event: &tetragon.GetEventsResponse_RateLimitInfo{RateLimitInfo: &tetragon.RateLimitInfo{NumberOfDroppedProcessEvents: s.dropped}},
			Time:  timestamppb.Now(), NodeName: ev.NodeName,
		}
		select {
		case s.queue <- notice:
			s.dropped = 0
		default:
			s.dropped++
			return
		}
	}
	select {
	case s.queue <- ev:
	default:
		s.dropped++
	}
}

// forward sends until the subscriber or the sensor goes.
func (s *subscriber) forward(ctx context.Context, send func(*tetragon.GetEventsResponse) error) error {
	for {
		select {
		case ev := <-s.queue:
			if err := send(ev); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-s.gone:
			return status.Error(codes.Unavailable, "the sensor is stopping")
		}
	}
}
