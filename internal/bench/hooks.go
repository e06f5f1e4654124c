package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"profile/enforcer"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// What one side of a round runs: SLICES and OPS of load. Each takes about a
// fifth of a second.
func (b *bench) socketLoad() []string  { return []string{"socket", "40", "1000"} }
func (b *bench) getppidLoad() []string { return []string{"getppid", "150", "10000"} }
func (b *bench) forkLoad() []string    { return []string{"fork", "60", "8", "/bin/true"} }
func (b *bench) vforkLoad() []string   { return []string{"vfork", "100", "16", b.mote} }

// unlistedPaths are paths of an enforcing policy that nothing has.
func unlistedPaths(n int) []string {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = fmt.Sprintf("/usr/lib/profile-bench/listed-%06d/tool", i)
	}
	return paths
}

// enforce has paths killed in the group for as long as do takes.
func enforce(ctx context.Context, a *tetragon.Agent, g cgroup.Group, paths []string, do func() error) error {
	p, err := enforcer.Policy(fmt.Sprintf("%sbench-%d", tetragon.EnforcePrefix, len(paths)), store.StageEnforce, g.Path, a.Families, paths, true)
	if err != nil {
		return err
	}
	if err := a.Add(ctx, p); err != nil {
		return err
	}
	return errors.Join(do(), a.Delete(context.WithoutCancel(ctx), p.Metadata.Name))
}

// hookRows are what measureHooks measures: with nothing loaded, while
// learning, with both, and under enforcement.
type hookRows struct {
	*bench
	g     cgroup.Group
	agent *tetragon.Agent
	db    string
	took  map[string][]float64
}

func (h *hookRows) note(state string, loads ...[]string) error {
	for _, args := range loads {
		if err := h.ctx.Err(); err != nil {
			return err
		}
		v, err := h.ns(h.g, args...)
		if err != nil {
			return err
		}
		key := state + " " + args[0]
		h.took[key] = append(h.took[key], v)
	}
	return nil
}

// round goes from nothing to learning, to both, to enforcement alone, and back
// to nothing.
func (h *hookRows) round() error {
	if err := h.note("without", h.getppidLoad(), h.socketLoad(), h.forkLoad(), h.vforkLoad()); err != nil {
		return err
	}
	l, err := h.learn(h.g, h.db)
	if err != nil {
		return err
	}
	learning := true
	end := func() error {
		if !learning {
			return nil
		}
		learning = false
		return l.stop()
	}
	err = h.note("learning", h.vforkLoad(), h.forkLoad(), h.socketLoad())
	if err == nil {
		err = enforce(h.ctx, h.agent, h.g, unlistedPaths(10_000), func() error {
			if err := h.note("both", h.getppidLoad()); err != nil {
				return err
			}
			if err := end(); err != nil {
				return err
			}
			return h.note("enforcing", h.socketLoad(), h.vforkLoad())
		})
	}
	if err := errors.Join(err, end()); err != nil {
		return err
	}
	return h.note("again without", h.getppidLoad())
}

func (h *hookRows) us(key string) float64 { return median(h.took[key]) / 1e3 }

func measureHooks(b *bench) error {
	return b.inGroup(func(g cgroup.Group) error {
		return b.withSensor(func(a *tetragon.Agent) error {
			h := &hookRows{bench: b, g: g, agent: a, db: filepath.Join(b.dir, "hooks.db"), took: map[string][]float64{}}
			for range rounds {
				if err := h.round(); err != nil {
					return err
				}
			}
			h.tell()
			return nil
		})
	})
}

func (h *hookRows) tell() {
	for _, r := range []struct {
		name, ours, floor string
		target            *float64
	}{
		{"socket()+close() while learning", "learning socket", "without socket", some(1.10)},
		{"socket()+close() unlisted, 10,000 paths enforced", "enforcing socket", "without socket", some(1.05)},
		{"fork+exec+exit of /bin/true while learning", "learning fork", "without fork", some(1.03)},
		{"vfork+exec+exit of a static program while learning", "learning vfork", "without vfork", some(1.15)},
		{"vfork+exec+exit of a static program, 10,000 paths enforced", "enforcing vfork", "without vfork", nil},
	} {
		h.addRatio(r.name, "µs", h.us(r.ours), h.us(r.floor), r.target)
	}
	// What the same differs from itself by, going from one round to another,
	// is noise.
	before, after := h.us("without getppid"), h.us("again without getppid")
	noise := max(before/after, after/before)
	h.addRatio("getppid() while learning and enforcing; the target is the floor against itself", "µs", h.us("both getppid"), (before+after)/2, &noise)
}
