package profiler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
)

// errGone is why learning goes on with a new policy: the agent has lost it, as
// one that was restarted has (FACTS 15).
var errGone = errors.New("the agent no longer has the audit policy")

// Bounds of how often a lost agent is tried again.
const (
	resumeFirst = 200 * time.Millisecond
	resumeMost  = 10 * time.Second
)

// watch keeps a window open until the context ends: it subscribes, deploys,
// proves, and begins anew where the stream ends. It fails only where it never
// began, or cannot begin anew.
func (l *learner) watch(ctx context.Context) error {
	steady := context.WithoutCancel(ctx)
	err := l.begin(ctx)
	defer func() { l.hangUp() }()
	for err == nil {
		err = l.attend(ctx)
		if ctx.Err() != nil && l.everOpened {
			l.close(steady)
			return nil
		}
		if moved := l.lookAtGroup(); err != nil && moved != nil {
			err = moved
		}
		what := "agent"
		if errors.Is(err, errMoved) {
			what = "cgroup"
		}
		if err == nil || !l.everOpened || what == "agent" && l.Agent.Address == tetragon.Embedded {
			return err
		}
		l.Log.Warn("nothing is watched until the "+what+" is back", "error", err)
		l.hangUp()
		l.mu.Lock()
		l.fold.Interrupt()
		l.meters.restart(time.Now())
		l.mu.Unlock()
		if err = l.resume(ctx); err == nil {
			l.Log.Info("the " + what + " is back")
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return err
}

// begin subscribes and deploys.
func (l *learner) begin(ctx context.Context) error {
	steady := context.WithoutCancel(ctx)
	listening, stop := context.WithCancel(steady)
	l.stopEvents, l.events = stop, l.listen(listening)
	if err := l.events.subscribed(ctx, l.Agent.IsSensor()); err != nil {
		return err
	}
	if err := l.findForgotten(ctx); err != nil {
		return err
	}
	if err := l.followGroup(); err != nil {
		return err
	}
	if len(l.loaded) > 0 {
		if there, err := l.present(ctx); there || err != nil && !errors.Is(err, errGone) {
			return err
		}
		if err := l.unload(steady); err != nil {
			return err
		}
	}
	// A policy is loaded whole: what has begun is not cancelled.
	return l.deploy(steady)
}

// hangUp ends the subscription.
func (l *learner) hangUp() {
	l.stopEvents()
	<-l.events.done
}

// resume begins anew, as often as it takes.
func (l *learner) resume(ctx context.Context) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = resumeFirst, resumeMost
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := l.askAgain(ctx)
		if errors.Is(err, tetragon.ErrOther) {
			return struct{}{}, backoff.Permanent(err)
		}
		if err != nil {
			return struct{}{}, err
		}
		if err = l.begin(ctx); err != nil {
			l.hangUp()
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0))
	return err
}

// askAgain finds out what the agent can do that has come back. A session in
// which it once could not count its losses is not one that counts them.
func (l *learner) askAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	agent, err := l.Agent.Again(ctx)
	if err != nil {
		return err
	}
	if agent.Version != l.Agent.Version {
		l.Log.Info("the agent is of another version", "was", l.Agent.Version, "is", agent.Version)
	}
	l.Agent = agent
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fold.cfg.Verify = l.counts()
	l.fold.cfg.Losses = l.fold.cfg.Losses && (l.fold.cfg.Verify || agent.IsSensor())
	return nil
}

// attend opens a window and keeps it open until the stream or the context
// ends.
func (l *learner) attend(ctx context.Context) error {
	defer l.awaitNext()
	if l.bird != nil {
		// What the counters hold is known before the window opens: what is lost
		// from then on shows.
		if err := l.count(ctx); err != nil {
			return err
		}
		if err := l.open(ctx, l.events); err != nil {
			return err
		}
		l.tellUncounted()
	}
	if !l.everOpened {
		l.everOpened = true
		close(l.first)
	}
	if err := l.count(ctx); err != nil {
		return err
	}
	if l.bird != nil {
		return l.beat(ctx)
	}
	return l.poll(ctx)
}

// count verifies what has come, if that can be counted. On a busy node that may
// not be to the number.
func (l *learner) count(ctx context.Context) error {
	if !l.counts() {
		return nil
	}
	return l.verify(ctx)
}

// tellUncounted tells the gap between the opening of the window and the first
// exact reading, if that is yet to come.
func (l *learner) tellUncounted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bird == nil {
		return // it turned out to be of another host, and its window may not be open yet
	}
	if at, open := l.fold.Opened(); open && l.counts() && !l.meters.based() {
		l.fold.Lost(at, time.Now(), "what was lost before the counters could be read exactly is not known", 0)
	}
}

// poll asks after losses where there are no canaries.
func (l *learner) poll(ctx context.Context) error {
	ticks, looks := time.NewTicker(pollEvery), time.NewTicker(lookEvery)
	defer ticks.Stop()
	defer looks.Stop()
	stood := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.events.done:
			return l.events.err
		case <-looks.C:
			l.lookInForce(ctx, false)
			continue
		case <-ticks.C:
		}
		l.lookInForce(ctx, true)
		asked := time.Now()
		if l.counts() {
			l.mu.Lock()
			l.fold.Ask()
			l.mu.Unlock()
			if err := l.verify(ctx); err != nil {
				return err
			}
		}
		if !l.Agent.Counters {
			if err := l.stands(ctx, stood); err != nil {
				return err
			}
			stood = asked
		}
		if ctx.Err() == nil {
			l.narrow(ctx, asked)
		}
	}
}

