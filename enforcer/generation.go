package enforcer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// policyPrefix begins the names of the enforcing policies of one database, so
// that two databases do not meet.
func policyPrefix(s *store.Store) string { return prefixFor(s.Path()) }

func prefixFor(path string) string {
	sum := sha256.Sum256([]byte(path))
	return tetragon.EnforcePrefix + hex.EncodeToString(sum[:6]) + "-"
}

// policiesOf lists the enforcing policies of one database, and what is left of
// those that no longer tell their names. With them alone an agent can be rid of
// what was half removed behind its back, whosever it was.
func policiesOf(ctx context.Context, a *tetragon.Agent, s *store.Store) ([]*api.TracingPolicyStatus, error) {
	all, err := a.Policies(ctx, tetragon.EnforcePrefix)
	return slices.DeleteFunc(all, func(st *api.TracingPolicyStatus) bool {
		return !strings.HasPrefix(st.GetName(), policyPrefix(s)) && !strings.HasPrefix(st.GetName(), tetragon.BrokenPrefix)
	}), err
}

func listsAny(policies []*api.TracingPolicyStatus, names []string) bool {
	return slices.ContainsFunc(policies, func(st *api.TracingPolicyStatus) bool { return slices.Contains(names, st.GetName()) })
}

func policyName(s *store.Store, n uint64) string {
	return fmt.Sprintf("%sg%d", policyPrefix(s), n)
}

// highest is the highest number of a generation among the policies, which an
// agent may have of a database that was lost since.
func highest(s *store.Store, policies []*api.TracingPolicyStatus) uint64 {
	var n uint64
	for _, st := range policies {
		text, _ := strings.CutPrefix(st.GetName(), policyPrefix(s)+"g")
		text, _, _ = strings.Cut(text, "-") // of several policies
		if one, err := strconv.ParseUint(text, 10, 63); err == nil {
			n = max(n, one)
		}
	}
	return n
}

// inForce returns the generation recorded as loaded, nil if none is.
func inForce(generations []store.Generation) *store.Generation {
	for i := len(generations) - 1; i >= 0; i-- {
		if generations[i].State == store.StateLoaded {
			return &generations[i]
		}
	}
	return nil
}

// unended reads the generations recorded as loaded or loading, sorted by number.
// The others, each of which lists as many paths, it does not read.
func unended(tx *store.Tx) ([]store.Generation, error) {
	states, err := tx.GenerationStates()
	if err != nil {
		return nil, err
	}
	var all []store.Generation
	for _, one := range states {
		if one.State != store.StateLoaded && one.State != store.StateLoading {
			continue
		}
		g, err := tx.Generation(one.N)
		if err != nil {
			return nil, err
		}
		all = append(all, *g)
	}
	return all, nil
}

// InForce returns the generation that the database has for loaded, or else the
// last one that a killed command left loading; nil if there is neither. It asks
// no agent: Generation.Agent says which one to ask.
func InForce(ctx context.Context, s *store.Store) (*store.Generation, error) {
	var g *store.Generation
	err := s.View(ctx, func(tx *store.Tx) error {
		all, err := unended(tx)
		if err != nil {
			return err
		}
		if g = inForce(all); g != nil {
			return nil
		}
		for i := range all {
			if all[i].State == store.StateLoading {
				g = &all[i]
			}
		}
		return nil
	})
	return g, err
}

// CountKills asks the agent what the generation in force has counted and
// records it. A plan for promotion is to be made after it.
func CountKills(ctx context.Context, a *tetragon.Agent, s *store.Store) error {
	const tries = 3
	for range tries {
		if done, err := countKills(ctx, a, s); err != nil || done {
			return err
		}
	}
	return nil // others count all the time
}

// countKills does so, unless another command has meanwhile.
func countKills(ctx context.Context, a *tetragon.Agent, s *store.Store) (done bool, err error) {
	g, err := InForce(ctx, s)
	if err != nil || g == nil {
		return true, err
	}
	listed, err := list(ctx, a, tetragon.EnforcePrefix)
	if err != nil {
		return true, err
	}
	kills, counters, err := readKills(a, listed, *g)
	if err != nil || slices.Equal(raiseKills(g.Kills, kills), g.Kills) && slices.Equal(counters, g.Counters) {
		return true, err
	}
	err = s.Update(ctx, func(tx *store.Tx) error {
		one, err := tx.Generation(g.N) // it may have ended
		if err != nil || one == nil {
			return err
		}
		// What the agent said goes with what was recorded before it was asked.
		if done = slices.Equal(one.Counters, g.Counters); !done {
			return nil
		}
		one.Kills, one.Counters = raiseKills(one.Kills, kills), counters
		return tx.PutGeneration(one)
	})
	return done, err
}

// changeGenerations writes those of the generations that change says it changed.
func changeGenerations(tx *store.Tx, all []store.Generation, change func(*store.Generation) bool) error {
	for i := range all {
		if change(&all[i]) {
			if err := tx.PutGeneration(&all[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// readKills reads the counts of a generation from all its policies that are
// listed, sorted by path: of the paths that it lists, since what else is
// counted is a canary, and of its stage, since what its policies counted in
// monitor is the generation's that was promoted. An agent that cannot tell
// executables apart has one count for the path ""; its counters are given as
// they are to be recorded.
func readKills(a *tetragon.Agent, listed listing, g store.Generation) (kills []store.Kill, counters []store.Counter, err error) {
	sum := map[string]store.Kill{}
	counters = slices.Clone(g.Counters)
	for _, st := range listed.policies {
		if !slices.Contains(g.Policies, st.GetName()) {
			continue
		}
		var counted []store.Kill
		if a.IsSensor() {
			counted, err = policyKills(a, st, g)
		} else {
			counted, counters = allKills(st, listed.instance, g, counters)
		}
		if err != nil {
			return nil, nil, err
		}
		addKills(sum, counted)
	}
	for _, file := range slices.Sorted(maps.Keys(sum)) {
		kills = append(kills, sum[file])
	}
	return kills, counters, nil
}

// policyKills reads the counts that the embedded sensor has of one policy of a
// generation.
func policyKills(a *tetragon.Agent, st *api.TracingPolicyStatus, g store.Generation) ([]store.Kill, error) {
	info, err := a.Info(st)
	if err != nil {
		return nil, err
	}
	var kills []store.Kill
	for _, k := range info.Kills {
		one := store.Kill{Path: string(k.Path), Kills: k.Kills, LastKill: k.LastKill}
		if g.Stage == store.StageMonitor {
			one = store.Kill{Path: string(k.Path), Would: k.Would, LastWould: k.LastWould}
		}
		if _, listed := slices.BinarySearch(g.Paths, one.Path); listed && one.Kills+one.Would > 0 {
			kills = append(kills, one)
		}
	}
	return kills, nil
}

// end marks a generation as no longer in force.
func end(g *store.Generation, state string, now time.Time) {
	g.State, g.Ended = state, now
}
