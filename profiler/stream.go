package profiler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
)

// events is the agent's stream while it is read. Once done is closed, err says
// why it ended.
type events struct {
	ready chan struct{} // closed when the agent has answered
	done  chan struct{}
	err   error
}

// listen subscribes and folds events until the context ends or the stream
// does.
func (l *learner) listen(ctx context.Context) *events {
	e := &events{ready: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		err := l.read(ctx, e.ready)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		e.err = fmt.Errorf("read events of agent %s: %w", l.Agent.Address, err)
	}()
	return e
}

func (l *learner) read(ctx context.Context, ready chan<- struct{}) error {
	// Not Agent.Events: the policy must not be loaded before the agent listens.
	stream, err := l.Agent.Client.GetEvents(ctx, &api.GetEventsRequest{})
	if err != nil {
		return err
	}
	if _, err := stream.Header(); err != nil {
		return err
	}
	close(ready)
	for {
		ev, err := stream.Recv()
		if err != nil {
			return err
		}
		l.take(ev)
	}
}

// take folds one event, and wakes who waits for a canary if one came back.
func (l *learner) take(ev *api.GetEventsResponse) {
	l.mu.Lock()
	before := l.fold.Returned()
	l.fold.Event(ev)
	back := l.fold.Returned() != before
	l.mu.Unlock()
	if back {
		select {
		case l.back <- struct{}{}:
		default:
		}
	}
}

// headerWithin is how long to wait for an agent that answers a subscription
// only with its first event, as a Tetragon does.
const headerWithin = 500 * time.Millisecond

// subscribed waits until the agent listens, as far as it can be known.
func (e *events) subscribed(ctx context.Context) error {
	timer := time.NewTimer(headerWithin)
	defer timer.Stop()
	select {
	case <-e.ready:
	case <-timer.C:
	case <-e.done:
		return e.err
	case <-ctx.Done():
		return fmt.Errorf("stopped before the agent listened: %w", ctx.Err())
	}
	return nil
}

func (e *events) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}
