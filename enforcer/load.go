package enforcer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// write writes the policies of the new generation, and names them in it, the
// first by name.
func (a *applier) write(name, stage string) (err error) {
	spec := PolicySpec{Name: name, Stage: stage, Cgroup: a.gen.Cgroup, Families: a.gen.Families,
		Paths: a.gen.Paths, Sensor: a.Agent.IsSensor(), Limit: a.Agent.MaxPolicy}
	if a.try {
		spec.Canary = a.canaryPath
	}
	if a.policies, err = spec.Policies(); err != nil {
		return err
	}
	a.gen.Policies = nil
	for _, p := range a.policies {
		a.gen.Policies = append(a.gen.Policies, p.Metadata.Name)
	}
	return nil
}

// bring promotes the old generation or loads the new one, proves that it acts,
// keeps it in the policy directory, and records it as in force.
func (a *applier) bring(ctx context.Context) error {
	if err := a.act(ctx); err != nil {
		return err
	}
	if err := a.keep(); err != nil {
		return err
	}
	return a.recordInForce(ctx)
}

func (a *applier) act(ctx context.Context) error {
	if !a.promotes {
		return a.load(ctx)
	}
	err := a.promote(ctx)
	if err == nil {
		return nil
	}
	// Loading it anew is proven by itself, whatever went wrong here.
	err = errors.Join(err, a.demote(ctx))
	anew := a.loadInstead(ctx)
	if anew == nil {
		anew = a.load(ctx)
	}
	if anew != nil {
		return errors.Join(err, anew)
	}
	return nil
}

// load adds every policy of the new generation and proves them.
func (a *applier) load(ctx context.Context) error {
	for _, p := range a.policies {
		if err := a.Agent.Add(ctx, p); err != nil {
			return err
		}
	}
	return a.prove(ctx)
}

func (a *applier) prove(ctx context.Context) error {
	if !a.try {
		return nil
	}
	before, err := list(ctx, a.Agent, policyPrefix(a.Store))
	if err != nil {
		return err
	}
	if err := a.arm(ctx); err != nil {
		return err
	}
	a.gen.Tried, a.gen.Counters = time.Now(), nil
	after, err := list(ctx, a.Agent, policyPrefix(a.Store))
	if err != nil {
		return err
	}
	if before.instance != after.instance {
		after.instance = "" // which of the two has counted the canary is not known
	}
	_, a.gen.Counters, err = readKills(a.Agent, after, a.gen)
	return err
}

// canPromote reports whether the policies of the old generation, which is in
// monitor, say all that those of the new one would. A policy is switched once
// in its life, so that what it counts in each mode is one generation's.
func (a *applier) canPromote(listed []*api.TracingPolicyStatus) bool {
	return a.old != nil && a.Agent.Monitor && a.old.Stage == store.StageMonitor && a.gen.Stage == store.StageEnforce &&
		a.old.Agent == a.gen.Agent && a.old.Cgroup == a.gen.Cgroup && a.old.Tried.IsZero() != a.try &&
		slices.Equal(a.old.Families, a.gen.Families) && slices.Equal(a.old.Paths, a.gen.Paths) &&
		missing(*a.old, listed) == nil
}

// promote switches the policies of the old generation to enforce.
func (a *applier) promote(ctx context.Context) error {
	for _, name := range a.gen.Policies {
		if err := a.Agent.SetMode(ctx, name, store.StageEnforce); err != nil {
			return err
		}
	}
	return a.prove(ctx)
}

// demote switches them back, and has the policy directory say so.
func (a *applier) demote(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	var errs []error
	for _, name := range a.gen.Policies {
		errs = append(errs, a.Agent.SetMode(ctx, name, store.StageMonitor))
	}
	if a.kept {
		errs = append(errs, a.write(a.gen.Policies[0], store.StageMonitor), a.keep())
	}
	return errors.Join(errs...)
}

// loadInstead makes the new generation one with policies of its own.
func (a *applier) loadInstead(ctx context.Context) error {
	a.promotes = false
	if err := a.write(policyName(a.Store, a.gen.N), a.gen.Stage); err != nil {
		return err
	}
	return a.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutGeneration(&a.gen) })
}

// takeOffOthers deletes every other enforcing policy of this database: the old
// generation, and what a killed command left.
func (a *applier) takeOffOthers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	policies, err := policiesOf(ctx, a.Agent, a.Store)
	if err != nil {
		return err
	}
	var errs []error
	for _, st := range policies {
		if !slices.Contains(a.gen.Policies, st.GetName()) {
			errs = append(errs, a.Agent.Delete(ctx, st.GetName()))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("generation %d is in force, and an older one still is too: %w", a.gen.N, err)
	}
	return nil
}

// fail takes off what was loaded of the new generation and records that it
// failed.
func (a *applier) fail(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	failed := &FailedError{Generation: a.gen.N, InForce: a.Plan.Loaded, Err: cause}
	undo := a.takeOff
	if a.promotes {
		undo = a.demote
	}
	if err := undo(ctx); err != nil {
		// Recorded as loading still, it is found by status and by release.
		failed.Left = err
		return failed
	}
	err := a.Store.Update(ctx, func(tx *store.Tx) error {
		end(&a.gen, store.StateFailed, time.Now())
		return errors.Join(shortenBefore(tx, &a.gen), tx.PutGeneration(&a.gen))
	})
	failed.Err = errors.Join(cause, err)
	return failed
}

// shortenBefore drops the list of the try before a failed one, if it failed at
// the same: what is watched over is tried again for as long as it fails.
func shortenBefore(tx *store.Tx, g *store.Generation) error {
	before, err := tx.Generation(g.N - 1)
	if err != nil || before == nil || before.State != store.StateFailed || len(before.Kills) > 0 || !slices.Equal(before.Paths, g.Paths) {
		return err
	}
	before.Paths, before.Files, before.Sessions = nil, nil, nil
	return tx.PutGeneration(before)
}

// takeOff takes the new generation out of the policy directory and off the
// agent.
func (a *applier) takeOff(ctx context.Context) error {
	if err := a.unkeep(); err != nil {
		return err
	}
	listed, err := a.Agent.Policies(ctx, tetragon.EnforcePrefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, st := range listed {
		if slices.Contains(a.gen.Policies, st.GetName()) {
			errs = append(errs, a.Agent.Delete(ctx, st.GetName()))
		}
	}
	return errors.Join(errs...)
}
