package enforcer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/canary"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// settleWithin bounds what must be done even if the caller has given up:
// taking a generation off again, or recording what is in force. Agents were
// seen to take 30 s for one policy (FACTS 46).
const settleWithin = time.Minute

// noticeWithin is how long one who learns from a Tetragon may take to notice what
// is being loaded, for which it looks each second: it would take for network use
// what is killed before that.
const noticeWithin = 1500 * time.Millisecond

// ErrEmptyPlan is returned for a plan that lists nothing.
var ErrEmptyPlan = errors.New("the plan is empty: there is nothing to enforce")

// ErrCannotTry is returned for an agent of another host, on which no canary can
// be run; ApplyOptions.Untried takes that.
var ErrCannotTry = errors.New("the agent is on another host: that the policy acts cannot be tried from here")

// FailedError says that a generation was not brought into force, and what is
// instead.
type FailedError struct {
	Generation uint64
	InForce    uint64 // 0 is none
	Err        error  // why it failed
	Left       error  // why it could not be taken off again; nil if it was
}

func (e *FailedError) Error() string {
	if e.Left != nil {
		return fmt.Sprintf("generation %d failed: %v; it could not be taken off and may be in force: %v", e.Generation, e.Err, e.Left)
	}
	instead := "nothing is in force"
	if e.InForce != 0 {
		instead = fmt.Sprintf("generation %d stays in force", e.InForce)
	}
	return fmt.Sprintf("generation %d failed and was taken off: %v; %s", e.Generation, e.Err, instead)
}

func (e *FailedError) Unwrap() error { return e.Err }

// ElsewhereError is returned where another agent may have something in force
// for the same database, which would go on there and be forgotten.
type ElsewhereError struct {
	Generation uint64
	Agent      string // that has it
}

func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("generation %d was loaded by agent %s, where it stays in force", e.Generation, e.Agent)
}

// ApplyOptions say what is applied, and where.
type ApplyOptions struct {
	Agent *tetragon.Agent
	Store *store.Store
	Plan  *Plan
	Group cgroup.Group // of the plan's cgroup; on another host only its Path counts
	// Untried takes a generation on another host without proof that it acts.
	Untried bool
	// Dir is the agent's policy directory to keep the policies in as well, so
	// that the agent has them when it is restarted; "" is none. See CheckDir.
	Dir string
}

// Unchanged reports whether what would be applied is what a generation, which
// is in force, was loaded to.
func Unchanged(o ApplyOptions, g *store.Generation) bool {
	dir, err := o.Dir, error(nil)
	if dir != "" {
		dir, err = CheckDir(dir)
	}
	p := o.Plan
	return err == nil && g != nil && g.State == store.StateLoaded && g.N == p.Loaded && g.Agent == o.Agent.Address && g.Dir == dir &&
		g.Stage == p.Stage && g.Cgroup == p.Cgroup && slices.Equal(g.Families, p.Families) && slices.Equal(g.Paths, p.Enforce)
}

// applier brings one generation into force.
type applier struct {
	ApplyOptions
	try bool // canaries can be run
	gen store.Generation
	old *store.Generation // in force before; nil if none was

	dir      string // of the canaries, if they can be run
	policies []*tetragon.Policy
	promotes bool // by switching the old generation's policies
	kept     bool // something was written into the policy directory
	// uncounted is why the last counts of the old generation are lost.
	uncounted error
}

// Apply loads a plan as a new generation, proves that it acts, and only then
// takes the old one off, so that there is no gap between them. If anything
// fails before that, the new one is taken off, the old one stays, and the
// error is a *FailedError. A generation in monitor that the plan would only
// enforce is promoted: its policies are switched, and proven in the same way.
// An error beside a generation says that it is in force and what could not be
// tidied up.
func Apply(ctx context.Context, o ApplyOptions) (*store.Generation, error) {
	a := &applier{ApplyOptions: o, try: OnThisHost(o.Agent)}
	switch {
	case len(o.Plan.Enforce) == 0:
		return nil, ErrEmptyPlan
	case o.Group.Path != o.Plan.Cgroup:
		return nil, fmt.Errorf("apply: the plan is for %s, not for %s", tellCgroup(o.Plan.Cgroup), tellCgroup(o.Group.Path))
	case !a.try && !o.Untried:
		return nil, fmt.Errorf("agent %s: %w", o.Agent.Address, ErrCannotTry)
	}
	if err := a.checkDir(); err != nil {
		return nil, err
	}
	lock, err := lockForce(ctx, o.Store)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if a.try {
		var err error
		if a.dir, err = canary.Dir(a.Store.Path()); err != nil {
			return nil, err
		}
		defer os.Remove(a.dir) // fails while a learner keeps its canary there
	}
	if err := a.record(ctx); err != nil {
		return nil, err
	}
	// What is in force again lists nothing that is new to whoever learns.
	again := a.old != nil && slices.Equal(a.old.Paths, a.gen.Paths)
	if !a.Agent.IsSensor() && !again && a.Store.Learning() {
		pause(ctx, noticeWithin)
	}
	if err := a.bring(ctx); err != nil {
		return nil, a.fail(ctx, err)
	}
	return &a.gen, errors.Join(a.takeOffOthers(ctx), clearDirs(ctx, a.Store, &a.gen), a.uncounted)
}

