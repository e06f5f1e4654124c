package profiler

import (
	"context"
	"fmt"
	"slices"

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

// stageOf is the stage in which an executable is listed, "" if it is not, of
// what it did at a time. A container may share the host's pid namespace.
func (f *Fold) stageOf(key store.Key, amongHosts bool, at int64) string {
	if key.Scope != store.HostScope && !amongHosts {
		return "" // a policy acts on the host's pid namespace alone
	}
	for _, l := range slices.Backward(f.listed) {
		if _, ok := slices.BinarySearch(l.paths, key.Path); ok {
			if _, before := f.taken[l.generation]; !before {
				f.taken[l.generation] = at
			}
			return l.stage
		}
	}
	return ""
}

// lapsed says that a generation no longer acts: what was taken for attempts
// since it was last found to may have been none.
func (f *Fold) lapsed(generation uint64) {
	if at, some := f.taken[generation]; some {
		f.gap(at, f.latest, fmt.Sprintf("generation %d acts no more; network use may have been taken for attempts", generation), 0)
		delete(f.taken, generation)
	}
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
