package profiler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// RecordOptions say which recorded events to learn from, and where to keep
// what they tell.
type RecordOptions struct {
	Store *store.Store
	// Files hold events as a Tetragon exports them: one JSON event a line,
	// plain or gzipped, in any order of files. Stdin stands for standard input.
	Files    []string
	Stdin    io.Reader
	Only     []string // doublestar patterns of resolved paths; none means all
	KeepArgs bool
	Log      *slog.Logger
	// Progress, if set, is called about every second with what was read so far.
	Progress func(Counts)
}

// maxNamed bounds how many bad lines are named one by one.
const maxNamed = 20

// LearnRecord learns from recorded events, for a session of their own times.
// All of it is stored at once, at the end; the same events learned from again
// take the place of what they told before. It fails with a *store.HeldError if
// another session holds the database.
//
// A line that cannot be read is named, counted, and a gap. A last line that
// was being written is neither.
func LearnRecord(ctx context.Context, o RecordOptions) (_ *store.Session, err error) {
	for _, pattern := range o.Only {
		if !doublestar.ValidatePattern(pattern) {
			return nil, fmt.Errorf("%q is not a pattern", pattern)
		}
	}
	lock, err := o.Store.LockLearn()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	r := &recorder{RecordOptions: o}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(); err != nil {
		return nil, err
	}
	if err := r.read(ctx); err != nil {
		return nil, err
	}
	return r.store(ctx)
}

// recorder is one reading of a record.
type recorder struct {
	RecordOptions
	fold    *Fold
	sources []*source
	node    string
	bad     int // lines
	events  uint64
	last    time.Time // of the events
	shown   time.Time
}

// source is one file, with its first event read ahead.
type source struct {
	*record
	sum   hash.Hash
	first *api.GetEventsResponse // nil if it has none
	bad   int                    // lines before the first event
}

// open opens all files, and sorts them by the time of their first event: those
// of a log that rotates follow on each other. Those without an event come last:
// when they were written is not known.
func (r *recorder) open() error {
	r.fold = NewFold(Config{Only: r.Only, KeepArgs: r.KeepArgs, IsCanary: seemsCanary})
	for _, name := range r.Files {
		s := &source{sum: sha256.New()}
		var err error
		if s.record, err = openRecord(name, r.Stdin, s.sum); err != nil {
			return err
		}
		r.sources = append(r.sources, s)
		if s.first, s.bad, err = r.next(s); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	r.sources = slices.DeleteFunc(r.sources, func(s *source) bool {
		if s.first == nil && s.bad == 0 {
			r.Log.Warn("nothing is recorded in a file", "file", s.name)
			return errors.Join(s.close()) == nil
		}
		return false
	})
	slices.SortStableFunc(r.sources, func(a, b *source) int {
		switch {
		case a.first == nil && b.first == nil:
			return 0
		case b.first == nil:
			return -1
		case a.first == nil:
			return 1
		}
		return a.first.GetTime().AsTime().Compare(b.first.GetTime().AsTime())
	})
	return nil
}

func (r *recorder) close() error {
	var errs []error
	for _, s := range r.sources {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// next gives the next event of a file, and how many bad lines stood before it.
func (r *recorder) next(s *source) (ev *api.GetEventsResponse, bad int, err error) {
	for {
		ev, err := s.next()
		var line *lineError
		switch {
		case err == nil:
			return ev, bad, nil
		case errors.Is(err, errCut) && s == r.sources[len(r.sources)-1] && !(s.packed && s.first == nil):
			return nil, bad, io.EOF // it was being written
		case !errors.As(err, &line):
			return nil, bad, err
		}
		bad++
		if r.bad++; r.bad <= maxNamed {
			r.Log.Warn("a line cannot be read", "file", line.file, "line", line.line, "error", line.err)
		}
	}
}

// read folds every file.
func (r *recorder) read(ctx context.Context) error {
	for _, s := range r.sources {
		ev, bad, err := s.first, s.bad, error(nil)
		if ev == nil {
			r.fold.UnreadFile(bad)
			continue
		}
		for ; err == nil; ev, bad, err = r.next(s) {
			r.fold.Unread(bad)
			if err := r.take(ev, s); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return fmt.Errorf("stopped, and nothing was stored: %w", ctx.Err())
			}
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		r.fold.Unread(bad)
	}
	if r.bad > maxNamed {
		r.Log.Warn("more lines cannot be read than are named", "lines", r.bad)
	}
	if r.events == 0 {
		return errors.New("the record holds no event: one line of JSON for each is expected, as a Tetragon exports them")
	}
	return nil
}

// take folds one event. Pids of two nodes are not to be mixed.
func (r *recorder) take(ev *api.GetEventsResponse, s *source) error {
	switch node := ev.GetNodeName(); {
	case r.node == "":
		r.node = node
	case node != "" && node != r.node:
		return fmt.Errorf("%q, line %d: the event is of node %q and those before are of %q: learn from the records of one node at a time",
			s.name, s.line, node, r.node)
	}
	r.fold.Event(ev)
	r.events++
	if at := ev.GetTime().AsTime(); at.After(r.last) {
		r.last = at
	}
	if r.Progress != nil && r.events%1024 == 0 && time.Since(r.shown) > time.Second {
		r.Progress(r.fold.Counts())
		r.shown = time.Now()
	}
	return nil
}

// store stores the session with all of its evidence.
func (r *recorder) store(ctx context.Context) (*store.Session, error) {
	started := r.sources[0].first.GetTime().AsTime()
	session := &store.Session{
		ID: r.sessionID(started), Agent: store.Recording, Cgroup: "/", Only: r.Only,
		Started: started, Ended: r.last, End: store.EndRecord,
	}
	r.fold.cfg.Session = session.ID
	r.fold.Finish()
	r.fold.Describe(session)
	if r.fold.narrowedHook {
		r.Log.Warn("the record proves nothing of sockets: it was made while a learner no longer asked for those of known network users, and does not tell who they are")
	}
	if !session.NoSocketHook {
		session.Hook = "kprobe/" + tetragon.CallSocketCreate
	}
	// What the policy of the recording asked for is not told: only the
	// families that were seen are known to be watched.
	session.Families = r.fold.Families()
	for _, name := range tetragon.NetworkFamilies() {
		if !slices.Contains(session.Families, name) {
			session.Unwatched = append(session.Unwatched, name)
		}
	}
	rows := r.fold.Changed()
	err := r.Store.Update(ctx, func(tx *store.Tx) error {
		for _, row := range rows {
			if err := tx.PutEvidence(row); err != nil {
				return err
			}
		}
		return tx.PutSession(session)
	})
	if err != nil {
		return nil, fmt.Errorf("store what the record tells: %w", err)
	}
	return session, nil
}

// sessionID is made of what was read, so that a record that is read twice is
// not counted twice.
func (r *recorder) sessionID(started time.Time) string {
	all := sha256.New()
	fmt.Fprintf(all, "%q %t", r.Only, r.KeepArgs)
	var sums []string
	for _, s := range r.sources {
		sums = append(sums, string(s.sum.Sum(nil)))
	}
	slices.Sort(sums)
	for _, sum := range sums {
		io.WriteString(all, sum) // never fails
	}
	return formatID(started, hex.EncodeToString(all.Sum(nil)[:3]))
}
