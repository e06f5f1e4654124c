package enforcer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// Bounds of how often an agent that does not answer is tried again, and one that
// does not take what is to be in force: each try of that is a generation.
const (
	againFirst = 200 * time.Millisecond
	againMost  = 10 * time.Second
	loadFirst  = time.Second
	loadMost   = 5 * time.Minute
)

// loadWithin is how long a restarted agent may take to load its policy
// directory. A policy that it is given meanwhile could be one of those, and
// keep it from starting.
const loadWithin = time.Minute

// ErrNothing is returned where nothing is in force that could be watched over.
var ErrNothing = errors.New("nothing is in force")

// WatchOptions say how what is in force is watched over.
type WatchOptions struct {
	Store *store.Store
	// Connect reaches an agent by the address that a generation has.
	Connect func(ctx context.Context, address string) (*tetragon.Agent, error)
	// Group finds the cgroup of a generation on this machine.
	Group   func(path string) (cgroup.Group, error)
	Untried bool // as in ApplyOptions
	// Look is called about every second with what GetStatus gives: the status,
	// and nil or a *DriftError.
	Look func(*Status, error)
	// Tell is called with what was done, and what went wrong, in plain words.
	Tell func(string)
}

// watcher is one call of Watch.
type watcher struct {
	WatchOptions
	lost string // the agent whose stream has ended: what it has now is not known
	told string
	wait time.Duration // before what could not be loaded is loaded again
}

// Watch keeps what is in force in force until the context ends, or nothing is
// in force any more. A generation that its agent has lost is loaded again as a
// new one that lists the same, tried like any other. So is one whose agent
// ended the stream: it may have been restarted, and have counted from zero.
// Whom the agent kills is recorded by name as it is heard. Another command may
// load or release meanwhile: then that is watched. The caller holds the
// store's LockWatch.
func Watch(ctx context.Context, o WatchOptions) error {
	w := &watcher{WatchOptions: o}
	for looked := false; ; {
		g, err := w.inForce(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrBusy):
			w.tellOnce(fmt.Sprintf("%v; it is tried again", err))
			continue
		case err != nil:
			return err
		case g == nil && !looked:
			return ErrNothing
		case g == nil:
			w.Tell("nothing is in force any more")
			return nil
		}
		looked = true
		if err := w.attend(ctx, g.Agent); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			w.tellOnce(fmt.Sprintf("agent %s: %v; it is tried again", g.Agent, err))
			pause(ctx, againFirst)
		}
	}
}

// inForce is the generation that is loaded; one that is being loaded is another
// command's.
func (w *watcher) inForce(ctx context.Context) (*store.Generation, error) {
	g, err := InForce(ctx, w.Store)
	if err != nil || g == nil || g.State != store.StateLoaded {
		return nil, err
	}
	return g, nil
}

// tellOnce tells what is not the same as what was told last.
func (w *watcher) tellOnce(text string) {
	if text != w.told {
		w.told = text
		w.Tell(text)
	}
}

// attend watches over what one agent has, until its stream ends, it does not
// answer, or something else is in force. It waits for the agent to be there.
func (w *watcher) attend(ctx context.Context, address string) (err error) {
	agent, err := again(ctx, func() (*tetragon.Agent, error) {
		agent, err := w.Connect(ctx, address)
		if err != nil && ctx.Err() == nil {
			w.tellOnce(fmt.Sprintf("%v; it is tried again", err))
		}
		return agent, err
	})
	if err != nil {
		return err
	}
	listening, stop := context.WithCancel(ctx)
	var ears *Listener
	var ended <-chan struct{}
	if !agent.IsSensor() {
		ears = Listen(listening, agent, w.Store)
		ended = ears.Done()
	}
	defer func() {
		stop()
		if ears != nil {
			err = errors.Join(err, ears.Close())
		}
		err = errors.Join(err, agent.Close())
	}()
	if w.lost == address {
		if err := w.recover(ctx, agent); err != nil {
			return err
		}
	}
	return w.look(ctx, agent, ears, ended)
}

