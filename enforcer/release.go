package enforcer

import (
	"context"
	"errors"
	"slices"
	"time"

	"profile/internal/tetragon"
	"profile/store"
)

// Released is what a release took off, and what it found to be gone.
type Released struct {
	Policies []string // the names of those that were deleted
	// Lost are the generations recorded as in force, by number, of which the
	// agent had nothing any more.
	Lost []uint64
}

// Release takes off every enforcing policy of the database, that of the
// generation in force and what a killed command left, and says which;
// and removes what is kept of them in a policy directory.
// What was counted is recorded first; that it cannot be does not keep anything
// in force. If a policy cannot be deleted, its generation stays recorded as
// in force, as does one that another agent has: that is an *ElsewhereError. One
// that is not found since its database was moved is a *MovedError, and recorded
// as in force no longer.
func Release(ctx context.Context, a *tetragon.Agent, s *store.Store) (Released, error) {
	var released Released
	// It must be had where nothing can be locked, too.
	if lock, err := lockForce(ctx, s); err == nil {
		defer lock.Release()
	}
	errs := []error{CountKills(ctx, a, s)}
	policies, err := policiesOf(ctx, a, s)
	if err != nil {
		return released, err
	}
	kept := map[string]bool{}
	for _, st := range policies {
		if err := a.Delete(ctx, st.GetName()); err != nil {
			errs = append(errs, err)
			kept[st.GetName()] = true
			continue
		}
		released.Policies = append(released.Policies, st.GetName())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	now := time.Now()
	errs = append(errs, s.Update(ctx, func(tx *store.Tx) error {
		all, err := unended(tx)
		if err != nil {
			return err
		}
		return changeGenerations(tx, all, func(g *store.Generation) bool {
			held := slices.ContainsFunc(g.Policies, func(name string) bool { return kept[name] })
			if held || g.State != store.StateLoaded && g.State != store.StateLoading {
				return false
			}
			if err := checkElsewhere([]store.Generation{*g}, a.Address, policies); err != nil {
				errs = append(errs, err)
				return false
			}
			if err := CheckMoved(s, g); err != nil {
				errs = append(errs, err)
				end(g, store.StateReleased, now) // it is said once
				return true
			}
			if g.State == store.StateLoaded && !slices.ContainsFunc(g.Policies, func(name string) bool { return slices.Contains(released.Policies, name) }) {
				released.Lost = append(released.Lost, g.N)
			}
			end(g, store.StateReleased, now)
			return true
		})
	}))
	if len(kept) == 0 {
		errs = append(errs, clearDirs(ctx, s, nil))
	}
	return released, errors.Join(errs...)
}
