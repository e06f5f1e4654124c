package sensor

import (
	"context"
	"fmt"
	"io"
	"path"
	"sync"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Local is the one connection to a server in the same process. It carries the
// service as a network would, but hands events over as they are: to encode and
// decode them again takes ten times what there is to do with them. Who receives
// an event must not change it.
type Local struct {
	server *Server
	calls  sync.WaitGroup // streams under way
	once   sync.Once
	closed chan struct{}
}

var _ grpc.ClientConnInterface = (*Local)(nil)

// localConn numbers the connection: no other counts up to it.
const localConn = ^uint64(0)

// Local connects to the server without a listener, in place of Serve.
func (s *Server) Local() *Local { return &Local{server: s, closed: make(chan struct{})} }

// Close takes the audit policies off and ends every stream. It may be called
// again.
func (l *Local) Close() error {
	err := l.server.Close()
	l.once.Do(func() { close(l.closed) })
	l.calls.Wait()
	return err
}

// Invoke implements grpc.ClientConnInterface.
func (l *Local) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	in, ok := args.(proto.Message)
	out, isMessage := reply.(proto.Message)
	if !ok || !isMessage {
		return status.Errorf(codes.Internal, "%s: %T and %T are no messages", method, args, reply)
	}
	for _, m := range tetragon.FineGuidanceSensors_ServiceDesc.Methods {
		if m.MethodName != path.Base(method) {
			continue
		}
		response, err := m.Handler(l.server, context.WithValue(ctx, connKey{}, localConn), func(request any) error {
			proto.Merge(request.(proto.Message), in)
			return nil
		}, nil)
		if err != nil {
			return asStatus(err)
		}
		proto.Merge(out, response.(proto.Message))
		return nil
	}
	return status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

// asStatus gives an error the form that it has when it comes over a network.
func asStatus(err error) error {
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.FromContextError(err).Err()
}

// inFlight is how many events are between the two ends of a stream. The queue
// of the hub is before it.
const inFlight = 512

// localStream is a call of GetEvents.
type localStream struct {
	ctx     context.Context
	conn    *Local
	handle  grpc.StreamHandler
	request proto.Message
	headers chan struct{} // closed when they were sent
	events  chan *tetragon.GetEventsResponse
	done    chan struct{} // closed with events
	err     error         // why the call ended, once done
}

// NewStream implements grpc.ClientConnInterface, for GetEvents.
func (l *Local) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	for _, d := range tetragon.FineGuidanceSensors_ServiceDesc.Streams {
		if d.StreamName == path.Base(method) {
			return &localStream{ctx: ctx, conn: l, handle: d.Handler,
				headers: make(chan struct{}), done: make(chan struct{}), events: make(chan *tetragon.GetEventsResponse, inFlight)}, nil
		}
	}
	return nil, status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

// SendMsg takes the one request, and begins the call.
func (s *localStream) SendMsg(m any) error {
	if s.request != nil {
		return status.Error(codes.Internal, "a second request")
	}
	s.request = m.(proto.Message)
	s.conn.calls.Add(1)
	go func() {
		defer s.conn.calls.Done()
		if s.err = s.handle(s.conn.server, (*serverEnd)(s)); s.err == nil {
			s.err = io.EOF
		} else {
			s.err = asStatus(s.err)
		}
		close(s.events)
		close(s.done)
	}()
	return nil
}

// CloseSend implements grpc.ClientStream.
func (s *localStream) CloseSend() error { return nil }

// Context implements grpc.ClientStream.
func (s *localStream) Context() context.Context { return s.ctx }

// Trailer implements grpc.ClientStream.
func (s *localStream) Trailer() metadata.MD { return nil }

// Header waits until the server listens, or has ended the call.
func (s *localStream) Header() (metadata.MD, error) {
	select {
	case <-s.headers:
		return nil, nil
	case <-s.done:
		return nil, s.err
	case <-s.ctx.Done():
		return nil, asStatus(s.ctx.Err())
	}
}

// RecvMsg gives the next event.
func (s *localStream) RecvMsg(m any) error {
	if err := s.ctx.Err(); err != nil {
		return asStatus(err)
	}
	ev, ok := <-s.events
	if !ok {
		return s.err
	}
	out := m.(*tetragon.GetEventsResponse)
	out.Event, out.Time, out.NodeName = ev.Event, ev.Time, ev.NodeName
	out.ClusterName, out.NodeLabels, out.AggregationInfo = ev.ClusterName, ev.NodeLabels, ev.AggregationInfo
	return nil
}

// serverEnd is the same stream as the server has it.
type serverEnd localStream

func (s *serverEnd) Context() context.Context { return context.WithValue(s.ctx, connKey{}, localConn) }

func (s *serverEnd) SetHeader(metadata.MD) error { return nil }

func (s *serverEnd) SetTrailer(metadata.MD) {}

func (s *serverEnd) SendHeader(metadata.MD) error {
	close(s.headers)
	return nil
}

func (s *serverEnd) RecvMsg(m any) error {
	proto.Merge(m.(proto.Message), s.request)
	return nil
}

func (s *serverEnd) SendMsg(m any) error {
	ev, ok := m.(*tetragon.GetEventsResponse)
	if !ok {
		return fmt.Errorf("%T is no event", m)
	}
	select {
	case s.events <- ev:
		return nil
	default:
	}
	select {
	case s.events <- ev:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	case <-s.conn.closed:
		return status.Error(codes.Unavailable, "the sensor is stopping")
	}
}
