package tetragon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
)

// ErrEnded is why no more events come: the agent has ended their stream, as one
// does that is stopped.
var ErrEnded = fmt.Errorf("it has ended their stream: %w", io.ErrUnexpectedEOF)

// Stream is a subscription to an agent's events.
type Stream struct {
	ctx   context.Context // of the subscription; the stream's own ends with the stream
	stop  context.CancelFunc
	agent *Agent
	recv  grpc.ServerStreamingClient[tetragon.GetEventsResponse]
}

// Subscribe opens the stream, which ends with the context. With the embedded
// sensor every event from its return on is sent; another agent does not say
// when it is subscribed, and only an event that comes back does.
func (a *Agent) Subscribe(ctx context.Context, req *tetragon.GetEventsRequest) (*Stream, error) {
	listening, stop := context.WithCancel(ctx)
	recv, err := a.Client.GetEvents(listening, req)
	if err == nil && a.IsSensor() {
		err = a.awaitHeaders(recv, stop)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("subscribe to events of agent %s: %w", a.Address, err)
	}
	return &Stream{ctx: ctx, stop: stop, agent: a, recv: recv}, nil
}

func (a *Agent) awaitHeaders(recv grpc.ClientStream, stop context.CancelFunc) error {
	if a.headersWithin == 0 {
		_, err := recv.Header()
		return err
	}
	timer := time.AfterFunc(a.headersWithin, stop)
	_, err := recv.Header()
	if !timer.Stop() {
		err = late("GetEvents", a.headersWithin)
	}
	return err
}

// Each calls handle for each event, in the order of arrival, until the context
// of the subscription ends, the stream does, or handle fails. A stream that
// the agent ended is ErrEnded. It is called once: the subscription
// ends with it.
func (s *Stream) Each(handle func(*tetragon.GetEventsResponse) error) error {
	defer s.stop()
	for {
		ev, err := s.recv.Recv()
		if err != nil {
			if s.ctx.Err() != nil {
				return s.ctx.Err()
			}
			if errors.Is(err, io.EOF) {
				err = ErrEnded
			}
			return fmt.Errorf("read events of agent %s: %w", s.agent.Address, err)
		}
		if err := handle(ev); err != nil {
			return err
		}
	}
}
