package profiler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
)

// deploy loads the audit policy, with as much of it as the agent takes, and
// notes what it does not tell then: forks, or the names of executables.
func (l *learner) deploy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadWithin)
	defer cancel()
	l.loaded = nil
	full := AuditPolicy(l.session.ID, l.Agent, l.Group)
	less := without(full, tetragon.CallFork)
	tries := []*tetragon.Policy{full, less, without(less, tetragon.CallExec)}
	switch {
	case l.Agent.IsSensor():
		tries = tries[:1]
	case !l.Agent.TaskArgs:
		tries = tries[1:]
	}
	var err error
	for i, p := range tries {
		if err = l.Agent.Add(ctx, p); err == nil {
			l.loaded = []string{p.Metadata.Name}
			l.deployed(ctx, hasCall(p, tetragon.CallExec), hasCall(p, tetragon.CallFork))
			return nil
		}
		if ctx.Err() != nil || i == len(tries)-1 {
			break
		}
		l.Log.Warn("the agent does not take the whole audit policy: trying a smaller one", "error", err)
	}
	return err
}

// deployed notes what the audit policy tells of. Forks that it has no hook for
// are asked of a tracepoint.
func (l *learner) deployed(ctx context.Context, execs, forks bool) {
	if !forks {
		p := ForkPolicy(l.session.ID)
		if err := l.Agent.Add(ctx, p); err != nil {
			l.Log.Warn("the agent does not tell of forks: that is a gap", "error", err)
		} else {
			l.loaded, forks = append(l.loaded, p.Metadata.Name), true
		}
	}
	if !execs {
		l.Log.Warn("the agent does not tell the executable of an exec: it goes by the name it was started by, where that can be resolved")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fold.cfg.NoExecs, l.fold.cfg.Forks = !execs, forks
	l.meter.fresh()
}

// unload takes off whatever of the session is loaded.
func (l *learner) unload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, deleteWithin)
	defer cancel()
	var errs []error
	for _, name := range l.loaded {
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

// present reports whether every policy of the session is still loaded.
func (l *learner) present(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	all, err := l.Agent.Policies(ctx, PolicyName(l.session.ID))
	if err != nil {
		return false, err
	}
	for _, name := range l.loaded {
		if !slices.ContainsFunc(all, func(st *api.TracingPolicyStatus) bool { return st.GetName() == name }) {
			return false, nil
		}
	}
	return len(l.loaded) > 0, nil
}

func hasCall(p *tetragon.Policy, call string) bool {
	return slices.ContainsFunc(p.Spec.KProbes, func(k tetragon.KProbe) bool { return k.Call == call })
}

// without is a policy without one of its hooks.
func without(p *tetragon.Policy, call string) *tetragon.Policy {
	less := *p
	less.Spec.KProbes = slices.DeleteFunc(slices.Clone(p.Spec.KProbes), func(k tetragon.KProbe) bool { return k.Call == call })
	return &less
}
