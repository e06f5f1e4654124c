package profiler

import (
	"testing"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"
)

// stream is what a sensor sends of a busy machine: forks, execs, sockets and
// exits, as they come over the wire.
func stream(b *testing.B) (*Fold, []*api.GetEventsResponse, [][]byte) {
	w := newWorld(b).open()
	var events []*api.GetEventsResponse
	w.tap = func(ev *api.GetEventsResponse) { events = append(events, ev) }
	w.before(1, "/bin/sh")
	for i := range uint32(100) {
		w.fork(1, 100+i)
		w.exec(100+i, "/usr/bin/tool", as{name: "/usr/bin/tool", args: "--some arguments of a program"})
		w.socket(100+i, 2, 1)
		w.exit(100 + i)
	}
	var wire [][]byte
	for _, ev := range events {
		raw, err := proto.Marshal(ev)
		if err != nil {
			b.Fatal(err)
		}
		wire = append(wire, raw)
	}
	return w.f, events, wire
}

func BenchmarkFold(b *testing.B) {
	f, events, _ := stream(b)
	b.ReportAllocs()
	for b.Loop() {
		for _, ev := range events {
			f.Event(ev)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
}

// BenchmarkDecode is the part of a bare Recv that is not the transport's.
func BenchmarkDecode(b *testing.B) {
	_, _, wire := stream(b)
	b.ReportAllocs()
	for b.Loop() {
		for _, raw := range wire {
			if err := proto.Unmarshal(raw, new(api.GetEventsResponse)); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(wire)), "ns/event")
}

// What is known of an executable is found again without memory for it.
func TestFoldingAllocatesNothingForWhatIsKnown(t *testing.T) {
	w := newWorld(t).open()
	var events []*api.GetEventsResponse
	w.tap = func(ev *api.GetEventsResponse) { events = append(events, ev) }
	w.before(1, "/bin/sh")
	for i := range uint32(20) {
		w.fork(1, 100+i)
		w.exec(100+i, "/usr/bin/tool", as{name: "/usr/bin/tool", args: "--some arguments of a program"})
		w.socket(100+i, 2, 1, as{path: "/usr/bin/tool"})
		w.exit(100 + i)
	}
	if n := testing.AllocsPerRun(20, func() {
		for _, ev := range events {
			w.f.Event(ev)
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d events of an executable that is known", n, len(events))
	}
}
