package profiler

import (
	"cmp"
	"slices"
	"strings"

	"profile/store"
)

// Changed gives the rows that changed since it was last called, sorted by
// path: copies, the caller's to keep. If they could not be stored, Keep takes
// them back.
func (f *Fold) Changed() []*store.Evidence {
	f.dropProbes()
	if f.touched {
		f.touched = false
		for _, q := range f.processes {
			if q.run.of != nil && q.run.seen {
				f.changed(q.run.of.ex)
			}
		}
	}
	if len(f.dirty) == 0 {
		return nil
	}
	f.countLive()
	rows := make([]*store.Evidence, 0, len(f.dirty))
	for _, ex := range f.dirty {
		ex.dirty = false
		if row := f.row(ex); row != nil {
			rows = append(rows, row)
		}
	}
	f.dirty = f.dirty[:0]
	slices.SortFunc(rows, func(a, b *store.Evidence) int {
		return cmp.Or(strings.Compare(a.Key.Path, b.Key.Path), strings.Compare(a.Key.Scope, b.Key.Scope))
	})
	return rows
}

// Keep says that rows of Changed could not be stored: their next state is
// given again.
func (f *Fold) Keep(rows []*store.Evidence) {
	for _, row := range rows {
		if ex := f.executables[row.Key]; ex != nil {
			f.changed(ex)
		}
	}
}

// countLive goes through the live processes for what the dirty rows tell of
// them.
func (f *Fold) countLive() {
	for _, ex := range f.dirty {
		for _, t := range ex.tallies {
			t.going, t.alive = store.Going{}, t.alive[:0]
		}
	}
	f.mark++
	for pid, q := range f.processes {
		r := q.run
		switch {
		case r.of == nil || !r.of.ex.dirty:
		case r.unseen:
			start := q.start
			if start == 0 {
				start = q.since
			}
			r.of.alive = append(r.of.alive, store.Process{PID: pid, Start: wall(start)})
		case r.seen && r.mark != f.mark:
			r.mark = f.mark
			addGoing(&r.of.going, r, r.losses == f.losses && !r.crossed && !r.unsure)
		}
	}
}

func addGoing(g *store.Going, r *run, clean bool) {
	at := wall(r.began)
	if g.Clean+g.Touched == 0 {
		g.OldestAny, g.NewestAny = at, at
	}
	if at.Before(g.OldestAny) {
		g.OldestAny = at
	}
	if at.After(g.NewestAny) {
		g.NewestAny = at
	}
	if !clean {
		g.Touched++
		return
	}
	if g.Clean == 0 {
		g.Oldest, g.Newest = at, at
	}
	if at.Before(g.Oldest) {
		g.Oldest = at
	}
	if at.After(g.Newest) {
		g.Newest = at
	}
	g.Clean++
}

// row is nil if nothing was observed of the executable.
func (f *Fold) row(ex *executable) *store.Evidence {
	if ex.first == 0 {
		return nil
	}
	row := &store.Evidence{
		Key: ex.key, Session: f.cfg.Session,
		FirstSeen: wall(ex.first), LastSeen: wall(ex.last),
	}
	for _, t := range ex.tallies {
		if t.seen+t.unseen+t.crossed == 0 && len(t.uses) == 0 && ex.firstOutside == 0 {
			continue // it ran only before the window
		}
		row.Files = append(row.Files, f.tallyRow(t))
	}
	for _, a := range ex.attempts {
		family, typ := f.typeName(a.typ)
		row.Attempts = append(row.Attempts, store.Attempt{
			Family: family, Type: typ, Stage: a.stage,
			Count: a.count, First: wall(a.first), Last: wall(a.last),
		})
	}
	slices.SortFunc(row.Attempts, func(a, b store.Attempt) int {
		return cmp.Or(strings.Compare(a.Family, b.Family), strings.Compare(a.Type, b.Type), strings.Compare(a.Stage, b.Stage))
	})
	return row
}

func (f *Fold) tallyRow(t *tally) store.Tally {
	out := store.Tally{
		File:      t.file,
		FirstExec: wall(t.firstExec), LastExec: wall(t.lastExec),
		Seen: t.seen, Complete: t.complete, Clean: t.clean, Crossed: t.crossed,
		Going:       t.going,
		UnseenCount: t.unseen,
		Entries:     slices.Clone(t.entries),
		Args:        slices.Clone(t.args),
	}
	slices.SortFunc(out.Entries, func(a, b store.Entry) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(t.alive, func(a, b store.Process) int { return cmp.Compare(a.PID, b.PID) })
	out.Unseen = slices.Clone(t.alive[:min(len(t.alive), store.MaxUnseen)])
	for _, u := range t.uses {
		family, typ := f.typeName(u.typ)
		out.Network = append(out.Network, store.Use{
			Family: family, Type: typ, Runs: u.runs, First: wall(u.first), Last: wall(u.last),
			Protocols: slices.Clone(u.protocols), Reach: u.reach, Destinations: slices.Clone(u.destinations), Inherited: u.inherited,
		})
	}
	slices.SortFunc(out.Network, func(a, b store.Use) int {
		return cmp.Or(strings.Compare(a.Family, b.Family), strings.Compare(a.Type, b.Type))
	})
	return out
}