// look looks at what is in force about every second.
func (w *watcher) look(ctx context.Context, agent *tetragon.Agent, ears *Listener, ended <-chan struct{}) error {
	ticks := time.NewTicker(recordEvery)
	defer ticks.Stop()
	for missed := 0; ; {
		g, err := w.inForce(ctx)
		if err != nil || g == nil || g.Agent != agent.Address {
			return err
		}
		if ears != nil {
			if err := ears.Record(ctx); err != nil {
				return err
			}
		}
		status, err := GetStatus(ctx, agent, w.Store)
		var drift *DriftError
		if err != nil && !errors.As(err, &drift) {
			return err
		}
		if drift == nil || !drift.Lost {
			missed = 0
		} else if missed++; missed > 1 { // once may be another command at work
			if err := w.reapply(ctx, agent, g); err != nil {
				return err
			}
			missed = 0
			continue
		}
		if status.Recorded != nil {
			w.Look(status, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			w.lost = agent.Address
			return ears.Err()
		case <-ticks.C:
		}
	}
}

// recover brings into force what an agent had before its stream ended.
func (w *watcher) recover(ctx context.Context, agent *tetragon.Agent) error {
	g, err := w.inForce(ctx)
	if err != nil || g == nil || g.Agent != agent.Address {
		w.lost = ""
		return err
	}
	if g.Dir != "" {
		if err := awaitDir(ctx, agent, *g); err != nil {
			return err
		}
	}
	if err := w.reapply(ctx, agent, g); err != nil {
		return err
	}
	w.lost = ""
	return nil
}

// awaitDir waits until the agent has loaded its policy directory, or has had
// the time to.
func awaitDir(ctx context.Context, agent *tetragon.Agent, g store.Generation) error {
	ctx, cancel := context.WithTimeoutCause(ctx, loadWithin, errNotLoaded)
	defer cancel()
	_, err := again(ctx, func() (struct{}, error) {
		listed, err := agent.Policies(ctx, tetragon.EnforcePrefix)
		if err == nil {
			err = missing(g, listed)
		}
		return struct{}{}, err
	})
	if context.Cause(ctx) == errNotLoaded {
		return nil
	}
	return err
}

var errNotLoaded = errors.New("the agent did not load its policy directory")

// reapply loads a generation again, as a new one that lists the same.
func (w *watcher) reapply(ctx context.Context, agent *tetragon.Agent, g *store.Generation) error {
	group := cgroup.Group{Path: g.Cgroup}
	if OnThisHost(agent) {
		var err error
		if group, err = w.Group(g.Cgroup); err != nil {
			return err
		}
	}
	now, err := Apply(ctx, ApplyOptions{Agent: agent, Store: w.Store, Plan: planOf(g), Group: group, Untried: w.Untried, Dir: g.Dir})
	if now == nil {
		w.wait = min(max(2*w.wait, loadFirst), loadMost)
		pause(ctx, w.wait)
		return fmt.Errorf("generation %d may have been lost, and could not be loaded again: %w", g.N, err)
	}
	w.told, w.wait = "", 0
	w.Tell(fmt.Sprintf("generation %d is in force in place of generation %d, which the agent may have lost, and lists the same", now.N, g.N))
	if err != nil {
		w.Tell(err.Error())
	}
	return nil
}

// planOf is the plan of a generation that is in force: to load it again.
func planOf(g *store.Generation) *Plan {
	return &Plan{Enforce: g.Paths, Stage: g.Stage, Cgroup: g.Cgroup, Families: g.Families, Files: g.Files, Loaded: g.N,
		Wider: g.Wider, Sessions: g.Sessions,
		Thresholds: Thresholds{MinRuns: g.MinRuns, MinWatch: g.MinWatch, AcceptGaps: g.AcceptGaps, Since: g.LearnedSince}}
}

// again does something until it succeeds or the context ends.
func again[T any](ctx context.Context, do func() (T, error)) (T, error) {
	steps := backoff.NewExponentialBackOff()
	steps.InitialInterval, steps.MaxInterval = againFirst, againMost
	return backoff.Retry(ctx, do, backoff.WithBackOff(steps), backoff.WithMaxElapsedTime(0))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
