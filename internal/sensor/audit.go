package sensor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/prometheus/procfs"

	"profile/internal/cgroup"
)

// idle is how long the reader sleeps when it has read all there is. The kernel
// wakes it earlier only when the ring fills, since that costs more than the
// event does: see wake in bpf/event.h.
const idle = 20 * time.Millisecond

// audit is one audit policy at work: its observer, and the goroutine that
// reads it. Stop it once.
type audit struct {
	policy   *Policy
	observer *observer
	pins     *pinDir
	shared   *sharedMaps
	held     []record // sockets that were open when the hook was attached, until they are told

	mu   sync.Mutex // guards what follows, for the counters
	conv *converter
	lost uint64
	// missed is what of that no program has seen, as missing says.
	missed  uint64
	missing func(*observer) (uint64, error)

	cancel  context.CancelCauseFunc
	done    chan struct{}
	checked chan struct{} // closed when the policies in force are looked after no more
	err     error         // why the reader ended, once done
	far     error         // or why it was ended
}

// startAudit loads and attaches an audit policy, tells what runs already, and
// begins to publish.
func startAudit(p *Policy, h hooks, cfg Config, news *newcomers, publish func(*tetragon.GetEventsResponse)) (*audit, error) {
	group, err := cgroup.Find(p.Cgroup)
	if err != nil {
		return nil, err
	}
	pins, shared, err := usePins(cfg.Name)
	if err != nil {
		return nil, err
	}
	a := &audit{policy: p, pins: pins, shared: shared, missing: cfg.missed, done: make(chan struct{}), checked: make(chan struct{})}
	if a.observer, err = loadObserver(h, group, p, cfg.RingBytes, shared); err != nil {
		return nil, errors.Join(err, a.free())
	}
	l := &lapses{dir: pins.path, shared: shared, off: a.observer.coll.Variables["lapsed"], good: time.Now()}
	// What does not act from the beginning is no gap.
	if _, _, err := l.check(); err != nil {
		return nil, errors.Join(err, a.free())
	}
	clock := &clock{}
	a.conv = &converter{policy: p, publish: publish, table: newTable(cfg.Node, clock, newCgroupPaths())}
	if err := a.attach(group); err != nil {
		return nil, errors.Join(err, a.free())
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	a.cancel = cancel
	go a.run(ctx)
	go a.lookAfter(ctx, l, news)
	return a, nil
}

// lookAfter tells of policies that act no more, until the context ends. With one
// that acts on what nobody here can tell of, it ends the audit.
func (a *audit) lookAfter(ctx context.Context, l *lapses, news *newcomers) {
	defer close(a.checked)
	ticks := time.NewTicker(checkEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		why, since, err := l.check()
		if err == nil {
			var far error
			if far, err = news.look(); far != nil {
				a.cancel(far)
				return
			}
		}
		if err != nil {
			why = fmt.Sprintf("whether the policies in force act cannot be told: %v", err)
		}
		if why != "" {
			a.mu.Lock()
			a.conv.sendLapse(why, since)
			a.mu.Unlock()
		}
		a.tellMissed()
	}
}

// tellMissed tells of what no program has seen since the last time. To ask for it
// at each record would take too long.
func (a *audit) tellMissed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	missed, err := a.missing(a.observer)
	if err != nil || missed <= a.missed {
		return
	}
	a.conv.sendLoss(missed - a.missed)
	a.missed = missed
}

// attach goes from the processes to the sockets, so that nothing falls between
// what runs already and what is told from here on (FACTS 31).
func (a *audit) attach(group cgroup.Group) error {
	if err := a.observer.attachProcesses(); err != nil {
		return err
	}
	tasks, err := a.observer.iterate("observe_task")
	if err != nil {
		return err
	}
	for i := range tasks {
		a.conv.convert(&tasks[i])
	}
	if err := a.observer.attachSockets(group.Dir); err != nil {
		return err
	}
	held, err := a.observer.iterate("observe_file")
	if err != nil {
		return err
	}
	for _, r := range held {
		if slices.Contains(a.policy.Families, int32(r.Family)) {
			a.held = append(a.held, r)
		}
	}
	return nil
}

// ask reads what a running process was started with and where it is. It may
// have gone; both are only for a person to read.
func ask(pid uint32) (args, cwd string) {
	p, err := procfs.NewProc(int(pid))
	if err != nil {
		return "", ""
	}
	if line, err := p.CmdLine(); err == nil {
		args = arguments([]byte(strings.Join(line, "\x00")))
	}
	cwd, _ = p.Cwd()
	return args, text([]byte(cwd))
}

// run reads until the context ends, and then what is still in the ring.
func (a *audit) run(ctx context.Context) {
	defer close(a.done)
	var raw ringbuf.Record
	var rec record
	for {
		wait := idle
		if ctx.Err() != nil {
			wait = 0
		}
		err := a.observer.read(&raw, &rec, time.Now().Add(wait))
		switch {
		case err == nil:
			a.handle(&rec)
		case errors.Is(err, os.ErrDeadlineExceeded):
			a.handle(nil)
			if ctx.Err() == nil {
				continue
			}
			a.tellMissed()
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				a.far = cause
			}
			return
		default:
			a.err = fmt.Errorf("read the event ring: %w", err)
			return
		}
	}
}

// handle publishes one record; nil says that none came. A loss is told before
// any record that followed it, held sockets after all that went before them.
func (a *audit) handle(rec *record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if lost, err := a.observer.lost(); err == nil && lost > a.lost {
		a.conv.sendLoss(lost - a.lost)
		a.lost = lost
	}
	for len(a.held) > 0 && (rec == nil || a.held[0].Time < rec.Time) {
		a.conv.convert(&a.held[0])
		a.held = a.held[1:]
	}
	if rec != nil {
		a.conv.convert(rec)
	}
}

// Posted is the count that a real agent keeps.
func (a *audit) Posted() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conv.kprobes + a.lost + a.missed
}

// Sensors implements Audit.
func (a *audit) Sensors() []string { return []string{a.observer.hooks.name} }

// Err implements Audit.
func (a *audit) Err() error {
	select {
	case <-a.done:
		return errors.Join(a.err, a.far)
	default:
		return nil
	}
}

// Stop detaches, publishes what was told before, and frees everything.
func (a *audit) Stop() error {
	err := a.observer.detach()
	a.cancel(nil)
	<-a.done
	<-a.checked
	return errors.Join(err, a.err, a.free())
}

func (a *audit) free() error {
	var err error
	if a.observer != nil {
		err = a.observer.close()
	}
	a.shared.close()
	return errors.Join(err, a.pins.release())
}
