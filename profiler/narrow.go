package profiler

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"profile/internal/tetragon"
	"profile/store"
)

// A Tetragon tells of every socket, and loses what is too much (FACTS 12). So
// it is asked no more of the paths that are known for network users: a policy
// for sockets that names them in NotIn is loaded, and once it has told of a
// socket, and all that the one before has posted, that one is deleted. Between
// the two both post, so that no socket falls between them; a run counts a
// socket once, however often it is told.

// pace is how often that is done, since loading a policy takes a real agent
// seconds: never sooner after the last time than least, after most for any
// change at all, and between the two for narrowPaths paths, or those of which
// narrowSockets sockets were told.
type pace struct{ least, most time.Duration }

var usualPace = pace{least: time.Minute, most: 10 * time.Minute}

const (
	narrowPaths   = 8
	narrowSockets = 1000
	// maxNarrowed bounds the paths of a policy.
	maxNarrowed = 4096
	// maxNameable is how long a path in a policy may be (FACTS 3).
	maxNameable = 255
)

// narrowing is how far the policy for sockets is narrowed. It is watch's.
type narrowing struct {
	pace       pace
	generation int
	loaded     string    // name of the policy in force
	paths      []string  // that it leaves out, sorted
	at         time.Time // when the last one was loaded, or failed to

	loading chan error // not nil while next is being loaded
	next    string     // name of the policy that takes its place, "" if there is none
	wanted  []string   // what that one leaves out
	added   time.Time  // when it was loaded

	files map[string]store.FileID // of the proven paths, as first seen
	since map[string]int64        // when a path got another file: use before that proves nothing
}

// socketsAnew gives the policy for sockets for an agent that has none, and says
// of what it leaves out. That is what the last one in force left out, which may
// be more than was said since, if it could not be deleted.
func (l *learner) socketsAnew() *tetragon.Policy {
	n := &l.narrowing
	n.next, n.wanted, n.at = "", nil, time.Now()
	n.generation++
	p := SocketPolicy(l.session.ID, l.Agent, n.generation, n.paths)
	n.loaded = p.Metadata.Name
	l.mu.Lock()
	defer l.mu.Unlock()
	at, _ := l.meters.clock(n.at, l.bird == nil)
	l.fold.Narrow(n.paths, at)
	return p
}

// due reports whether paths should be left out rather than those in force.
// sockets is how many the agent has told of each.
func (n *narrowing) due(paths []string, sockets map[string]uint64, now time.Time) bool {
	changes, told := 0, uint64(0)
	for _, path := range paths {
		if _, is := slices.BinarySearch(n.paths, path); !is {
			changes++
			told += sockets[path]
		}
	}
	for _, path := range n.paths {
		if _, is := slices.BinarySearch(paths, path); !is {
			changes++
		}
	}
	waited := now.Sub(n.at)
	return changes > 0 && waited >= n.pace.least && (waited >= n.pace.most || changes >= narrowPaths || told >= narrowSockets)
}

// narrow does what is next to be done. verified is a time up to which it is
// known what was lost.
func (l *learner) narrow(ctx context.Context, verified time.Time) {
	n := &l.narrowing
	switch {
	case l.Agent.IsSensor(): // it tells of each but once
	case n.loading != nil:
		select {
		case err := <-n.loading:
			l.tookNext(err)
		default:
		}
	case n.next != "":
		l.replace(ctx, verified)
	default:
		l.consider(ctx, time.Now())
	}
}

