package tetragon

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// patience bounds every call of an agent that is not a stream, so that one that
// hangs is given up, and tells of the waiting. A context that ends earlier
// bounds a call still.
type patience struct {
	answer time.Duration // for any call but one that loads a policy
	load   time.Duration // a real agent on a slow machine was seen to take half a minute (FACTS 46)
	tell   time.Duration // after which it is told, and then again and again
	say    func(string)  // nil tells nobody
}

func patient(say func(string)) *patience {
	return &patience{answer: 30 * time.Second, load: 2 * time.Minute, tell: 5 * time.Second, say: say}
}

func (p *patience) limit(method string) time.Duration {
	if method == tetragon.FineGuidanceSensors_AddTracingPolicy_FullMethodName {
		return p.load
	}
	return p.answer
}

// unary is a grpc.UnaryClientInterceptor.
func (p *patience) unary(ctx context.Context, full string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	method := path.Base(full)
	bounded, cancel := context.WithTimeout(ctx, p.limit(full))
	defer cancel()
	until, _ := bounded.Deadline() // the caller's, if that is earlier
	limit := time.Until(until)
	stop := p.wait(method, limit)
	defer stop()
	err := invoke(bounded, full, req, reply, conn, opts...)
	// The agent, which knows the deadline too, may be the first to end the call.
	if err != nil && ctx.Err() != context.Canceled && (bounded.Err() != nil || status.Code(err) == codes.DeadlineExceeded) {
		err = late(method, limit)
	}
	return err
}

func late(method string, limit time.Duration) error {
	return status.Errorf(codes.DeadlineExceeded, "no answer to %s within %s", method, max(0, limit).Round(time.Millisecond))
}

// wait tells of a call that takes long, until stop is called.
func (p *patience) wait(method string, limit time.Duration) (stop func()) {
	if p.say == nil {
		return func() {}
	}
	begun, ended, done := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticks := time.NewTicker(p.tell)
		defer ticks.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticks.C:
				p.say(fmt.Sprintf("waiting for the agent to answer %s: for %s, of %s at most",
					method, time.Since(begun).Round(time.Second), limit.Round(time.Second)))
			}
		}
	}()
	return func() { close(ended); <-done }
}
