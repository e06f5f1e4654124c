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

// unheardWould gives each path that was last monitored in a generation which
// would have killed something that nobody heard the name of, from an agent that
// counts all together, how often that was. It may have been any of them.
func unheardWould(generations []store.Generation) map[string]uint64 {
	unheard := map[string]uint64{}
	for _, g := range generations {
		if g.Stage != store.StageMonitor || g.State == store.StateFailed {
			continue
		}
		i, found := findKill(g.Kills, "")
		for _, file := range g.Paths {
			if found && g.Kills[i].Would > 0 {
				unheard[file] = g.Kills[i].Would
			} else {
				delete(unheard, file)
			}
		}
	}
	return unheard
}

// raiseKills brings what was recorded of a generation up to what its agent now
// counts. An agent that was restarted counts from zero: no count goes down. A
// count for the path "" is one of all executables together: what was heard of
// some by name is taken from it. Where nothing was counted since, the time is as
// it was recorded: the kernel's clock gives another each time that it is read as
// one of day.
func raiseKills(recorded, counted []store.Kill) []store.Kill {
	raised := slices.Clone(recorded)
	for _, k := range counted {
		if k.Path == "" {
			named := sumNamed(recorded)
			k.Kills -= min(k.Kills, named.Kills)
			k.Would -= min(k.Would, named.Would)
		}
		i, found := findKill(raised, k.Path)
		if !found {
			if k.Kills+k.Would > 0 {
				raised = slices.Insert(raised, i, k)
			}
			continue
		}
		r := &raised[i]
		if r.Kills != k.Kills || r.LastKill.IsZero() {
			r.Kills, r.LastKill = max(r.Kills, k.Kills), later(r.LastKill, k.LastKill)
		}
		if r.Would != k.Would || r.LastWould.IsZero() {
			r.Would, r.LastWould = max(r.Would, k.Would), later(r.LastWould, k.LastWould)
		}
	}
	return raised
}

func findKill(kills []store.Kill, path string) (int, bool) {
	return slices.BinarySearchFunc(kills, path, func(k store.Kill, path string) int { return strings.Compare(k.Path, path) })
}

func sumNamed(kills []store.Kill) (sum store.Kill) {
	for _, k := range kills {
		if k.Path != "" {
			sum.Kills += k.Kills
			sum.Would += k.Would
		}
	}
	return sum
}

// nameKills adds what was heard of executables by name. From an agent that
// counts, it takes that from the count of those that were not told apart, which
// may have it already.
func nameKills(recorded []store.Kill, heard map[string]store.Kill, counts bool) []store.Kill {
	named := slices.Clone(recorded)
	for path, k := range heard {
		i, found := findKill(named, path)
		if !found {
			named = slices.Insert(named, i, store.Kill{Path: path})
		}
		n := &named[i]
		n.Kills, n.Would = n.Kills+k.Kills, n.Would+k.Would
		n.LastKill, n.LastWould = later(n.LastKill, k.LastKill), later(n.LastWould, k.LastWould)
		if j, found := findKill(named, ""); found && counts {
			named[j].Kills -= min(named[j].Kills, k.Kills)
			named[j].Would -= min(named[j].Would, k.Would)
		}
	}
	return named
}

// lowerKills takes from counts those that others have as well.
func lowerKills(counted, others []store.Kill) []store.Kill {
	lowered := slices.Clone(counted)
	for _, k := range others {
		i, found := findKill(lowered, k.Path)
		if found {
			l := &lowered[i]
			l.Kills -= min(l.Kills, k.Kills)
			l.Would -= min(l.Would, k.Would)
		}
	}
	return lowered
}
