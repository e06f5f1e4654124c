package enforcer

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// Listener hears whom the policies of a database kill, from an agent that
// counts them only together. Several may listen; one of them writes down what
// it hears. What is not heard stays counted for the path "".
type Listener struct {
	agent *tetragon.Agent
	store *store.Store
	lock  *store.Lock // nil while another writes
	done  chan struct{}
	err   error // why the stream ended, once done

	mu    sync.Mutex
	heard map[string]map[killed]store.Kill // by policy
}

// killed is what was killed: the name that it was started by.
type killed string

// maxHeard bounds the names that are kept between two calls of Record; a name
// more is left to the count of all.
const maxHeard = 10_000

// Listen listens until the context ends; then Close is to be called. The
// embedded sensor, which counts each executable, is not to be listened to.
func Listen(ctx context.Context, a *tetragon.Agent, s *store.Store) *Listener {
	l := &Listener{agent: a, store: s, done: make(chan struct{}), heard: map[string]map[killed]store.Kill{}}
	go func() {
		defer close(l.done)
		// The agent filters by the names of policies, where it knows that
		// filter; those of a generation to come are not known yet.
		stream, err := a.Subscribe(ctx, &api.GetEventsRequest{AllowList: []*api.Filter{{EventSet: []api.EventType{api.EventType_PROCESS_KPROBE}}}})
		if err == nil {
			err = stream.Each(l.hear)
		}
		l.err = err
	}()
	return l
}

// Done is closed when the stream has ended; Err is why.
func (l *Listener) Done() <-chan struct{} { return l.done }

// Err is why the stream ended.
func (l *Listener) Err() error { return l.err }

// hear takes in one event.
func (l *Listener) hear(ev *api.GetEventsResponse) error {
	k := ev.GetProcessKprobe()
	policy := k.GetPolicyName()
	if k.GetAction() != api.KprobeAction_KPROBE_ACTION_SIGKILL || !strings.HasPrefix(policy, policyPrefix(l.store)) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heard[policy] == nil {
		l.heard[policy] = map[killed]store.Kill{}
	}
	name := killed(k.GetProcess().GetBinary())
	one, known := l.heard[policy][name]
	if !known && len(l.heard[policy]) >= maxHeard {
		return nil
	}
	one.Kills++
	one.LastKill = later(one.LastKill, ev.GetTime().AsTime())
	l.heard[policy][name] = one
	return nil
}

// Close waits for the end of the stream and writes down the last of it. The
// context of Listen must have ended.
func (l *Listener) Close() error {
	<-l.done
	err := l.Record(context.Background())
	if l.lock != nil {
		err = errors.Join(err, l.lock.Release())
	}
	return err
}

// Record writes down what was heard since the last call, if no other does.
func (l *Listener) Record(ctx context.Context) error {
	writes, err := l.writes()
	l.mu.Lock()
	heard := l.heard
	l.heard = map[string]map[killed]store.Kill{}
	l.mu.Unlock()
	if err != nil || !writes || len(heard) == 0 {
		return err
	}
	return l.store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.Generations()
		if err != nil {
			return err
		}
		// Of two generations with the same policy the later was promoted.
		for _, g := range slices.Backward(all) {
			named := map[string]store.Kill{}
			for _, policy := range g.Policies {
				l.name(g, policy, heard[policy], named)
				delete(heard, policy)
			}
			if len(named) == 0 {
				continue
			}
			g.Kills = nameKills(g.Kills, named, l.agent.Counters)
			if err := tx.PutGeneration(&g); err != nil {
				return err
			}
		}
		return nil
	})
}

// writes reports whether this is the listener that writes down what it hears.
func (l *Listener) writes() (bool, error) {
	if l.lock != nil {
		return true, nil
	}
	lock, err := l.store.LockListen()
	var held *store.HeldError
	if errors.As(err, &held) {
		return false, nil
	}
	l.lock = lock
	return err == nil, err
}

// name adds up kills of one policy by the executables that a generation lists.
func (l *Listener) name(g store.Generation, policy string, heard map[killed]store.Kill, named map[string]store.Kill) {
	for binary, k := range heard {
		if filepath.Base(string(binary)) == canaryName(policy) {
			continue
		}
		path := listedAs(g, string(binary), OnThisHost(l.agent))
		if path == "" && l.agent.Counters {
			continue // it is in the count of all
		}
		n := k.Kills
		if g.Stage == store.StageMonitor {
			k = store.Kill{Would: n, LastWould: k.LastKill}
		}
		k.Path = path
		sum := map[string]store.Kill{path: named[path]}
		addKills(sum, []store.Kill{k})
		named[path] = sum[path]
	}
}

// listedAs is the executable of a generation that was started under a name:
// the name itself, what it leads to, or for a script its interpreter (FACTS 1,
// 2). It is "" if that is none of them.
func listedAs(g store.Generation, name string, here bool) string {
	name = strings.TrimSuffix(name, " (deleted)")
	names := []string{name}
	if here && filepath.IsAbs(name) {
		resolved := resolveName(name)
		names = append(names, resolved)
		if head, err := readHead(resolved); err == nil {
			if line := interpreterOf(head); line != nil {
				names = append(names, resolveName(line[0]))
			}
		}
	}
	for _, one := range names {
		if _, listed := slices.BinarySearch(g.Paths, one); listed {
			return one
		}
	}
	return ""
}

// recordEvery is how often a watcher looks at what is in force, and writes down
// what it heard.
const recordEvery = time.Second
