package enforcer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"profile/internal/canary"
	"profile/internal/tetragon"
	"profile/store"
)

// How long a kill may take to be counted, and how often that is asked.
const (
	countWithin = 3 * time.Second
	countEvery  = 10 * time.Millisecond
)

// OnThisHost reports whether canaries run here are the agent's to see.
func OnThisHost(a *tetragon.Agent) bool { return a.OnThisHost() }

// installCanaries puts the two canaries in place. done removes them.
func (a *applier) installCanaries() (done func(), err error) {
	dir, err := canary.Dir(a.Store.Path())
	if err != nil {
		return nil, err
	}
	done = func() {
		for _, c := range []*canary.Canary{a.listed, a.unlisted} {
			if c != nil {
				_ = c.Remove()
			}
		}
		_ = os.Remove(dir) // fails while a learner keeps its canary there
	}
	if a.listed, err = canary.Install(dir, listedCanary(a.gen.N)); err == nil {
		a.unlisted, err = canary.Install(dir, "profile-canary-unlisted")
	}
	if err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// listedCanary names the canary that a generation lists. It is no other
// generation's: the death of that would not prove this one.
func listedCanary(n uint64) string { return fmt.Sprintf("profile-canary-listed-%d", n) }

// arm proves that the policy acts, and on nothing that it does not list.
func (a *applier) arm(ctx context.Context) error {
	before, counts, err := a.counted(ctx)
	if err != nil {
		return err
	}
	res, err := a.listed.Run(ctx, a.Group)
	if err != nil {
		return err
	}
	if err := checkListed(a.gen.Stage, res, counts); err != nil {
		return err
	}
	if counts {
		if err := a.awaitCount(ctx, before); err != nil {
			return err
		}
	}
	if res, err = a.unlisted.Run(ctx, a.Group); err != nil {
		return err
	}
	if res.Killed || res.Refused {
		return errors.New("it acts on what it does not list: a canary that is not in it could not open a socket")
	}
	return nil
}

// checkListed judges what became of the canary that the policy lists.
func checkListed(stage string, res canary.Result, counts bool) error {
	switch {
	case stage == store.StageEnforce && res.Refused:
		return errors.New("it does not kill: the canary that it lists was refused its socket, and lived")
	case stage == store.StageEnforce && !res.Killed:
		return errors.New("it does not act: the canary that it lists opened a socket, and lived")
	case stage == store.StageMonitor && (res.Killed || res.Refused):
		return errors.New("it does more than count: the canary that it lists could not open a socket")
	case stage == store.StageMonitor && !counts:
		return errors.New("the agent does not count what a policy in monitor mode would have killed")
	}
	return nil
}

// counted is how often the policy says that it acted on the listed canary, or
// where the agent cannot tell executables apart, on anything. ok is false if
// the agent does not count.
func (a *applier) counted(ctx context.Context) (n uint64, ok bool, err error) {
	st, err := a.Agent.Policy(ctx, a.gen.Policy)
	if err != nil {
		return 0, false, err
	}
	if st == nil {
		return 0, false, fmt.Errorf("the agent no longer lists policy %s", a.gen.Policy)
	}
	if !a.Agent.IsSensor() {
		c := st.GetStats().GetActionCounters()
		if a.gen.Stage == store.StageMonitor {
			return c.GetMonitorSignal(), c != nil, nil
		}
		return c.GetSignal(), c != nil, nil
	}
	info, err := a.Agent.Info(st)
	if err != nil {
		return 0, false, err
	}
	for _, k := range info.Kills {
		if string(k.Path) == a.listed.Path() {
			if a.gen.Stage == store.StageMonitor {
				return k.Would, true, nil
			}
			return k.Kills, true, nil
		}
	}
	return 0, true, nil
}

func (a *applier) awaitCount(ctx context.Context, before uint64) error {
	ticks := time.NewTicker(countEvery)
	defer ticks.Stop()
	deadline := time.Now().Add(countWithin)
	for {
		n, _, err := a.counted(ctx)
		if err != nil {
			return err
		}
		if n > before {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not count: the canary that it lists opened a socket, and %s later no counter tells of it", countWithin)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticks.C:
		}
	}
}