// changeWithin is how long a command may take to change what is in force before
// another does not wait for it any longer.
const changeWithin = 2 * time.Minute

// lockForce keeps two commands from taking off what the other is trying.
func lockForce(ctx context.Context, s *store.Store) (*store.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, changeWithin)
	defer cancel()
	return s.LockForce(ctx)
}

// record writes the generation down before the agent is asked, so that what a
// killed command leaves is known.
func (a *applier) record(ctx context.Context) error {
	p := a.Plan
	policies, err := policiesOf(ctx, a.Agent, a.Store)
	if err != nil {
		return err
	}
	return a.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := unended(tx)
		if err != nil {
			return err
		}
		a.old = inForce(all)
		if err := errors.Join(a.checkUnchanged(), checkElsewhere(all, a.Agent.Address, policies)); err != nil {
			return err
		}
		n, err := tx.NextGeneration()
		if err != nil {
			return err
		}
		n = max(n, highest(a.Store, policies)+1)
		a.gen = store.Generation{N: n, State: store.StateLoading, Stage: p.Stage, Agent: a.Agent.Address,
			Dir: a.Dir, Cgroup: p.Cgroup, Paths: p.Enforce, Families: p.Families, Files: p.Files,
			MinRuns: p.Thresholds.MinRuns, MinWatch: p.Thresholds.MinWatch, AcceptGaps: p.Thresholds.AcceptGaps,
			LearnedSince: p.Thresholds.Since, Wider: p.Wider, Sessions: p.Sessions, Since: time.Now()}
		if a.canPromote(policies) {
			if err := a.write(a.old.Policies[0], p.Stage); err != nil {
				return err
			}
			a.promotes = slices.Equal(a.gen.Policies, a.old.Policies)
		}
		if !a.promotes {
			if err := a.write(policyName(a.Store, n), p.Stage); err != nil {
				return err
			}
		}
		return tx.PutGeneration(&a.gen)
	})
}

// checkUnchanged refuses a plan that was reviewed against something else than
// is in force.
func (a *applier) checkUnchanged() error {
	var now uint64
	if a.old != nil {
		now = a.old.N
	}
	if now != a.Plan.Loaded {
		return fmt.Errorf("another command changed what is in force, from generation %d to %d, since the plan was made: make it again", a.Plan.Loaded, now)
	}
	return nil
}

// checkElsewhere refuses an agent that would leave behind what another has in
// force. One agent may go by two addresses: then it lists the policies.
func checkElsewhere(all []store.Generation, address string, policies []*api.TracingPolicyStatus) error {
	for _, g := range all {
		live := g.State == store.StateLoaded || g.State == store.StateLoading
		if live && g.Agent != address && !listsAny(policies, g.Policies) {
			return &ElsewhereError{Generation: g.N, Agent: g.Agent}
		}
	}
	return nil
}

// recordInForce records the new generation as in force, and the old one as
// replaced.
func (a *applier) recordInForce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	var kills []store.Kill
	if a.old != nil {
		var err error
		if kills, err = a.lastKills(ctx); err != nil {
			// An old generation that is broken must not keep a new one out.
			a.uncounted = fmt.Errorf("the last counts of generation %d are lost: %w", a.old.N, err)
		}
	}
	now := time.Now()
	loaded := a.gen
	loaded.State, loaded.Since = store.StateLoaded, now
	err := a.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := unended(tx)
		if err != nil {
			return err
		}
		a.old = inForce(all)
		if err := a.checkUnchanged(); err != nil {
			return err
		}
		return changeGenerations(tx, all, func(g *store.Generation) bool {
			switch {
			case g.N == loaded.N:
				*g = loaded
			case a.old != nil && g.N == a.old.N:
				g.Kills = raiseKills(g.Kills, kills)
				end(g, store.StateReplaced, now)
			case g.State == store.StateLoading:
				end(g, store.StateFailed, now) // a killed command's; its policy goes below
			default:
				return false
			}
			return true
		})
	})
	if err == nil {
		a.gen = loaded
	}
	return err
}

// lastKills asks for what the old generation counted alone. Since the new one
// acts, both count the same kills, if they are of one stage and the old one acts
// wherever the new one does. They are asked in one call, so that little happens
// in between.
func (a *applier) lastKills(ctx context.Context) ([]store.Kill, error) {
	policies, err := list(ctx, a.Agent, policyPrefix(a.Store))
	if err != nil {
		return nil, err
	}
	old, _, err := readKills(a.Agent, policies, *a.old)
	if err != nil || a.old.Stage != a.gen.Stage || !contains(a.old.Cgroup, a.gen.Cgroup) {
		return old, err
	}
	both, _, err := readKills(a.Agent, policies, a.gen)
	return lowerKills(old, both), err
}
