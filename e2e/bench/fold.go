package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"profile/profiler"
)

// The stream is read in pieces, in which the two sides take turns.
const (
	streamEvents = 1_000_000
	streamPieces = 20
	pieceEvents  = streamEvents / streamPieces
)

// server sends a made up stream to each client.
type server struct {
	tetragon.UnimplementedFineGuidanceSensorsServer
	executables int
}

func (s *server) GetEvents(_ *tetragon.GetEventsRequest, out grpc.ServerStreamingServer[tetragon.GetEventsResponse]) error {
	return newMachineStream(s.executables, out.Send).tell()
}

// serve is a worker: SOCKET EXECUTABLES. It serves until its input ends.
func serve(args []string) error {
	executables, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	lis, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	srv := grpc.NewServer()
	tetragon.RegisterFineGuidanceSensorsServer(srv, &server{executables: executables})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	if err := answer(func() (sample, error) { return sample{}, nil }); err != nil {
		return err
	}
	srv.Stop()
	return <-done
}

// readStream is a worker: SOCKET. It receives one piece of the stream after the
// other, and folds it, or drops each event.
func readStream(args []string, fold bool) error {
	conn, err := grpc.NewClient("unix:"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := tetragon.NewFineGuidanceSensorsClient(conn).GetEvents(context.Background(), &tetragon.GetEventsRequest{})
	if err != nil {
		return err
	}
	take := func(*tetragon.GetEventsResponse) {}
	done := func() {}
	var f *profiler.Fold
	if fold {
		f = newFold()
		var mu sync.Mutex // as a learner does
		take = func(ev *tetragon.GetEventsResponse) {
			mu.Lock()
			defer mu.Unlock()
			f.Event(ev)
		}
		done = func() { f.Changed() }
	}
	err = answer(func() (sample, error) {
		begun := time.Now()
		for range pieceEvents {
			ev, err := stream.Recv()
			if err != nil {
				return sample{}, err
			}
			take(ev)
		}
		done()
		s := sample{CPU: cpu(unix.RUSAGE_SELF), Wall: time.Since(begun).Seconds(), Peak: peak()}
		if n := f; n != nil && n.Counts().Lost > 0 {
			return s, fmt.Errorf("the fold counts %d lost", n.Counts().Lost)
		}
		return s, nil
	})
	runtime.KeepAlive(f)
	return err
}

func newFold() *profiler.Fold {
	return profiler.NewFold(profiler.Config{Session: "bench", Policy: streamPolicy, Labels: true, Forks: true, Canary: streamCanary})
}

// readers starts a server of the stream and workers that read it.
func (b *bench) readers(executables int, names ...string) (all []*worker, stop func() error, err error) {
	socket := filepath.Join(b.dir, "stream")
	started := []*worker{}
	stop = func() error {
		var errs []error
		for i := len(started) - 1; i >= 0; i-- {
			errs = append(errs, started[i].stop())
		}
		os.Remove(socket)
		return errors.Join(errs...)
	}
	add := func(name string, args ...string) error {
		w, err := b.start(name, args...)
		if err == nil {
			started = append(started, w)
		}
		return err
	}
	if err := add("serve", socket, strconv.Itoa(executables)); err != nil {
		return nil, nil, err
	}
	if _, err := started[0].ask(""); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	for _, name := range names {
		if err := add(name, socket); err != nil {
			return nil, nil, errors.Join(err, stop())
		}
	}
	return started[1:], stop, nil
}

// measureFold compares folding with receiving, of the same stream.
func measureFold(b *bench) error {
	workers, stop, err := b.readers(1000, "fold", "recv")
	if err != nil {
		return err
	}
	var last [2]float64
	side := func(i int) side {
		return func() (float64, error) {
			s, err := workers[i].ask("")
			took := s.CPU - last[i]
			last[i] = s.CPU
			return took * 1e6 / pieceEvents, err
		}
	}
	for i := range workers { // the first piece starts the program, too
		if _, err := side(i)(); err != nil {
			return errors.Join(err, stop())
		}
	}
	ours, floor, err := b.compare(streamPieces-1, side(0), side(1))
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	b.addRatio("folding 1,000,000 events from gRPC, against Recv alone", "µs CPU/event", ours, floor, some(1.25))
	n, err := foldAllocations()
	b.add(row{Name: "allocations in the fold, executable known", Ours: n, Unit: "/event", Target: some(0)})
	return err
}

// foldAllocations counts what folding allocates for executables that are known.
func foldAllocations() (float64, error) {
	var events []*tetragon.GetEventsResponse
	errEnough := errors.New("enough")
	const warm, counted = 50_000, 100_000
	err := newMachineStream(100, func(ev *tetragon.GetEventsResponse) error {
		if events = append(events, ev); len(events) == warm+counted {
			return errEnough
		}
		return nil
	}).tell()
	if !errors.Is(err, errEnough) {
		return 0, err
	}
	f := newFold()
	for _, ev := range events[:warm] {
		f.Event(ev)
	}
	f.Changed()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, ev := range events[warm:] {
		f.Event(ev)
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / counted, nil
}

// measureMemory reads the stream with 10,000 executables.
func measureMemory(b *bench) error {
	workers, stop, err := b.readers(10_000, "fold")
	if err != nil {
		return err
	}
	var early, late sample
	for i := range streamPieces {
		what := ""
		if i == 1 || i == streamPieces-1 { // after 100,000 events every executable was seen twice
			what = heap
		}
		s, err := workers[0].ask(what)
		if err != nil {
			return errors.Join(err, stop())
		}
		if late = s; i == 1 {
			early = s
		}
	}
	b.add(row{Name: "the same with 10,000 executables, memory", Ours: late.Peak, Unit: "MB resident", Target: some(64)})
	b.addRatio("the same, live after 1,000,000 events against 100,000", "MB", late.Heap, early.Heap, some(1.05))
	return stop()
}
