package enforcer

import (
	"context"
	"fmt"
	"slices"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// A Tetragon counts what each of its policies did, from when it loaded it: one
// that was restarted begins again, and has not seen the canary that is in the
// first count. So the count is recorded with the process that it is of.

// listing is what an agent lists, and which process it was that listed it; ""
// is not known.
type listing struct {
	policies []*api.TracingPolicyStatus
	instance string
}

func list(ctx context.Context, a *tetragon.Agent, prefix string) (listing, error) {
	if a.IsSensor() {
		policies, err := a.Policies(ctx, prefix)
		return listing{policies: policies}, err
	}
	instance := a.Instance()
	policies, err := a.Policies(ctx, prefix)
	if a.Instance() != instance {
		instance = "" // either of the two may have answered
	}
	return listing{policies, instance}, err
}

// readCounter gives the kills of a policy by what its counter says now, and that
// counter as it is to be recorded. Another process counts if the kernel says so,
// or if the count is lower than it was. Where neither is known it is taken for
// the same one, which tells too few rather than too many.
func readCounter(c store.Counter, count uint64, instance string, tried bool) (kills uint64, now store.Counter) {
	now = c
	known := instance != "" && c.Instance != ""
	if count < c.Count || known && instance != c.Instance {
		now.Before, now.Anew = countedKills(c, tried), true
		known = true
	}
	now.Count, now.Instance = count, instance
	kills = countedKills(now, tried)
	if !known && c.Instance != "" {
		return kills, c // whose count it is the next may tell
	}
	return kills, now
}

// countedKills are the kills of a counter: the canary by which the policy was
// tried is none.
func countedKills(c store.Counter, tried bool) uint64 {
	n := c.Count
	if tried && !c.Anew && n > 0 {
		n--
	}
	return c.Before + n
}

// countOf is what the counter of a policy says in the stage of its generation.
// It is not ok if the agent does not count.
func countOf(st *api.TracingPolicyStatus, stage string) (n uint64, ok bool) {
	counters := st.GetStats().GetActionCounters()
	if stage == store.StageMonitor {
		return counters.GetMonitorSignal(), counters != nil
	}
	return counters.GetSignal(), counters != nil
}

// allKills reads the counter of one policy of a generation, and brings it up to
// date in counters.
func allKills(st *api.TracingPolicyStatus, instance string, g store.Generation, counters []store.Counter) ([]store.Kill, []store.Counter) {
	count, ok := countOf(st, g.Stage)
	if !ok {
		return nil, counters
	}
	i := slices.IndexFunc(counters, func(c store.Counter) bool { return c.Policy == st.GetName() })
	if i < 0 {
		i, counters = len(counters), append(counters, store.Counter{Policy: st.GetName()})
	}
	if instance != "" { // a policy that was loaded again counts anew as well
		instance = fmt.Sprintf("%s policy %d", instance, st.GetId())
	}
	var kills uint64
	kills, counters[i] = readCounter(counters[i], count, instance, !g.Tried.IsZero())
	switch {
	case kills == 0:
		return nil, counters
	case g.Stage == store.StageMonitor:
		return []store.Kill{{Would: kills}}, counters
	}
	return []store.Kill{{Kills: kills}}, counters
}
