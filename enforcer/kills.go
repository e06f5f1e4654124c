package enforcer

import (
	"slices"
	"strings"

	"profile/store"
)

// sumKills adds up what generations counted, by path.
func sumKills(generations []store.Generation) map[string]store.Kill {
	sum := map[string]store.Kill{}
	for _, g := range generations {
		addKills(sum, g.Kills)
	}
	return sum
}

func addKills(sum map[string]store.Kill, kills []store.Kill) {
	for _, k := range kills {
		s := sum[k.Path]
		sum[k.Path] = store.Kill{Path: k.Path, Kills: s.Kills + k.Kills, Would: s.Would + k.Would,
			LastKill: later(s.LastKill, k.LastKill), LastWould: later(s.LastWould, k.LastWould)}
	}
}

// raiseKills brings what was recorded of a generation up to what its agent now
// counts. An agent that was restarted counts from zero: no count goes down.
func raiseKills(recorded, counted []store.Kill) []store.Kill {
	raised := slices.Clone(recorded)
	for _, k := range counted {
		i, found := slices.BinarySearchFunc(raised, k, func(a, b store.Kill) int { return strings.Compare(a.Path, b.Path) })
		if !found {
			raised = slices.Insert(raised, i, k)
			continue
		}
		r := &raised[i]
		r.Kills, r.Would = max(r.Kills, k.Kills), max(r.Would, k.Would)
		r.LastKill, r.LastWould = later(r.LastKill, k.LastKill), later(r.LastWould, k.LastWould)
	}
	return raised
}

// lowerKills takes from counts those that others have as well.
func lowerKills(counted, others []store.Kill) []store.Kill {
	lowered := slices.Clone(counted)
	for _, k := range others {
		i, found := slices.BinarySearchFunc(lowered, k, func(a, b store.Kill) int { return strings.Compare(a.Path, b.Path) })
		if found {
			l := &lowered[i]
			l.Kills -= min(l.Kills, k.Kills)
			l.Would -= min(l.Would, k.Would)
		}
	}
	return lowered
}
