package enforcer

import (
	"fmt"
	"slices"
	"strings"

	"profile/internal/tetragon"
)

// chooseFamilies enforces what every session watched that the plan rests on;
// what stands on its listing alone adds what that generation enforced.
func (p *planner) chooseFamilies(plan *Plan) error {
	enforced := tetragon.NetworkFamilies()
	limit := func(families []string) {
		enforced = slices.DeleteFunc(enforced, func(f string) bool { return !slices.Contains(families, f) })
	}
	if p.learned {
		for _, id := range p.covering.ids {
			if s := p.covering.sessions[id]; s.proves() {
				limit(s.Families)
			}
		}
	}
	if p.kept {
		limit(p.loaded.Families)
	}
	switch {
	case p.o.AgentFamilies != nil:
		limit(p.o.AgentFamilies)
	case !p.learned && !p.kept:
		limit(p.likelyFamilies())
	}
	asked := p.vsockByOption()
	if asked && p.o.AgentFamilies == nil && !p.o.Vsock {
		limit(without(enforced, []string{"vsock"}))
	}
	if len(enforced) == 0 && len(plan.Enforce) > 0 {
		return fmt.Errorf("no socket family was watched by every session that counts and can be enforced by the agent")
	}
	plan.Families, plan.Unwatched = enforced, without(tetragon.NetworkFamilies(), enforced)
	if asked && !p.o.Vsock && slices.Contains(plan.Unwatched, "vsock") {
		plan.Unwatched = without(plan.Unwatched, []string{"vsock"})
		p.warn("vsock was watched with --vsock, and is enforced with it alone")
	}
	if lost := without(p.loaded.Families, enforced); len(lost) > 0 && len(plan.Enforce) > 0 {
		p.warn("no longer enforced, unlike in generation %d: %s", p.loaded.N, strings.Join(lost, ", "))
	}
	return nil
}

// vsockByOption reports whether every session that the plan rests on watched
// AF_VSOCK, and one by the hook on every system call, which its name tells.
func (p *planner) vsockByOption() bool {
	by := false
	for _, id := range p.covering.ids {
		if s := p.covering.sessions[id]; s.proves() {
			if !slices.Contains(s.Families, "vsock") {
				return false
			}
			by = by || strings.Contains(s.Hook, "/sys_enter")
		}
	}
	return by
}

// likelyFamilies is what the agent can enforce when it is not asked and nothing
// was learned of the plan: what it has in force, and what the last session
// watched, since its kind of agent is the one that will enforce, or else what
// the shortest policy can say to any Tetragon.
func (p *planner) likelyFamilies() []string {
	likely := slices.Clone(p.loaded.Families)
	proven := p.c.only(func(s *session) bool { return s.proves() })
	if n := len(proven.ids); n > 0 {
		likely = append(likely, proven.sessions[proven.ids[n-1]].Families...)
	}
	if len(likely) == 0 {
		return tetragon.NetworkFamilies()[:tetragon.MaxEqual]
	}
	return likely
}
