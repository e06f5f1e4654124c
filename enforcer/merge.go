package enforcer

import (
	"cmp"
	"slices"
	"time"

	"profile/store"
)

func mergeUses(into, more []store.Use) []store.Use {
	into = slices.Grow(into, len(more))
	for _, u := range more {
		i, found := slices.BinarySearchFunc(into, u, func(a, b store.Use) int {
			return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Type, b.Type))
		})
		if !found {
			into = slices.Insert(into, i, u)
			continue
		}
		one := &into[i]
		one.Runs += u.Runs
		one.First, one.Last = earlier(one.First, u.First), later(one.Last, u.Last)
		one.Reach |= u.Reach
		one.Inherited += u.Inherited
		one.Protocols = union(one.Protocols, u.Protocols, store.MaxProtocols)
		one.Destinations = union(one.Destinations, u.Destinations, store.MaxDestinations)
	}
	return into
}

// union merges two sorted sets into the first few of both. It changes neither.
func union[T cmp.Ordered](a, b []T, few int) []T {
	if len(b) == 0 {
		return a
	}
	both := slices.Concat(a, b)
	slices.Sort(both)
	both = slices.Compact(both)
	return both[:min(len(both), few)]
}

func mergeAttempts(into, more []store.Attempt) []store.Attempt {
	for _, a := range more {
		i, found := slices.BinarySearchFunc(into, a, func(a, b store.Attempt) int {
			return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Stage, b.Stage))
		})
		if !found {
			into = slices.Insert(into, i, a)
			continue
		}
		into[i].Count += a.Count
		into[i].First, into[i].Last = earlier(into[i].First, a.First), later(into[i].Last, a.Last)
	}
	return into
}

func mergeEntries(into, more []store.Entry) []store.Entry {
	into = slices.Grow(into, len(more))
	for _, e := range more {
		i, found := slices.BinarySearchFunc(into, e, func(a, b store.Entry) int { return cmp.Compare(a.Name, b.Name) })
		if !found {
			into = slices.Insert(into, i, e)
			continue
		}
		into[i].Runs += e.Runs
		into[i].Script = into[i].Script || e.Script
	}
	return into
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
