package enforcer

import (
	"context"
	"errors"
	"slices"
	"time"

	"profile/internal/tetragon"
	"profile/store"
)

// Release takes off every enforcing policy of the database, that of the
// generation in force and what a killed command left, and returns their names;
// and removes what is kept of them in a policy directory.
// What was counted is recorded first; that it cannot be does not keep anything
// in force. If a policy cannot be deleted, its generation stays recorded as
// in force, as does one that another agent has: that is an *ElsewhereError.
func Release(ctx context.Context, a *tetragon.Agent, s *store.Store) ([]string, error) {
	errs := []error{CountKills(ctx, a, s)}
	policies, err := policiesOf(ctx, a, s)
	if err != nil {
		return nil, err
	}
	var names []string
	kept := map[string]bool{}
	for _, st := range policies {
		if err := a.Delete(ctx, st.GetName()); err != nil {
			errs = append(errs, err)
			kept[st.GetName()] = true
			continue
		}
		names = append(names, st.GetName())
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
			end(g, store.StateReleased, now)
			return true
		})
	}))
	if len(kept) == 0 {
		errs = append(errs, clearDirs(ctx, s, nil))
	}
	return names, errors.Join(errs...)
}