// close proves the last of a window.
func (l *learner) close(ctx context.Context) {
	if _, opened := l.opened(); !opened || l.events.ended() {
		return
	}
	if l.bird != nil {
		proving, cancel := context.WithTimeout(ctx, heldBack)
		l.prove(proving, l.events, closeWithin)
		cancel()
	}
	if l.counts() {
		l.settleLast(ctx)
	}
}

// settleLast waits until it is known what of the session was lost, as long as
// that can take.
func (l *learner) settleLast(ctx context.Context) {
	l.mu.Lock()
	since := l.meters.settled()
	if l.bird == nil {
		l.fold.AskAnew()
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, heldBack+sharperWithin+closeWithin)
	defer cancel()
	err := l.verify(ctx)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.Log.Warn("whether the last observations were lost is not known", "error", err)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.fold.Lost(since, time.Now(), "whether the last observations were lost is not known", 0)
	}
}

// counts reports whether what the agent lost can be found out from its
// counters.
func (l *learner) counts() bool { return !l.Agent.IsSensor() && (l.Agent.Counters || l.metrics != nil) }

// verify asks the agent's counters until all that was posted by now has come,
// or is lost for good. An error says that learning must begin anew.
func (l *learner) verify(ctx context.Context) error {
	asked := time.Now()
	ticks := time.NewTicker(verifyEvery)
	defer ticks.Stop()
	for {
		ok, err := l.ask(ctx, asked)
		if ok || ctx.Err() != nil || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.events.done:
			return l.events.err
		case <-ticks.C:
		}
	}
}

const (
	pollEvery   = 2 * time.Second
	verifyEvery = 100 * time.Millisecond
	askWithin   = 10 * time.Second
)

// ask reads the counters once, and settles what can be.
func (l *learner) ask(ctx context.Context, asked time.Time) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	ok = true
	if l.Agent.Counters {
		if ok, err = l.askPosted(ctx, asked); err != nil || !ok {
			return false, err
		}
	}
	if err := l.askMetrics(ctx); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fold.Verified()
	return true, nil
}

// askMetrics takes whatever of the agent's loss counters has risen for a loss.
func (l *learner) askMetrics(ctx context.Context) error {
	if l.metrics == nil {
		return nil
	}
	values, err := l.metrics.read(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	since, by := l.metrics.rose(values, now)
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, n := range by {
		l.fold.Lost(since, now, "the agent's "+name+" rose", n)
		l.Log.Warn("observations were lost", "count", n, "metric", name)
	}
	return nil
}

// askPosted reads the counter of each policy. It is ok if all that was posted
// before it was asked has come, or is told as lost.
func (l *learner) askPosted(ctx context.Context, asked time.Time) (ok bool, err error) {
	l.mu.Lock()
	remote := l.bird == nil || !l.origin.known // its clock may be another
	open := map[string]*reading{}
	now := time.Now()
	from, _ := l.meters.clock(now, remote)
	for _, name := range l.loaded {
		if m := l.meters.of[name]; m != nil {
			open[name] = m.begin(from, now)
		}
	}
	l.mu.Unlock()
	all, err := l.Agent.Policies(ctx, PolicyName(l.session.ID))
	l.mu.Lock()
	defer l.mu.Unlock()
	now = time.Now()
	_, to := l.meters.clock(now, remote)
	ok = err == nil
	for name, r := range open {
		m := l.meters.of[name]
		st := statusOf(all, name)
		switch {
		case err != nil:
		case standing(st) != nil:
			err = standing(st)
		case st.GetStats().GetActionCounters() == nil:
			err = fmt.Errorf("agent %s counts nothing of policy %s", l.Agent.Address, name)
		}
		if err != nil {
			m.drop(r)
			continue
		}
		m.read(r, st.GetStats().GetActionCounters().GetPost(), to)
		ok = l.settle(m, asked, now) && ok
	}
	return ok && err == nil, err
}

func statusOf(all []*api.TracingPolicyStatus, name string) *api.TracingPolicyStatus {
	for _, st := range all {
		if st.GetName() == name {
			return st
		}
	}
	return nil
}

// settle tells what a meter shows to be lost.
func (l *learner) settle(m *meter, asked, now time.Time) bool {
	lost, ok := m.settle(asked, now)
	for _, d := range lost {
		l.fold.Lost(d.from, d.to, lostCause, uint64(d.count))
		l.Log.Warn("observations were lost", "count", d.count, "from", d.from, "to", d.to)
	}
	if !ok && now.Sub(asked) > heldBack+sharperWithin {
		// Events came all the time: no reading was exact.
		l.fold.Lost(m.settled, now, "whether observations were lost cannot be told", 0)
		return true
	}
	return ok
}

const lostCause = "the agent posted more events than came"
