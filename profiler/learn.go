package profiler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"profile/internal/canary"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// Options say what to learn, from whom, and where to keep it.
type Options struct {
	Agent *tetragon.Agent
	Store *store.Store
	Group cgroup.Group  // whose processes are learned from; the root is the whole machine
	Only  []string      // doublestar patterns of resolved paths; none means all
	For   time.Duration // from when the window opens; 0 means until the context ends
	// KeepArgs keeps some arguments of programs, which may hold secrets.
	KeepArgs bool
	// Metrics is the URL of the agent's metrics, which count what it loses; ""
	// is none.
	Metrics string
	// CanaryDir is a directory that programs can be run from, for the
	// session's canary. An agent of another host has none.
	CanaryDir string
	Log       *slog.Logger

	// Opened, if set, is called once, when the first window opens.
	Opened func(time.Time)
	// Progress, if set, is called every second from then on.
	Progress func(Progress)

	pace pace // zero is the usual one
}

// Progress is how far a session is.
type Progress struct {
	Counts
	Elapsed time.Duration // since the window opened
	Left    time.Duration // 0 if the session has no end of its own
}

const (
	flushEvery  = time.Second
	canaryEvery = 10 * time.Second
	// canaryRetry is how soon another canary is sent before the window opens,
	// since the first may be sent too early (the agent does not say when it
	// listens).
	canaryRetry = 200 * time.Millisecond
	// openWithin is how long the first may take to come back, and closeWithin
	// the last.
	openWithin  = 15 * time.Second
	closeWithin = 5 * time.Second
	// loadWithin is how long loading a policy may take: a real agent on a slow
	// machine was seen to take half a minute.
	loadWithin   = 2 * time.Minute
	deleteWithin = 30 * time.Second
)

// ErrCommandEnded is the cause with which the context of a session ends whose
// command has.
var ErrCommandEnded = errors.New(store.EndCommand)

// Learn learns for one session, until its time is over or the context ends;
// both are no error. It fails at once with a *store.HeldError if another
// session holds the database, and with tetragon.ErrOption if the agent cannot
// keep to the group. However it returns, its audit policy is off, or
// the error says that it could not be taken off. The session is returned with
// the error too, once it is recorded.
func Learn(ctx context.Context, o Options) (_ *store.Session, err error) {
	if len(o.Agent.Families) == 0 {
		return nil, fmt.Errorf("agent %s sees no network sockets: there is nothing to learn from", o.Agent.Address)
	}
	if !o.Agent.IsSensor() && o.Group.Path != "/" {
		return nil, fmt.Errorf("agent %s cannot learn in cgroup %s alone: %w", o.Agent.Address, o.Group.Path, tetragon.ErrOption)
	}
	for _, pattern := range o.Only {
		if !doublestar.ValidatePattern(pattern) {
			return nil, fmt.Errorf("%q is not a pattern", pattern)
		}
	}
	lock, err := o.Store.LockLearn()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if err := ClearKilled(ctx, o.Agent, o.Store, o.Log); err != nil {
		return nil, err
	}
	var bird *canary.Canary
	if o.Agent.OnThisHost() {
		if bird, err = canary.Install(o.CanaryDir, canaryName); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, bird.Remove()) }()
	}
	l, err := newLearner(o, bird)
	if err != nil {
		return nil, err
	}
	if err := l.flush(ctx); err != nil {
		return nil, fmt.Errorf("record session %s: %w", l.session.ID, err)
	}
	err = l.run(ctx)
	return &l.session, err
}

// run watches until the session is to end, ends it, and takes the policy off.
// Why it ended is in l.session.End.
func (l *learner) run(ctx context.Context) error {
	// What has begun is ended in order, also when the context is cancelled.
	steady := context.WithoutCancel(ctx)
	err := l.learn(ctx)
	return errors.Join(l.finish(steady, err), l.unload(steady))
}

// learn watches and flushes.
func (l *learner) learn(ctx context.Context) error {
	l.lookUpListed(ctx)
	steady := context.WithoutCancel(ctx)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- l.watch(watching) }()
	second := time.NewTicker(flushEvery)
	defer second.Stop()
	first := l.first
	var from time.Time
	var over <-chan time.Time
	for {
		select {
		case err := <-done:
			return err
		case <-first:
			first, from = nil, time.Now()
			if l.For > 0 {
				timer := time.NewTimer(l.For)
				defer timer.Stop()
				over = timer.C
			}
			if l.Opened != nil {
				at, opened := l.opened()
				if !opened {
					at = from // the agent is on another host, and has yet to tell something
				}
				l.Opened(at)
			}
		case <-over:
			stop()
			err := l.await(steady, done, second.C, from)
			l.session.End = store.EndTime
			return err
		case <-ctx.Done():
			err := l.await(steady, done, second.C, from)
			l.session.End = store.EndStopped
			if errors.Is(context.Cause(ctx), ErrCommandEnded) {
				l.session.End = store.EndCommand
			}
			return err
		case <-second.C:
			l.lookUpListed(steady)
			if !from.IsZero() {
				l.tryFlush(steady)
				l.report(time.Since(from))
			}
		}
	}
}

// await waits for the end of what watches. What was lost of the last can take a
// minute to find out: meanwhile it goes on as before, if a window has opened.
func (l *learner) await(ctx context.Context, done <-chan error, seconds <-chan time.Time, opened time.Time) error {
	for {
		select {
		case err := <-done:
			return err
		case <-seconds:
			l.lookUpListed(ctx)
			if !opened.IsZero() {
				l.tryFlush(ctx)
			}
		}
	}
}

func (l *learner) report(elapsed time.Duration) {
	if l.Progress == nil {
		return
	}
	p := Progress{Elapsed: elapsed}
	if l.For > 0 {
		p.Left = max(0, l.For-elapsed)
	}
	l.mu.Lock()
	p.Counts = l.fold.Counts()
	l.mu.Unlock()
	l.Progress(p)
}
