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
func (b *bench) socketLoad() []string  { return []string{"socket", "400", "100"} }
func (b *bench) getppidLoad() []string { return []string{"getppid", "1500", "1000"} }
func (b *bench) forkLoad() []string    { return []string{"fork", "400", "1", "/bin/true"} }
func (b *bench) vforkLoad() []string   { return []string{"vfork", "1500", "1", b.mote} }

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
	return h.note("again without", h.vforkLoad(), h.forkLoad(), h.socketLoad(), h.getppidLoad())
}

func (h *hookRows) us(key string) float64 { return median(h.took[key]) / 1e3 }

// ratio is the median over the rounds of ours against the floor of the same
// round, which is measured before and after it: a machine's speed drifts by
// more than what is looked for.
func (h *hookRows) ratio(ours, what string) float64 {
	var all []float64
	for i, v := range h.took[ours+" "+what] {
		all = append(all, 2*v/(h.took["without "+what][i]+h.took["again without "+what][i]))
	}
	return median(all)
}

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
		name, state, what string
		target            *float64
	}{
		{"socket()+close() while learning", "learning", "socket", some(1.10)},
		{"socket()+close() unlisted, 10,000 paths enforced", "enforcing", "socket", some(1.05)},
		{"fork+exec+exit of /bin/true while learning", "learning", "fork", some(1.03)},
		{"vfork+exec+exit of a static program while learning", "learning", "vfork", some(1.15)},
		{"vfork+exec+exit of a static program, 10,000 paths enforced", "enforcing", "vfork", nil},
		{"getppid() while learning and enforcing; the target is the floor against itself", "both", "getppid", some(h.noise("getppid"))},
	} {
		h.add(row{Name: r.name, Ours: h.us(r.state + " " + r.what), Floor: some(h.us("without " + r.what)), Unit: "µs",
			Ratio: some(h.ratio(r.state, r.what)), Target: r.target})
	}
}

// noise is what the floor differs from itself by, within a round.
func (h *hookRows) noise(what string) float64 {
	var all []float64
	for i, v := range h.took["without "+what] {
		again := h.took["again without "+what][i]
		all = append(all, max(v/again, again/v))
	}
	return median(all)
}
