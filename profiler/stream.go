package profiler

import (
	"context"
	"fmt"
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
	agent, request := l.Agent, EventsRequest(l.session.ID, l.Agent)
	l.mu.Lock()
	l.heard = false
	l.mu.Unlock()
	go func() {
		defer close(e.done)
		stream, err := agent.Subscribe(ctx, request)
		if err == nil {
			close(e.ready)
			err = stream.Each(l.take)
		}
		e.err = err
	}()
	return e
}

// take folds one event, and wakes who waits for a canary if one came back.
func (l *learner) take(ev *api.GetEventsResponse) error {
	l.mu.Lock()
	l.heard = true
	if k := ev.GetProcessKprobe(); k != nil && !l.fold.cfg.Labels {
		l.meters.take(k.GetPolicyName(), nanos(ev.GetTime()), time.Now())
		l.meters.show(k.GetPolicyName(), k.GetFunctionName())
	}
	l.origin.take(ev)
	before := l.fold.Returned()
	l.fold.Event(ev)
	back := l.fold.Returned() != before
	if back {
		l.origin.settle()
	}
	l.mu.Unlock()
	if back {
		select {
		case l.back <- struct{}{}:
		default:
		}
	}
	return nil
}

// settleFor is how long to give an agent that does not say when it is
// subscribed.
const settleFor = 500 * time.Millisecond

// subscribed waits until the agent listens, as far as it can be known: one that
// is not sure to says nothing.
func (e *events) subscribed(ctx context.Context, sure bool) error {
	timer := time.NewTimer(settleFor)
	defer timer.Stop()
	ready, settled := e.ready, timer.C
	if sure {
		settled = nil
	} else {
		ready = nil
	}
	select {
	case <-ready:
	case <-settled:
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
