package profiler

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"profile/internal/canary"
	"profile/internal/tetragon"
	"profile/store"
)

// learner is one learning session at work.
type learner struct {
	Options
	bird *canary.Canary // nil for an agent of another host
	told bool           // the agent says of each socket whether it is an attempt, as the sensor does
	back chan struct{}  // a canary came back

	first      chan struct{} // closed when learning has begun
	everOpened bool          // what follows is watch's
	around     time.Time     // the window behind whose opening /proc was looked at
	events     *events
	stopEvents func()
	loaded     []string // policies
	whole      bool     // all that the session needs of them is
	narrowing  narrowing
	inForce    inForce
	metrics    *metrics // nil if there are none

	mu        sync.Mutex // guards the fold, and:
	canaryErr error      // why the last canary could not be run
	fold      *Fold
	origin    origin
	meters    meters
	forgotten map[uint64]bool // generations that the agent no longer has
	watched   []string        // families that every policy so far asked for
	heard     bool            // an event has come since it was last subscribed

	session  store.Session // what follows is the main goroutine's
	stored   store.Session
	flushErr error // of the last flush
	listed   []listing
	states   []store.GenerationState // that listed is of
	blind    bool                    // they could not be read
}

func newLearner(o Options, bird *canary.Canary) (*learner, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	machine, err := machineID()
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	l := &learner{
		Options: o, bird: bird, told: o.Agent.IsSensor(), back: make(chan struct{}, 1), first: make(chan struct{}),
		session: store.Session{
			ID: sessionID(now), Agent: o.Agent.Address, Version: o.Agent.Version,
			BootID: boot, Machine: machine,
			Hook:   o.Agent.Hook,
			Handed: slices.Contains(o.Agent.Uses, tetragon.CallReceive),
			Cgroup: o.Group.Path, Only: o.Only,
			Started: now,
		},
	}
	l.inForce.ours = map[string]bool{}
	l.narrowing.pace = cmp.Or(o.pace, usualPace)
	if o.Metrics != "" {
		l.metrics = &metrics{url: o.Metrics}
	}
	if bird == nil {
		l.session.BootID, l.session.Machine = "", "" // of this machine, which is not the agent's
	}
	l.watched = o.Agent.Families
	if bird == nil || o.Agent.IsSensor() {
		l.origin.settle()
	}
	l.fold = NewFold(l.config())
	return l, nil
}

// config is how the session's events are folded.
func (l *learner) config() Config {
	cfg := Config{
		Session: l.session.ID, Policy: PolicyName(l.session.ID),
		Only: l.Only, KeepArgs: l.KeepArgs,
		Labels: l.Agent.IsSensor(), Forks: true, IsCanary: isCanary,
	}
	cfg.Uses = len(l.Agent.Uses) > 0
	cfg.Verify = l.counts()
	cfg.Losses = cfg.Verify || l.Agent.IsSensor()
	if l.bird == nil {
		cfg.IsCanary = seemsCanary
		return cfg
	}
	cfg.Canary = l.bird.Path()
	if !l.Agent.IsSensor() {
		cfg.Thread, cfg.Resolve, cfg.File = host{}.thread, host{}.resolve, host{}.file
		cfg.NamespaceOf, cfg.PIDNamespace = host{}.pidNamespace, host{}.pidNamespace(uint32(os.Getpid()))
	}
	return cfg
}

func bootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("tell this boot of the machine from others: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// machineID tells this machine from others over its boots, by what systemd
// gave it, or else by its name. It is a digest: the ID is nobody else's business.
func machineID() (string, error) {
	raw, err := os.ReadFile("/etc/machine-id")
	if id := strings.TrimSpace(string(raw)); err == nil && id != "" {
		sum := sha256.Sum256([]byte("profile machine " + id))
		return hex.EncodeToString(sum[:8]), nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("tell this machine from others: %w", err)
	}
	sum := sha256.Sum256([]byte("profile host " + name))
	return hex.EncodeToString(sum[:8]), nil
}

// sessionID sorts by time, and fits into the name of a policy.
func sessionID(now time.Time) string {
	var unique [8]byte   // the nodes of a cluster begin in one second
	rand.Read(unique[:]) // never fails
	return formatID(now, hex.EncodeToString(unique[:]))
}

func formatID(at time.Time, unique string) string {
	return at.UTC().Format("20060102t150405z") + "-" + unique
}

// flush stores what changed since the last one, all of it or nothing. What
// could not be stored is tried again with the next.
func (l *learner) flush(ctx context.Context) error {
	l.mu.Lock()
	rows := l.fold.Changed()
	l.fold.Describe(&l.session)
	l.session.Families = l.watched
	l.session.Unwatched = slices.DeleteFunc(tetragon.NetworkFamilies(), func(f string) bool { return slices.Contains(l.watched, f) })
	l.mu.Unlock()
	if len(rows) == 0 && reflect.DeepEqual(l.session, l.stored) {
		return nil
	}
	err := l.Store.Update(ctx, func(tx *store.Tx) error {
		for _, row := range rows {
			if err := tx.PutEvidence(row); err != nil {
				return err
			}
		}
		return tx.PutSession(&l.session)
	})
	if err != nil {
		l.mu.Lock()
		l.fold.Keep(rows)
		l.mu.Unlock()
		return err
	}
	l.stored = l.session
	return nil
}

// tryFlush says once that the database cannot be written, and once that it can
// again.
func (l *learner) tryFlush(ctx context.Context) {
	err := l.flush(ctx)
	switch {
	case err != nil && l.flushErr == nil:
		l.Log.Error("cannot store what was learned; it is kept and tried again every second", "error", err)
	case err == nil && l.flushErr != nil:
		l.Log.Info("what was learned is stored again")
	}
	l.flushErr = err
}

// finish ends the session, for a cause or none, and stores it.
func (l *learner) finish(ctx context.Context, cause error) error {
	l.mu.Lock()
	l.fold.Finish()
	l.mu.Unlock()
	if cause != nil {
		l.session.End = cause.Error()
	}
	l.session.Ended = time.Now().UTC()
	if err := l.flush(ctx); err != nil {
		return errors.Join(cause, fmt.Errorf("store the end of session %s: %w", l.session.ID, err))
	}
	return cause
}
