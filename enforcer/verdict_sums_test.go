package enforcer

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func mustJudge(t *testing.T, sessions []store.Session, th Thresholds, rows ...store.Evidence) Verdict {
	t.Helper()
	known := map[string]store.Session{}
	for _, s := range sessions {
		known[s.ID] = s
	}
	v, err := Judge(rows, known, th)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWhenItWasSeenIsToldOverAllSessionsThatCount(t *testing.T) {
	sessions := []store.Session{watched("a", 0, 10), watched("b", 10, 20)}
	early, late := row("a", runs(1)), row("b", runs(1))
	late.FirstSeen, late.LastSeen = at(11), at(12)
	for _, rows := range [][]store.Evidence{{early, late}, {late, early}} {
		if v := mustJudge(t, sessions, Thresholds{}, rows...); !v.FirstSeen.Equal(at(1)) || !v.LastSeen.Equal(at(12)) {
			t.Errorf("seen from %v to %v", v.FirstSeen, v.LastSeen)
		}
	}
	if v := mustJudge(t, sessions, Thresholds{Since: at(15)}, early, late); !v.FirstSeen.Equal(at(11)) {
		t.Errorf("seen first at %v, in a session that is left out", v.FirstSeen)
	}
	// Where no session counts, when it was seen at all.
	if v := mustJudge(t, sessions, Thresholds{Since: at(30)}, early, late); !v.FirstSeen.Equal(at(1)) || !v.LastSeen.Equal(at(12)) || v.Seen > 0 {
		t.Errorf("seen from %v to %v in %d runs, none of which count", v.FirstSeen, v.LastSeen, v.Seen)
	}
}

func TestWhatWouldChangeSeveralReasonsIsToldOnce(t *testing.T) {
	sessions := []store.Session{withGap(watched("a", 0, 10), lost), withGap(watched("b", 10, 20), lost)}
	v := mustJudge(t, sessions, Thresholds{}, row("a", runs(1)), row("b", runs(1)))
	if len(v.Reasons) != 2 || len(v.Changes) != 1 {
		t.Errorf("reasons %q, changes %q; want two and one", v.Reasons, v.Changes)
	}
}

func TestAGapOfUnknownSizeIsAtLeastWhatIsKnownWhereverItStands(t *testing.T) {
	again := store.Gap{From: at(4), To: at(5), Cause: lost.Cause}
	for _, gaps := range [][]store.Gap{{lost, lostAny}, {lostAny, lost}, {lostAny, lost, again}} {
		v := mustJudge(t, []store.Session{withGap(watched("a", 0, 10), gaps...)}, Thresholds{}, row("a", runs(1)))
		if len(v.Reasons) != 1 || !strings.HasPrefix(v.Reasons[0], "gap: at least 12 observations") || strings.Count(v.Reasons[0], lost.Cause) != 1 {
			t.Errorf("reasons %q", v.Reasons)
		}
	}
}

// The run that was watched for the shortest time is the one to wait for.
func TestTheNewestRunThatIsStillGoingDecides(t *testing.T) {
	sessions := []store.Session{watched("a", 0, 10), watched("b", 10, 20)}
	newest := row("a", going(store.Tally{}, 9.75)) // for a quarter of an hour
	other := row("b", going(store.Tally{}, 19.5))
	for _, rows := range [][]store.Evidence{{newest, other}, {other, newest}} {
		if v := mustJudge(t, sessions, Thresholds{}, rows...); !strings.Contains(strings.Join(v.Changes, "\n"), "so far 15m") {
			t.Errorf("changes %q", v.Changes)
		}
	}
}

// A file that was exec'd before and after another one was there by turns with
// it, whatever session saw which.
func TestAFileSeenInSeveralSessionsWasThereBetweenThem(t *testing.T) {
	sessions := []store.Session{watched("a", 0, 10), watched("b", 10, 20), watched("c", 20, 30)}
	v := mustJudge(t, sessions, Thresholds{},
		row("a", of(newFile, 1, 2, runs(1))), row("b", of(oldFile, 11, 12, used(runs(1), "inet", "stream"))), row("c", of(newFile, 21, 22, runs(1))))
	if diff := cmp.Diff([]store.FileID{newFile, oldFile}, v.Files); diff != "" || v.Kind != Network {
		t.Errorf("%s by the files (-want +got):\n%s", v.Kind, diff)
	}
}

// What does not say its machine is of the only one that is said; with two, it is
// of neither.
func TestWhatDoesNotSayItsMachineReplacesNothingOfTwo(t *testing.T) {
	a, b, c := watched("a", 0, 4), watched("b", 4, 8), watched("c", 8, 12)
	a.Machine, b.Machine = "m", "n"
	third := store.FileID{Dev: 1, Ino: 12, Size: 100, CtimeNS: 11}
	v := mustJudge(t, []store.Session{a, b, c}, Thresholds{},
		row("a", of(oldFile, 1, 2, used(runs(1), "inet", "stream"))), row("b", of(newFile, 5, 6, runs(1))), row("c", of(third, 9, 10, runs(1))))
	for _, file := range []store.FileID{oldFile, newFile, third} {
		if !slices.Contains(v.Files, file) {
			t.Errorf("%v does not count", file)
		}
	}
	if v.Kind != Network {
		t.Errorf("%s, and one of the machines has a network user", v.Kind)
	}
}

// One run that was watched for long enough is enough, whatever began later.
func TestARunThatWasWatchedForLongStaysSo(t *testing.T) {
	sessions := []store.Session{watched("a", 0, 10), watched("b", 10, 20)}
	long, later := row("a", going(store.Tally{}, 1)), row("b", going(runs(3), 19.5))
	for _, rows := range [][]store.Evidence{{long, later}, {later, long}} {
		if v := mustJudge(t, sessions, Thresholds{MinRuns: 5}, rows...); v.Kind != Quiet {
			t.Errorf("%s: %q", v.Kind, v.Reasons)
		}
	}
}

// A session ended when it said so, though nothing of its last time was proven.
func TestASessionIsAsOldAsItsEnd(t *testing.T) {
	s := watched("a", 0, 10)
	s.Ended = at(12)
	if v := mustJudge(t, []store.Session{s}, Thresholds{Since: at(11)}, row("a", runs(1))); v.Kind != Quiet {
		t.Errorf("%s: %q", v.Kind, v.Reasons)
	}
}

func TestAGapSpoilsWhatItsSessionWasAskedToWatch(t *testing.T) {
	other := withGap(watched("b", 10, 20), lost)
	other.Only = []string{"/elsewhere/*", "/usr/bin/*"}
	v := mustJudge(t, []store.Session{watched("a", 0, 10), other}, Thresholds{}, row("a", runs(1)))
	if v.Kind != Unproven || len(v.Reasons) != 1 || !strings.HasPrefix(v.Reasons[0], "gap: ") {
		t.Errorf("%s: %q", v.Kind, v.Reasons)
	}
}

// Where gaps are not accepted, they are the reason, and not that runs were
// touched besides.
func TestAGapThatIsNotAcceptedIsTheOnlyReason(t *testing.T) {
	v := mustJudge(t, []store.Session{withGap(watched("a", 0, 10), lost)}, Thresholds{}, row("a", touched(runs(2))))
	if v.Kind != Unproven || len(v.Reasons) != 1 || !strings.HasPrefix(v.Reasons[0], "gap: ") {
		t.Errorf("%s: %q", v.Kind, v.Reasons)
	}
}

// A reason that holds for several files is one, and a file that is the same on
// several machines too.
func TestWhatHoldsForSeveralFilesIsToldOnce(t *testing.T) {
	a, b := watched("a", 0, 10), watched("b", 10, 20)
	v := mustJudge(t, []store.Session{a}, Thresholds{},
		row("a", of(oldFile, 1, 3.5, store.Tally{Seen: 1}), of(newFile, 3, 4, store.Tally{Seen: 1})))
	if diff := cmp.Diff([]string{"no complete run (needs 1)"}, v.Reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	a.Machine, b.Machine = "m", "n"
	v = mustJudge(t, []store.Session{a, b}, Thresholds{}, row("a", of(newFile, 1, 2, runs(1))), row("b", of(newFile, 11, 12, runs(1))))
	if diff := cmp.Diff([]store.FileID{newFile}, v.Files); diff != "" || v.Complete != 2 {
		t.Errorf("%d runs of the files (-want +got):\n%s", v.Complete, diff)
	}
}
