package profiler

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"profile/internal/tetragon"
	"profile/store"
)

// A Tetragon does not tell of a socket whether an enforcing policy acts on the
// process as well. So that a kill does not make a network user of the killed, a
// learner looks up what its database lists: the generation that is in force, if
// the agent has not forgotten it, and one that is being loaded.

// listing is what one generation lists.
type listing struct {
	generation uint64
	paths      []string // sorted
	stage      string
}

// SetListed says which executables of the host are listed from now on: their
// sockets are attempts. The later listing counts where there are several.
func (f *Fold) SetListed(all []listing) { f.listed = all }

// stageOf is the stage in which an executable is listed, "" if it is not.
// A container may share the host's pid namespace.
func (f *Fold) stageOf(key store.Key, amongHosts bool) string {
	if key.Scope != store.HostScope && !amongHosts {
		return "" // a policy acts on the host's pid namespace alone
	}
	for _, l := range slices.Backward(f.listed) {
		if _, ok := slices.BinarySearch(l.paths, key.Path); ok {
			return l.stage
		}
	}
	return ""
}

// setListed tells the fold what of all that is listed is acted on.
func (l *learner) setListed(all []listing) {
	l.fold.SetListed(slices.DeleteFunc(slices.Clone(all), func(o listing) bool { return l.forgotten[o.generation] }))
}

// lookUpListed takes over what the database says is in force. It is the main
// goroutine's.
func (l *learner) lookUpListed(ctx context.Context) {
	if l.told {
		return
	}
	listed, err := l.readListed(ctx)
	if err != nil {
		if !l.blind {
			l.Log.Error("what is in force cannot be read: a socket of what is listed counts as network use", "error", err)
		}
		l.blind = true
		return
	}
	l.blind = false
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setListed(listed)
}

// readListed reads the database's listings, if others are in force than before.
func (l *learner) readListed(ctx context.Context) ([]listing, error) {
	err := l.Store.View(ctx, func(tx *store.Tx) error {
		states, err := tx.GenerationStates()
		if err != nil || l.listed != nil && slices.Equal(states, l.states) {
			return err
		}
		listed := []listing{}
		for _, st := range states {
			if st.State != store.StateLoaded && st.State != store.StateLoading {
				continue
			}
			g, err := tx.Generation(st.N)
			if err != nil {
				return err
			}
			if g != nil && g.Agent != tetragon.Embedded && g.Cgroup == "/" {
				listed = append(listed, listing{g.N, g.Paths, g.Stage})
			}
		}
		l.states, l.listed = states, listed
		return nil
	})
	return l.listed, err
}

// findForgotten asks the agent which generations it has forgotten, as one does
// that was restarted: they act on nobody.
func (l *learner) findForgotten(ctx context.Context) error {
	if l.told {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	all, err := l.Agent.Policies(ctx, strings.TrimSuffix(tetragon.EnforcePrefix, "-")) // as one that was printed begins
	if err != nil {
		return fmt.Errorf("look up what is in force: %w", err)
	}
	var has []string
	for _, st := range all {
		has = append(has, st.GetName())
	}
	forgotten, others := map[uint64]bool{}, slices.Clone(has)
	err = l.Store.View(ctx, func(tx *store.Tx) error {
		states, err := tx.GenerationStates()
		for _, st := range states {
			if st.State != store.StateLoaded && st.State != store.StateLoading {
				continue
			}
			g, err := tx.Generation(st.N)
			if err != nil {
				return err
			}
			if g == nil {
				continue
			}
			own := func(name string) bool { return slices.Contains(g.Policies, name) }
			forgotten[st.N] = st.State == store.StateLoaded && !slices.ContainsFunc(has, own)
			others = slices.DeleteFunc(others, own)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look up what is in force: %w", err)
	}
	if len(others) > 0 {
		l.Log.Warn("policies are in force that are not of this database: what they kill, or count in monitor, is learned as network use", "policies", others)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgotten = forgotten
	l.setListed(l.fold.listed)
	return nil
}
