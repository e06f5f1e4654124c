package profiler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/internal/tetragon"
)

// deploy loads the audit policies, with as much of them as the agent takes,
// and notes what they do not tell then: forks, or the names of executables.
func (l *learner) deploy(ctx context.Context) error {
	l.loaded, l.whole = nil, false
	l.mu.Lock()
	l.meters.of = nil
	l.mu.Unlock()
	if l.Agent.IsSensor() {
		err := l.add(ctx, AuditPolicy(l.session.ID, l.Agent, l.Group))
		l.whole = err == nil
		return err
	}
	if err := l.deployProcesses(ctx); err != nil {
		return err
	}
	err := l.deploySockets(ctx)
	l.whole = err == nil
	if err == nil && l.Agent.Counters {
		err = l.findCounters(ctx)
	}
	return err
}

// findCounters finds out whether the agent counts what its policies post, as its
// version does: where it does not, what it loses cannot be counted.
func (l *learner) findCounters(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	all, err := l.Agent.Policies(ctx, PolicyName(l.session.ID))
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	uncounted := func(st *api.TracingPolicyStatus) bool {
		return l.meters.of[st.GetName()] != nil && st.GetStats().GetActionCounters() == nil
	}
	if !slices.ContainsFunc(all, uncounted) {
		return nil
	}
	l.Log.Warn("the agent lists its policies without counters: what it loses cannot be counted, unless its metrics tell")
	less := *l.Agent
	less.Counters = false
	l.Agent = &less
	l.fold.cfg.Verify = l.counts()
	l.fold.cfg.Losses = l.fold.cfg.Losses && l.fold.cfg.Verify
	return nil
}

