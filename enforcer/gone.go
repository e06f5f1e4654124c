package enforcer

import (
	"context"
	"errors"
	"time"

	"profile/internal/tetragon"
	"profile/store"
)

// StillThereError is returned where what is said to be gone is not.
type StillThereError struct {
	Agent string
	Why   string
}

func (e *StillThereError) Error() string { return "agent " + e.Agent + " is not gone: " + e.Why }

// ErrEmbeddedThere is why the embedded sensor is never gone.
var ErrEmbeddedThere = &StillThereError{Agent: tetragon.Embedded, Why: "it is part of this program, and the kernel tells what it has in force"}

// Gone records as ended what the database has in force with the agent of an
// address, which a person says is gone for good: it is not asked. What is kept
// in a policy directory is removed as far as it can be. It gives the numbers of
// the generations, also if a file could not be removed.
func Gone(ctx context.Context, s *store.Store, address string) (ended []uint64, err error) {
	if address == tetragon.Embedded {
		return nil, ErrEmbeddedThere
	}
	lock, err := lockForce(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	now := time.Now()
	var others bool
	var moved error
	err = s.Update(ctx, func(tx *store.Tx) error {
		ended, others, moved = nil, false, nil
		all, err := unended(tx)
		if err != nil {
			return err
		}
		return changeGenerations(tx, all, func(g *store.Generation) bool {
			if g.Agent != address {
				others = true
				return false
			}
			if g.Dir != "" { // its files are those of another path
				moved = errors.Join(moved, CheckMoved(s, g))
			}
			ended = append(ended, g.N)
			end(g, store.StateReleased, now)
			return true
		})
	})
	if err == nil && !others {
		err = clearDirs(ctx, s, nil)
	}
	return ended, errors.Join(err, moved)
}

// CheckGone gives a *StillThereError if an agent has any of what a generation
// loaded: it may go by another address by now.
func CheckGone(ctx context.Context, a *tetragon.Agent, g *store.Generation) error {
	policies, err := a.Policies(ctx, tetragon.EnforcePrefix)
	if err != nil {
		return err
	}
	for _, name := range g.Policies {
		if policyNamed(policies, name) != nil {
			return &StillThereError{Agent: a.Address, Why: "it has policy " + name}
		}
	}
	return nil
}
