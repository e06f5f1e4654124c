package profiler

import (
	"context"
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

// taken is a socket that was taken for an attempt, by a listing that may have
// been acted on no more.
type taken struct {
	generation uint64
	run        *run
	of         *tally // that run's, and
	began      int64  // its exec: the run may be another by now
	use        use
}

// maxTaken bounds those that are kept: of each file and type one.
const maxTaken = 4096

// SetListed says which executables of the host are listed from now on: their
// sockets are attempts. The later listing counts where there are several. What
// was taken for an attempt since a listing that is gone was last found to be
// acted on is network use, unless another lists it: it may have been no attempt.
func (f *Fold) SetListed(all []listing) {
	f.listed = all
	f.taken = slices.DeleteFunc(f.taken, func(x taken) bool {
		if slices.ContainsFunc(all, func(l listing) bool { return l.generation == x.generation }) {
			return false
		}
		r := x.run
		if r.of != x.of || r.began != x.began {
			r = &run{of: x.of}
		}
		if stage, _ := f.stageOf(x.of.ex.key, r.amongHosts); stage == "" {
			x.use.stage = ""
			f.use(r, x.use)
		}
		return true
	})
}

// stageOf is the stage in which an executable is listed, "" if it is not, and by
// which generation. A container may share the host's pid namespace.
func (f *Fold) stageOf(key store.Key, amongHosts bool) (stage string, generation uint64) {
	if key.Scope != store.HostScope && !amongHosts {
		return "", 0 // a policy acts on the host's pid namespace alone
	}
	for _, l := range slices.Backward(f.listed) {
		if _, ok := slices.BinarySearch(l.paths, key.Path); ok {
			return l.stage, l.generation
		}
	}
	return "", 0
}

// take notes a socket that is taken for an attempt.
func (f *Fold) take(r *run, u use, generation uint64) {
	same := func(x taken) bool { return x.generation == generation && x.of == r.of && x.use.typ == u.typ }
	if len(f.taken) < maxTaken && !slices.ContainsFunc(f.taken, same) {
		f.taken = append(f.taken, taken{generation, r, r.of, r.began, u})
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