// consider begins to load a policy, if it is time.
func (l *learner) consider(ctx context.Context, now time.Time) {
	n := &l.narrowing
	l.mu.Lock()
	sockets := l.fold.Proven(n.since)
	l.mu.Unlock()
	var paths []string
	for path := range sockets {
		if l.sameFile(path, now) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	paths = paths[:min(len(paths), maxNarrowed)]
	if !n.due(paths, sockets, now) {
		return
	}
	n.generation++
	p := SocketPolicy(l.session.ID, l.Agent, n.generation, paths)
	n.next, n.wanted, n.loading = p.Metadata.Name, paths, make(chan error, 1)
	l.mu.Lock()
	l.meters.add(n.next, true, now) // its events may come before the agent says that it is loaded
	l.mu.Unlock()
	go func(agent *tetragon.Agent, done chan<- error) {
		// A policy is loaded whole: what has begun is not cancelled.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadWithin)
		defer cancel()
		done <- agent.Add(ctx, p)
	}(l.Agent, n.loading)
}

// sameFile reports whether the file at a path that is proven is still the one
// that was there when it was. On another host that is not known.
func (l *learner) sameFile(path string, now time.Time) bool {
	if l.bird == nil {
		return true
	}
	n := &l.narrowing
	if n.files == nil {
		n.files, n.since = map[string]store.FileID{}, map[string]int64{}
	}
	file := fileAt(path)
	if was, known := n.files[path]; known && was != file {
		delete(n.files, path)
		n.since[path] = now.UnixNano()
		return false
	}
	n.files[path] = file
	return true
}

// fileAt identifies the file at a path; zero if there is none.
func fileAt(path string) store.FileID {
	info, err := os.Stat(path)
	if err != nil {
		return store.FileID{}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return store.FileID{}
	}
	return store.FileID{Dev: st.Dev, Ino: st.Ino, Size: st.Size, CtimeNS: st.Ctim.Nano()}
}

// awaitNext waits for a load under way, and notes what it led to.
func (l *learner) awaitNext() {
	if l.narrowing.loading != nil {
		l.tookNext(<-l.narrowing.loading)
	}
}

// tookNext notes that the next policy was loaded, or was not: then the one in
// force stays.
func (l *learner) tookNext(err error) {
	n := &l.narrowing
	n.loading, n.at, n.added = nil, time.Now(), time.Now()
	if err != nil {
		l.Log.Warn("sockets of known network users are still asked for, since the agent does not take a policy without them", "error", err)
		l.forget(n.next)
		n.next, n.wanted = "", nil
		return
	}
	l.loaded = append(l.loaded, n.next)
}

// replace deletes the policy in force, if it is proven that the next one works
// and that nothing is lost with it.
func (l *learner) replace(ctx context.Context, verified time.Time) {
	n := &l.narrowing
	if !l.Agent.Counters {
		verified = time.Now().Add(-heldBack)
	}
	l.mu.Lock()
	// Whoever connects may all be left out: only canaries show each hook.
	works := l.meters.shown(n.next, n.loaded, l.bird != nil)
	if works && verified.After(n.added) {
		at, _ := l.meters.clock(time.Now(), l.bird == nil)
		l.fold.Narrow(n.wanted, at) // before it is so: what is stored must never claim too much
	}
	l.mu.Unlock()
	if !works || !verified.After(n.added) {
		return
	}
	// What the agent has deleted is not to be missed by a session that ends.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteWithin)
	defer cancel()
	if err := l.Agent.Delete(ctx, n.loaded); err != nil {
		l.Log.Warn("the policy for sockets before this one could not be deleted: it is tried again", "error", err)
		return
	}
	l.loaded = slices.DeleteFunc(l.loaded, func(name string) bool { return name == n.loaded })
	l.forget(n.loaded)
	n.loaded, n.paths, n.next, n.wanted = n.next, n.wanted, "", nil
	if len(n.paths) == 0 {
		l.Log.Info("sockets are asked for of all executables again")
		return
	}
	l.Log.Info("sockets of known network users are no longer asked for", "paths", len(n.paths))
}

// forget drops the meter of a policy.
func (l *learner) forget(policy string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.meters.of, policy)
}

// Proven gives the paths of which every executable that is known, in whatever
// scope, has used the network, and of how many sockets of each was told. Only
// a path that a policy can name is among them, and no canary's. Use before the
// time that since gives a path, in nanoseconds since 1970, does not count.
func (f *Fold) Proven(since map[string]int64) map[string]uint64 {
	proven := map[string]uint64{}
	for _, ex := range f.executables {
		if ex.used > since[ex.key.Path] && nameable(ex.key.Path) {
			proven[ex.key.Path] += ex.sockets
		}
	}
	for _, ex := range f.executables {
		canary := ex.kind == kindCanary || ex.kind == kindOwnCanary
		if canary || ex.used <= since[ex.key.Path] {
			delete(proven, ex.key.Path)
		}
	}
	return proven
}

// nameable reports whether a policy can name a path. What an agent tells of
// one that is not UTF-8 is not its name (FACTS 3).
func nameable(path string) bool {
	return strings.HasPrefix(path, "/") && len(path) <= maxNameable &&
		utf8.ValidString(path) && !strings.ContainsRune(path, utf8.RuneError)
}

// narrowSlack is how much wider the times are told in which sockets were not
// asked for, since the agent's clock is known only so well.
const narrowSlack = int64(time.Second)

// Narrow says that from a time on the sockets of these paths alone are not
// asked for.
func (f *Fold) Narrow(paths []string, at int64) {
	open := map[string]bool{}
	for i := range f.narrowed {
		n := &f.narrowed[i]
		switch {
		case !n.To.IsZero():
		case slices.Contains(paths, n.Path):
			open[n.Path] = true
		default:
			n.To = wall(at + narrowSlack)
		}
	}
	for _, path := range paths {
		if !open[path] {
			f.narrowed = append(f.narrowed, store.Narrowed{Path: path, From: wall(at - narrowSlack)})
		}
	}
	slices.SortFunc(f.narrowed, func(a, b store.Narrowed) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), a.From.Compare(b.From))
	})
}
