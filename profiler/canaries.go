package profiler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"profile/internal/canary"
)

// canaryName is the file name of a session's canary. One session learns into a
// database at a time, so that it needs no other name.
const canaryName = "profile-canary-learn"

// isCanary recognises canaries by what is in the file. One that has gone
// already is recognised by its directory, which canary.Dir has named.
func isCanary(path string) bool {
	if !strings.Contains(path, "canary") {
		return false
	}
	is, err := canary.Is(path)
	if errors.Is(err, fs.ErrNotExist) {
		return seemsCanary(path)
	}
	return is
}

// seemsCanary recognises a canary where its file cannot be looked at.
func seemsCanary(path string) bool {
	dir := filepath.Base(filepath.Dir(path))
	return strings.HasPrefix(filepath.Base(path), "profile-canary-") &&
		(strings.HasSuffix(dir, ".canary") || strings.HasPrefix(dir, "canary-") || strings.HasPrefix(dir, "profile-canary-"))
}

// open sends canaries until one has come back whole, or the agent turns out to
// be of another host.
func (l *learner) open(ctx context.Context, events *events) error {
	deadline := time.Now().Add(openWithin)
	for {
		l.prove(ctx, events, canaryRetry)
		_, opened := l.opened()
		switch {
		case opened, l.leaveCanaries():
			l.lookAround()
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("stopped before the window opened: %w", ctx.Err())
		case events.ended():
			return events.err
		case time.Now().After(deadline):
			return l.notOpened()
		}
	}
}

func (l *learner) notOpened() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.canaryErr != nil {
		return fmt.Errorf("no window could be opened: %w", l.canaryErr)
	}
	return fmt.Errorf("agent %s: the %s of a canary did not come back within %s, so that nothing would be proven",
		l.Agent.Address, l.fold.Missing(), openWithin)
}

// beat sends a canary every ten seconds. One that does not come back before
// the next is due ends the window. It returns when the stream or the context
// ends, or learning must begin anew.
func (l *learner) beat(ctx context.Context) error {
	ticks, looks := time.NewTicker(canaryEvery), time.NewTicker(lookEvery)
	defer ticks.Stop()
	defer looks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.events.done:
			return l.events.err
		case <-looks.C:
			if err := l.lookAtGroup(); err != nil {
				return err
			}
			l.lookInForce(ctx, false)
			continue
		case <-ticks.C:
		}
		l.lookInForce(ctx, true)
		back := l.prove(ctx, l.events, canaryEvery)
		switch {
		case ctx.Err() != nil:
			return nil
		case back && !l.Agent.IsSensor():
			l.mu.Lock()
			l.fold.Sweep(host{}.alive)
			l.mu.Unlock()
			l.lookAround()
			asked := time.Now()
			if l.counts() {
				if err := l.verify(ctx); err != nil {
					return err
				}
			}
			if ctx.Err() == nil {
				l.narrow(ctx, asked)
			}
		case !back:
			if err := l.overdue(ctx); err != nil {
				return err
			}
		}
	}
}

// lookAround takes in what was running before the window opened, once for each
// window: a Tetragon tells nothing of a process that does nothing.
func (l *learner) lookAround() {
	from, open := l.opened()
	if l.Agent.IsSensor() || l.bird == nil || !open || from.Equal(l.around) {
		return
	}
	found, err := host{}.running()
	if err != nil {
		l.Log.Warn("what was running before the window opened cannot be told", "error", err)
		return
	}
	l.around = from
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range found {
		l.fold.Found(one.pid, one.path, one.started)
	}
}

// overdue closes the window. That the agent has lost the audit policy is an
// error.
func (l *learner) overdue(ctx context.Context) error {
	l.mu.Lock()
	_, open := l.fold.Opened()
	l.fold.Overdue()
	cause := l.canaryErr
	l.mu.Unlock()
	if open {
		l.Log.Warn("a canary did not come back: the window is closed until one does", "error", cause)
	}
	switch there, err := l.present(ctx); {
	case errors.Is(err, errGone):
		return err
	case err == nil && !there:
		return errGone
	}
	return nil
}

// prove sends one canary and waits until it has come back, for so long at most
// after it has ended.
func (l *learner) prove(ctx context.Context, events *events, within time.Duration) bool {
	l.mu.Lock()
	last := l.fold.LastCanary()
	l.mu.Unlock()
	res, err := l.bird.Run(ctx, l.Group)
	l.mu.Lock()
	l.canaryErr = err
	l.mu.Unlock()
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		if err == nil && l.cameBack(res, last) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-events.done:
			return false
		case <-timer.C:
			return false
		case <-l.back:
		}
	}
}

func (l *learner) opened() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fold.Opened()
}

func (l *learner) cameBack(res canary.Result, last int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fold.CanaryBack(uint32(res.PID), res.Started, last)
}
