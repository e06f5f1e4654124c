package enforcer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"profile/store"
)

// world is some evidence of one executable.
type world struct {
	rows     []store.Evidence
	sessions map[string]store.Session
	t        Thresholds
}

func (w world) judge(t *rapid.T) Verdict {
	v, err := Judge(w.rows, w.sessions, w.t)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// copied is a world that can be changed without changing this one.
func (w world) copied() world {
	c := world{t: w.t, sessions: map[string]store.Session{}}
	for id, s := range w.sessions {
		s.Gaps = slices.Clone(s.Gaps)
		c.sessions[id] = s
	}
	for _, row := range w.rows {
		row.Files = slices.Clone(row.Files)
		for i := range row.Files {
			row.Files[i].Network = slices.Clone(row.Files[i].Network)
		}
		c.rows = append(c.rows, row)
	}
	return c
}

// lose records a gap in a session.
func (w world) lose(id string) {
	s := w.sessions[id]
	s.Gaps = append(s.Gaps, store.Gap{From: s.Windows[0].From, To: s.Windows[0].To, Cause: "lost", Count: 1})
	w.sessions[id] = s
}

func drawWorld(t *rapid.T) world {
	w := world{sessions: map[string]store.Session{}, t: Thresholds{
		MinRuns:    rapid.Uint64Range(0, 5).Draw(t, "min runs"),
		MinWatch:   time.Duration(rapid.IntRange(0, 3).Draw(t, "min watch")) * time.Hour,
		AcceptGaps: rapid.Bool().Draw(t, "accept gaps"),
	}}
	if rapid.Bool().Draw(t, "since") {
		w.t.Since = at(float64(rapid.IntRange(0, 40).Draw(t, "since hour")))
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "sessions") {
		id := fmt.Sprint(i)
		s := watched(id, float64(10*i), float64(10*i+10))
		s.NoSocketHook = rapid.IntRange(0, 9).Draw(t, "no hook") == 0
		w.sessions[id] = s
		if rapid.IntRange(0, 5).Draw(t, "gap") == 0 {
			w.lose(id)
		}
		if i == 0 || rapid.IntRange(0, 5).Draw(t, "row") > 0 {
			w.rows = append(w.rows, row(id, drawTallies(t, float64(10*i))...))
		}
	}
	return w
}

func drawTallies(t *rapid.T, start float64) []store.Tally {
	var tallies []store.Tally
	files := rapid.SliceOfNDistinct(rapid.SampledFrom([]store.FileID{{}, oldFile, newFile}), 1, 3, rapid.ID).Draw(t, "files")
	for _, file := range files {
		tally := store.Tally{File: file, UnseenCount: rapid.Uint64Range(0, 1).Draw(t, "unseen")}
		if rapid.Bool().Draw(t, "exec") {
			first := start + rapid.Float64Range(0, 9).Draw(t, "first")
			tally.FirstExec, tally.LastExec = at(first), at(first+1)
			tally.Complete = rapid.Uint64Range(0, 4).Draw(t, "complete")
			tally.Clean = rapid.Uint64Range(0, tally.Complete).Draw(t, "clean")
			tally.Crossed = rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "crossed")
			tally.Seen = tally.Complete + tally.Crossed
			if rapid.IntRange(0, 3).Draw(t, "going") == 0 {
				tally = going(tally, first, first+rapid.Float64Range(0, 1).Draw(t, "apart"))
			}
		}
		if rapid.IntRange(0, 5).Draw(t, "network") == 0 {
			tally = used(tally, "inet", "stream")
		}
		tallies = append(tallies, tally)
	}
	return tallies
}

// confidence orders verdicts that claim absence; network claims the contrary.
var confidence = map[string]int{Unproven: 0, Quiet: 1}

func TestAGapNeverMakesAVerdictMoreConfident(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.judge(t)
		lossy := w.copied()
		lossy.lose(fmt.Sprint(rapid.IntRange(0, len(w.sessions)-1).Draw(t, "session")))
		after := lossy.judge(t)
		if before.Kind == Network && after.Kind != Network {
			t.Fatalf("a gap turned network into %s", after.Kind)
		}
		if confidence[after.Kind] > confidence[before.Kind] {
			t.Fatalf("a gap turned %s (%v) into %s", before.Kind, before.Reasons, after.Kind)
		}
	})
}

func TestLosingObservationsNeverMakesAVerdictMoreConfident(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.judge(t)
		lossy := w.copied()
		i := rapid.IntRange(0, len(lossy.rows)-1).Draw(t, "row")
		lossy.lose(lossy.rows[i].Session)
		left := lossy.sessions[lossy.rows[i].Session].Ended.Before(w.t.Since)
		tally := &lossy.rows[i].Files[rapid.IntRange(0, len(lossy.rows[i].Files)-1).Draw(t, "tally")]
		what := rapid.SampledFrom([]string{"end", "exec and end", "run", "crossing", "socket", "row"}).Draw(t, "lost")
		forget(what, tally)
		if what == "row" {
			lossy.rows = slices.Delete(lossy.rows, i, i+1)
		}
		after := lossy.judge(t)
		if after.Kind == Quiet && !w.t.AcceptGaps && !left {
			t.Fatalf("quiet beside a gap, after losing a %s", what)
		}
		sawLess := what == "socket" || what == "row"
		if before.Kind == Network && after.Kind != Network && !sawLess {
			t.Fatalf("losing a %s turned network into %s", what, after.Kind)
		}
		if !sawLess && confidence[after.Kind] > confidence[before.Kind] {
			t.Fatalf("losing a %s turned %s (%v) into %s", what, before.Kind, before.Reasons, after.Kind)
		}
	})
}

// forget changes a tally into what is left of it when one observation is lost.
func forget(what string, tally *store.Tally) {
	take := func(n *uint64) {
		if *n > 0 {
			*n--
		}
	}
	switch what {
	case "end", "crossing":
		if tally.Complete > 0 {
			tally.Complete--
			tally.Clean = min(tally.Clean, tally.Complete)
			if what == "end" {
				tally.Going.Touched++
				tally.Going.OldestAny = earlier(tally.Going.OldestAny, tally.FirstExec)
				tally.Going.NewestAny = later(tally.Going.NewestAny, tally.LastExec)
			} else {
				tally.Crossed++
			}
		}
	case "exec and end", "run":
		take(&tally.Complete)
		take(&tally.Seen)
		tally.Clean = min(tally.Clean, tally.Complete)
	case "socket":
		tally.Network = nil
	}
}

func TestVerdictsDoNotDependOnTheOrderOfRowsAndTallies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		other := w.copied()
		other.rows = rapid.Permutation(other.rows).Draw(t, "rows")
		for i := range other.rows {
			other.rows[i].Files = rapid.Permutation(other.rows[i].Files).Draw(t, "tallies")
		}
		a, b := w.judge(t), other.judge(t)
		if a.Kind != b.Kind || a.Seen != b.Seen || a.Complete != b.Complete {
			t.Fatalf("%s %d %d in one order, %s %d %d in another", a.Kind, a.Seen, a.Complete, b.Kind, b.Seen, b.Complete)
		}
	})
}

func TestQuietAlwaysRestsOnARun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		v := w.judge(t)
		if v.Kind == Quiet && v.Seen == 0 {
			t.Fatal("quiet without a run seen")
		}
		if (v.Kind == Unproven) != (len(v.Reasons) > 0) {
			t.Fatalf("%s with reasons %v", v.Kind, v.Reasons)
		}
	})
}
