package enforcer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
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

// canaryPath is where the canary lies that a policy lists. It is no other
// policy's: the death of that would not prove this one.
func (a *applier) canaryPath(policy string) string { return filepath.Join(a.dir, canaryName(policy)) }

func canaryName(policy string) string {
	return "profile-canary-listed-" + policy[strings.LastIndex(policy, "-g")+len("-g"):]
}

// arm proves that each policy acts, and on nothing that it does not list.
func (a *applier) arm(ctx context.Context) error {
	for _, policy := range a.gen.Policies {
		if err := a.armOne(ctx, policy); err != nil {
			return fmt.Errorf("policy %s: %w", policy, err)
		}
	}
	res, err := a.run(ctx, "profile-canary-unlisted")
	if err != nil {
		return err
	}
	if res.Killed || res.Refused {
		return errors.New("it acts on what it does not list: a canary that is not in it could not open a socket")
	}
	return nil
}

// run runs a canary of the name, and removes it.
func (a *applier) run(ctx context.Context, name string) (canary.Result, error) {
	c, err := canary.Install(a.dir, name)
	if err != nil {
		return canary.Result{}, err
	}
	res, err := c.Run(ctx, a.Group)
	return res, errors.Join(err, c.Remove())
}

// armOne proves that one policy acts.
func (a *applier) armOne(ctx context.Context, policy string) error {
	before, counts, err := a.counted(ctx, policy)
	if err != nil {
		return err
	}
	res, err := a.run(ctx, canaryName(policy))
	if err != nil {
		return err
	}
	if err := checkListed(a.gen.Stage, res, counts); err != nil || !counts {
		return err
	}
	return a.awaitCount(ctx, policy, before)
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

// counted is how often a policy says that it acted on the listed canary, or
// where the agent cannot tell executables apart, on anything. ok is false if
// the agent does not count.
func (a *applier) counted(ctx context.Context, policy string) (n uint64, ok bool, err error) {
	st, err := a.Agent.Policy(ctx, policy)
	if err != nil {
		return 0, false, err
	}
	if st == nil {
		return 0, false, errors.New("the agent no longer lists it")
	}
	if !a.Agent.IsSensor() {
		n, ok = countOf(st, a.gen.Stage)
		return n, ok, nil
	}
	info, err := a.Agent.Info(st)
	if err != nil {
		return 0, false, err
	}
	for _, k := range info.Kills {
		if string(k.Path) == a.canaryPath(policy) {
			if a.gen.Stage == store.StageMonitor {
				return k.Would, true, nil
			}
			return k.Kills, true, nil
		}
	}
	return 0, true, nil
}

func (a *applier) awaitCount(ctx context.Context, policy string, before uint64) error {
	ticks := time.NewTicker(countEvery)
	defer ticks.Stop()
	deadline := time.Now().Add(countWithin)
	for {
		n, _, err := a.counted(ctx, policy)
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
