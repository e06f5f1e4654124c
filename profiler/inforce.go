package profiler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// What the database has in force a Tetragon may have forgotten, or lost behind
// its back, or have loaded only some seconds after it answers, from its policy
// directory. So it is asked, as the embedded sensor looks after its own.

// inForce is what was last found to be in force. It is watch's.
type inForce struct {
	policies map[uint64][]string // of the generations that are loaded
	absent   map[uint64]bool     // those of which nothing acts
	ours     map[string]bool     // policies that are or were of this database
	others   []string            // policies that are not
}

// lookEvery is how often it is looked whether what is listed is acted on.
const lookEvery = time.Second

// findForgotten asks the agent which generations it has forgotten, as one does
// that was restarted: they act on nobody.
func (l *learner) findForgotten(ctx context.Context) error {
	l.inForce.absent = nil
	return l.look(ctx, true)
}

// lookInForce does so while it learns, if something is in force or it is time
// to look for what others have. It takes two answers in a row, since a command
// may be changing what is in force. An agent that gives none is asked again:
// what else it is asked tells whether it is gone.
func (l *learner) lookInForce(ctx context.Context, anyway bool) {
	if anyway || len(l.inForce.policies) > 0 {
		_ = l.look(ctx, false)
	}
}

func (l *learner) look(ctx context.Context, once bool) error {
	if l.told && !once { // it says itself what it acts on
		return nil
	}
	l.mu.Lock()
	before := l.fold.taken
	l.fold.taken = nil // what is taken from here on the answer may not be about
	l.mu.Unlock()
	acting, absent, others, err := l.askInForce(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range before {
		if !acting[x.generation] {
			l.fold.taken = append(l.fold.taken, x)
		}
	}
	if err != nil {
		return fmt.Errorf("look up what is in force: %w", err)
	}
	forgotten := map[uint64]bool{}
	for generation := range absent {
		if !once && !l.inForce.absent[generation] {
			continue
		}
		forgotten[generation] = true
		if !l.forgotten[generation] {
			l.Log.Warn("what is recorded as in force does not act at this agent: if it acts elsewhere, what it kills, or counts in monitor, is learned as network use", "generation", generation)
		}
	}
	known := func(name string) bool { return l.told || slices.Contains(l.inForce.others, name) }
	if more := slices.DeleteFunc(slices.Clone(others), known); len(more) > 0 {
		l.Log.Warn("policies are in force that are not of this database: what they kill, or count in monitor, is learned as network use", "policies", more)
	}
	l.inForce.absent, l.inForce.others, l.forgotten = absent, others, forgotten
	l.setListed(l.fold.listed)
	return nil
}

// askInForce gives the generations of which something acts at the agent, those
// that are loaded, by the database, and of which nothing does, and what acts
// there and is of no generation.
func (l *learner) askInForce(ctx context.Context) (acting, absent map[uint64]bool, others []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	all, err := l.Agent.Policies(ctx, strings.TrimSuffix(tetragon.EnforcePrefix, "-")) // as one that was printed begins
	if err != nil {
		return nil, nil, nil, err
	}
	acts := map[string]bool{}
	for _, st := range all {
		if st.GetState() == api.TracingPolicyState_TP_STATE_ENABLED {
			acts[st.GetName()] = true
		}
	}
	acting, absent = map[uint64]bool{}, map[uint64]bool{}
	ours, loaded := maps.Clone(l.inForce.ours), map[uint64][]string{}
	err = l.Store.View(ctx, func(tx *store.Tx) error {
		states, err := tx.GenerationStates()
		if err != nil {
			return err
		}
		for _, st := range states {
			if st.State != store.StateLoaded && st.State != store.StateLoading {
				continue
			}
			policies, read := l.inForce.policies[st.N]
			if !read {
				g, err := tx.Generation(st.N)
				if err != nil {
					return err
				}
				policies = g.Policies
			}
			for _, name := range policies {
				ours[name] = true
				acting[st.N] = acting[st.N] || acts[name]
			}
			if st.State == store.StateLoaded { // one that is being loaded may get other policies yet
				loaded[st.N] = policies
				if !acting[st.N] {
					absent[st.N] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, nil, err
	}
	l.inForce.policies, l.inForce.ours = loaded, ours
	for _, name := range slices.Sorted(maps.Keys(acts)) {
		if !ours[name] {
			others = append(others, name)
		}
	}
	return acting, absent, others, nil
}