// deploySockets asks for sockets, and for what they are used for, with as much
// of that as the agent takes.
func (l *learner) deploySockets(ctx context.Context) error {
	var err error
	for _, try := range smaller(l.Agent) {
		l.Agent = try
		if err = l.add(ctx, l.socketsAnew()); err == nil || isAway(err) {
			break
		}
		l.Log.Warn("the agent does not take the policy for sockets", "families", try.Families, "uses", try.Uses, "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// A session in which it once was not watched is not one that watched it.
	l.fold.cfg.Uses = l.fold.cfg.Uses && len(l.Agent.Uses) > 0
	l.watched = slices.DeleteFunc(slices.Clone(l.watched), func(f string) bool { return !slices.Contains(l.Agent.Families, f) })
	return err
}

// smaller gives an agent with what it may be asked of sockets, and then with
// less and less: what they are used for is left out, then the families that
// Equal has no room for.
func smaller(agent *tetragon.Agent) []*tetragon.Agent {
	tries := []*tetragon.Agent{agent}
	if len(agent.Families) > tetragon.MaxEqual {
		few := *agent
		few.Families = agent.Families[:tetragon.MaxEqual:tetragon.MaxEqual]
		tries = append(tries, &few)
	}
	for i := 0; i < len(tries); i += 2 {
		if len(tries[i].Uses) > 0 {
			plain := *tries[i]
			plain.Uses = nil
			tries = slices.Insert(tries, i+1, &plain)
		}
	}
	return tries
}

// isAway reports whether the agent did not answer, so that it refused nothing.
func isAway(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// add loads one policy. Behind a stream that has told something all that it
// posts is to come: else what it holds at first cannot be told from a loss.
func (l *learner) add(ctx context.Context, p *tetragon.Policy) error {
	ctx, cancel := context.WithTimeout(ctx, loadWithin)
	defer cancel()
	if len(p.Spec.KProbes) > 0 {
		l.mu.Lock()
		l.meters.add(p.Metadata.Name, l.heard, time.Now()) // its events may come before the agent says that it is loaded
		l.mu.Unlock()
	}
	if err := l.Agent.Add(ctx, p); err != nil {
		l.forget(p.Metadata.Name)
		return err
	}
	l.loaded = append(l.loaded, p.Metadata.Name)
	return nil
}

// deployProcesses asks for execs and forks. Forks that no kprobe tells of are
// asked of a tracepoint.
func (l *learner) deployProcesses(ctx context.Context) error {
	full := ProcessPolicy(l.session.ID)
	plain := withoutData(full)
	tries := []*tetragon.Policy{full, plain, without(plain, tetragon.CallFork)}
	if !l.Agent.TaskArgs {
		tries = tries[2:]
	}
	execs, forks := false, false
	for _, p := range tries {
		err := l.add(ctx, p)
		if err == nil {
			execs, forks = true, hasCall(p, tetragon.CallFork)
			break
		}
		if isAway(err) {
			return err
		}
		l.Log.Warn("the agent does not take the whole audit policy: trying a smaller one", "error", err)
	}
	if !forks {
		if err := l.add(ctx, ForkPolicy(l.session.ID)); err != nil {
			l.Log.Warn("the agent does not tell of forks: that is a gap", "error", err)
		} else {
			forks = true
		}
	}
	if !execs {
		l.Log.Warn("the agent does not tell the executable of an exec: it goes by the name it was started by, where that can be resolved")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fold.cfg.NoExecs, l.fold.cfg.Forks = !execs, forks
	return ctx.Err()
}

// unload takes off whatever of the session is loaded, or was left of a load
// that failed.
func (l *learner) unload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deleteWithin)
	defer cancel()
	names := slices.Clone(l.loaded)
	if all, err := l.Agent.Policies(ctx, PolicyName(l.session.ID)); err == nil {
		for _, st := range all {
			if !slices.Contains(names, st.GetName()) {
				names = append(names, st.GetName())
			}
		}
	}
	var errs []error
	for _, name := range names {
		if err := l.Agent.Delete(ctx, name); err != nil {
			// An agent that was restarted has forgotten it.
			if st, err2 := l.Agent.Policy(ctx, name); err2 == nil && st == nil {
				continue
			}
			errs = append(errs, fmt.Errorf("take the audit policy off: %w", err))
		}
	}
	return errors.Join(errs...)
}

// standing gives an errGone if a policy of the session is loaded no more, or has
// been disabled or given up: it would be told of nothing, and nothing be lost.
func standing(st *api.TracingPolicyStatus) error {
	switch {
	case st == nil:
		return errGone
	case st.GetState() != api.TracingPolicyState_TP_STATE_ENABLED:
		return fmt.Errorf("%w: %s", errGone, cmp.Or(st.GetError(), "it lists it as "+st.GetState().String()))
	}
	return nil
}

// present reports whether every policy of the session is still loaded. Of one
// that acts no more it gives an errGone that says why.
func (l *learner) present(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	all, err := l.Agent.Policies(ctx, PolicyName(l.session.ID))
	if err != nil {
		return false, err
	}
	for _, name := range l.loaded {
		st := statusOf(all, name)
		if st == nil {
			return false, nil
		}
		if err := standing(st); err != nil {
			return false, err
		}
	}
	return l.whole, nil
}

// stands gives an errGone where what is loaded is no longer there or acts no
// more, and the gap since it was last found to stand: where nothing is counted,
// nothing else tells.
func (l *learner) stands(ctx context.Context, stood time.Time) error {
	there, err := l.present(ctx)
	if err == nil && !there {
		err = errGone
	}
	if errors.Is(err, errGone) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.fold.Lost(stood, time.Now(), "the audit policy was gone or disabled", 0)
	}
	return err
}

func hasCall(p *tetragon.Policy, call string) bool {
	return slices.ContainsFunc(p.Spec.KProbes, func(k tetragon.KProbe) bool { return k.Call == call })
}

// withoutData is a policy whose hooks tell nothing beside their arguments.
func withoutData(p *tetragon.Policy) *tetragon.Policy {
	less := *p
	less.Spec.KProbes = slices.Clone(p.Spec.KProbes)
	for i := range less.Spec.KProbes {
		less.Spec.KProbes[i].Data = nil
	}
	return &less
}

// without is a policy without one of its hooks.
func without(p *tetragon.Policy, call string) *tetragon.Policy {
	less := *p
	less.Spec.KProbes = slices.DeleteFunc(slices.Clone(p.Spec.KProbes), func(k tetragon.KProbe) bool { return k.Call == call })
	return &less
}
