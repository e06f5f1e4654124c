package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/encoding/protojson"

	"profile/internal/sensor"
	names "profile/internal/tetragon"
	"profile/profiler"
)

// recordings are what a real agent sent of a mixed load, and of one in which a
// few executables open sockets all the time.
var recordings = []struct{ file, what string }{
	{"tools-v1.3.jsonl.gz", "tools"},
	{"lossy-v1.7.jsonl.gz", "a flood of sockets"},
}

// measureWire counts what comes over the wire of a recording, for each
// executable that is learned from it.
func measureWire(b *bench) error {
	for _, r := range recordings {
		events, err := readRecording(filepath.Join("e2e/testdata/tetragon", r.file))
		if err != nil {
			return err
		}
		const session = "20260102t030405z-abcdef"
		f := profiler.NewFold(profiler.Config{})
		for _, ev := range events {
			if k := ev.GetProcessKprobe(); k != nil {
				k.PolicyName = profiler.PolicyName(session)
			}
			f.Event(ev)
		}
		f.Finish()
		users, all := map[string]bool{}, f.Changed()
		for _, row := range all {
			users[row.Key.Path] = len(row.Files) > 0 && len(row.Files[0].Network) > 0
		}
		asked := profiler.EventsRequest(session, &names.Agent{Name: "tetragon"})
		count := func(req *tetragon.GetEventsRequest, events []*tetragon.GetEventsResponse) (float64, float64, error) {
			n, bytes, err := b.overTheWire(req, events)
			return float64(n) / float64(len(all)), float64(bytes) / float64(len(all)), err
		}
		n, bytes, err := count(&tetragon.GetEventsRequest{}, events)
		filteredN, filteredBytes, err2 := count(asked, events)
		narrowedN, narrowedBytes, err3 := count(asked, narrow(events, users))
		if err := errors.Join(err, err2, err3); err != nil {
			return err
		}
		name := "over the wire for each executable, " + r.what + ", "
		b.addRatio(name+"filtered against all", "events", filteredN, n, nil)
		b.addRatio(name+"filtered against all", "bytes", filteredBytes, bytes, nil)
		b.addRatio(name+"filtered and narrowed against all", "events", narrowedN, n, nil)
		b.addRatio(name+"filtered and narrowed against all", "bytes", narrowedBytes, bytes, nil)
	}
	return nil
}

func readRecording(name string) (events []*tetragon.GetEventsResponse, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(plain)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		ev := new(tetragon.GetEventsResponse)
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(lines.Bytes(), ev); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		events = append(events, ev)
	}
	return events, lines.Err()
}

// narrow leaves out what a policy that names the network users in NotIn does
// not post.
func narrow(events []*tetragon.GetEventsResponse, users map[string]bool) (left []*tetragon.GetEventsResponse) {
	runs := map[uint32]string{} // by pid
	for _, ev := range events {
		k := ev.GetProcessKprobe()
		pid := k.GetProcess().GetPid().GetValue()
		switch {
		case k.GetFunctionName() == names.CallExec && len(k.GetArgs()) > 0:
			runs[pid] = k.Args[0].GetLinuxBinprmArg().GetPath()
		case k.GetFunctionName() == names.CallSocketCreate && users[runs[pid]]:
			continue
		}
		left = append(left, ev)
	}
	return left
}

// overTheWire plays events to one client, and counts what comes.
func (b *bench) overTheWire(req *tetragon.GetEventsRequest, events []*tetragon.GetEventsResponse) (n, bytes int64, err error) {
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	lis, err := net.Listen("unix", filepath.Join(b.dir, "wire"))
	if err != nil {
		return 0, 0, err
	}
	kernel := &player{events: append(events, &tetragon.GetEventsResponse{Event: &tetragon.GetEventsResponse_RateLimitInfo{}})}
	done := make(chan error, 1)
	go func() { done <- sensor.NewServer(sensor.Config{Name: "bench", Kernel: kernel}).Serve(ctx, lis) }()
	defer func() { stop(); err = errors.Join(err, <-done) }()
	var counted payloads
	conn, err := grpc.NewClient("unix:"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(&counted))
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	client := tetragon.NewFineGuidanceSensorsClient(conn)
	stream, err := client.GetEvents(ctx, req)
	if err == nil {
		_, err = stream.Header()
	}
	if err == nil {
		go client.AddTracingPolicy(ctx, &tetragon.AddTracingPolicyRequest{Yaml: playPolicy})
	}
	for err == nil {
		var ev *tetragon.GetEventsResponse
		if ev, err = stream.Recv(); err == nil {
			if ev.GetRateLimitInfo() != nil || ev.GetEvent() == nil {
				break
			}
			n++
			bytes = counted.bytes.Load()
		}
	}
	return n, bytes, err
}

// payloads counts the bytes of the messages of a stream as they come.
type payloads struct{ bytes atomic.Int64 }

func (p *payloads) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (p *payloads) HandleConn(context.Context, stats.ConnStats)                       {}
func (p *payloads) TagRPC(ctx context.Context, i *stats.RPCTagInfo) context.Context   { return ctx }
func (p *payloads) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		p.bytes.Add(int64(in.WireLength))
	}
}

const playPolicy = `apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: play}
spec: {kprobes: [{call: security_bprm_committing_creds, syscall: false, args: [{index: 0, type: linux_binprm}]}]}
`

// player is a kernel in which happens what was recorded, once a policy is
// loaded.
type player struct {
	sensor.Kernel
	events []*tetragon.GetEventsResponse
}

func (p *player) Hook() (string, []int32, []string, error) {
	return "recorded", []int32{unix.AF_INET}, nil, nil
}
func (p *player) Enforced() ([]sensor.Enforced, error) { return nil, nil }
func (p *player) Tidy() error                          { return nil }
func (p *player) Audit(_ *sensor.Policy, publish func(*tetragon.GetEventsResponse)) (sensor.Audit, error) {
	for _, ev := range p.events {
		publish(ev)
	}
	return played{}, nil
}

type played struct{}

func (played) Sensors() []string { return []string{"recorded"} }
func (played) Posted() uint64    { return 0 }
func (played) Err() error        { return nil }
func (played) Stop() error       { return nil }
