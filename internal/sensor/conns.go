package sensor

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

type connKey struct{}

// conns numbers the connections of a server and tells of their ends.
type conns struct {
	last  atomic.Uint64
	ended func(conn uint64)
	wg    sync.WaitGroup // of the calls of ended
}

var _ stats.Handler = (*conns)(nil)

// connOf is the number of the connection that a call came by.
func connOf(ctx context.Context) uint64 {
	n, _ := ctx.Value(connKey{}).(uint64)
	return n
}

// TagConn implements stats.Handler.
func (c *conns) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connKey{}, c.last.Add(1))
}

// HandleConn implements stats.Handler.
func (c *conns) HandleConn(ctx context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); !ok {
		return
	}
	// The transport waits for this call.
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		c.ended(connOf(ctx))
	}()
}

// TagRPC implements stats.Handler.
func (c *conns) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (c *conns) HandleRPC(context.Context, stats.RPCStats) {}
