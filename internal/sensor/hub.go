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

// hub hands each event to every subscriber that it is for. One that is slow
// loses events, and is told so; it holds up nobody.
//
// A learner's audit policy has an observer of its own, whose events are for
// the connection that added it alone: two learners at one agent would else get
// every exec twice. The events of any other audit policy are for all others.
type hub struct {
	mu     sync.Mutex
	subs   map[*subscriber]bool
	owners map[uint64]bool // connections with an audit policy of their own
	closed bool
}

type subscriber struct {
	conn    uint64
	queue   chan *tetragon.GetEventsResponse
	gone    chan struct{} // closed with the hub
	dropped uint64        // guarded by the hub
}

func newHub() *hub { return &hub{subs: map[*subscriber]bool{}, owners: map[uint64]bool{}} }

// own says whether a connection has an audit policy of its own.
func (h *hub) own(conn uint64, does bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if does {
		h.owners[conn] = true
	} else {
		delete(h.owners, conn)
	}
}

func (h *hub) subscribe(conn uint64) *subscriber {
	s := &subscriber{conn: conn, queue: make(chan *tetragon.GetEventsResponse, queueLength), gone: make(chan struct{})}
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

// publish hands out an event of an audit policy that a connection owns, or
// that nobody does (0).
func (h *hub) publish(owner uint64, ev *tetragon.GetEventsResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if s.conn == owner || owner == 0 && !h.owners[s.conn] {
			s.offer(ev)
		}
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
			// Nobody else takes from the queue: what is there need not be waited for.
			for range len(s.queue) {
				if err := send(<-s.queue); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-s.gone:
			return status.Error(codes.Unavailable, "the sensor is stopping")
		}
	}
}
