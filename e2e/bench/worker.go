package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// workerArg makes this program one side of a comparison, in a process of its
// own, so that what it takes is its own.
const workerArg = "worker"

// work runs a worker: for each line of standard input it does its work once,
// and answers with one line.
func work(name string, args []string) error {
	switch name {
	case "serve":
		return serve(args)
	case "recv":
		return readStream(args, false)
	case "fold":
		return readStream(args, true)
	case "rows":
		return marshalRows(args)
	}
	return fmt.Errorf("no worker %q", name)
}

// sample is what a worker has taken so far.
type sample struct {
	CPU  float64 // seconds, since it began
	Wall float64 // seconds, of this piece of work
	Heap float64 // MB live after a collection
	Peak float64 // MB of memory, resident at most
}

// heap asks for the sample's Heap, too, which takes time of its own.
const heap = "heap"

// answer does a piece of work for each line that comes.
func answer(work func() (sample, error)) error {
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		s, err := work()
		if err != nil {
			return err
		}
		if in.Text() == heap {
			s.Heap = liveHeap()
		}
		if err := out.Encode(s); err != nil {
			return err
		}
	}
	return nil
}

// worker is one that was started.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func (b *bench) start(name string, args ...string) (*worker, error) {
	w := &worker{cmd: exec.CommandContext(b.ctx, "/proc/self/exe", append([]string{workerArg, name}, args...)...)}
	w.cmd.Stderr = os.Stderr
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = json.NewDecoder(out)
	return w, w.cmd.Start()
}

// ask has one piece of work done.
func (w *worker) ask(what string) (sample, error) {
	var s sample
	if _, err := io.WriteString(w.in, what+"\n"); err != nil {
		return s, err
	}
	if err := w.out.Decode(&s); err != nil {
		return s, fmt.Errorf("worker %s: %w", w.cmd.Args[2], err)
	}
	return s, nil
}

func (w *worker) stop() error { return errors.Join(w.in.Close(), w.cmd.Wait()) }

// cpu is the processor time of this process, of its children too if they have
// been waited for, in seconds.
func cpu(who int) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// liveHeap is what is in use, in MB.
func liveHeap() float64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// peak is the most memory that this process had resident, in MB.
func peak() float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(kb)[0], 64)
			return n / 1e3
		}
	}
	return 0
}
