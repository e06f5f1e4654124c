package enforcer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

// day is when everything in these tests happens.
var day = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// at is a time of that day.
func at(hours float64) time.Time { return day.Add(time.Duration(hours * float64(time.Hour))) }

// watched is a session of the whole machine, watched from one hour to another.
func watched(id string, from, to float64) store.Session {
	return store.Session{ID: id, Agent: "embedded", Hook: "cgroup/sock_create", Families: []string{"inet", "inet6", "packet"},
		Cgroup: "/", Reach: true, Handed: true, Started: at(from), Ended: at(to), Windows: []store.Window{{From: at(from), To: at(to)}}}
}

func withGap(s store.Session, gaps ...store.Gap) store.Session {
	s.Gaps = gaps
	return s
}

func row(session string, tallies ...store.Tally) store.Evidence {
	e := store.Evidence{Key: store.Key{Scope: store.HostScope, Path: "/usr/bin/tool"}, Session: session, Files: tallies,
		FirstSeen: at(1), LastSeen: at(2)}
	return e
}

// runs is a tally of complete runs that nothing touched.
func runs(n uint64) store.Tally {
	return store.Tally{Seen: n, Complete: n, Clean: n, FirstExec: at(1), LastExec: at(2)}
}

func of(file store.FileID, first, last float64, t store.Tally) store.Tally {
	t.File = file
	t.FirstExec, t.LastExec = at(first), at(last)
	return t
}

func used(t store.Tally, family, typ string) store.Tally {
	t.Network = append(t.Network, store.Use{Family: family, Type: typ, Runs: 1, First: at(1), Last: at(2)})
	return t
}

// going adds runs that are still going, exec'd at those hours.
func going(t store.Tally, hours ...float64) store.Tally {
	t.Seen += uint64(len(hours))
	oldest, newest := at(slices.Min(hours)), at(slices.Max(hours))
	t.Going = store.Going{Clean: uint64(len(hours)), Oldest: oldest, Newest: newest, OldestAny: oldest, NewestAny: newest}
	return t
}

// touched says that a gap touched everything in the tally.
func touched(t store.Tally) store.Tally {
	t.Clean = 0
	t.Going.Touched, t.Going.Clean = t.Going.Clean, 0
	t.Going.Oldest, t.Going.Newest = time.Time{}, time.Time{}
	return t
}

var (
	oldFile = store.FileID{Dev: 1, Ino: 10, Size: 100, CtimeNS: 5}
	newFile = store.FileID{Dev: 1, Ino: 11, Size: 100, CtimeNS: 9}
	lost    = store.Gap{From: at(1), To: at(1.5), Cause: "the ring was full", Count: 12}
	lostAny = store.Gap{From: at(3), To: at(4), Cause: "a recording cannot count losses"}
)

func TestJudge(t *testing.T) {
	const gap12 = "gap: 12 observations lost between 2026-03-01T01:00:00Z and 2026-03-01T01:30:00Z in session a (the ring was full)"
	noHook := watched("a", 0, 10)
	noHook.NoSocketHook, noHook.Windows = true, nil
	recorded := noHook
	recorded.Agent = store.Recording
	elsewhere := withGap(watched("b", 0, 10), lost)
	elsewhere.Only = []string{"/opt/**"}
	killed := watched("a", 0, 10)
	killed.Ended = time.Time{}
	restarted := watched("a", 0, 10)
	restarted.Windows = []store.Window{{From: at(0), To: at(5)}, {From: at(6), To: at(10)}}
	for _, c := range []struct {
		name     string
		sessions []store.Session
		rows     []store.Evidence
		t        Thresholds
		kind     string
		reasons  []string
		notes    []string
	}{
		{name: "one complete run is quiet", rows: []store.Evidence{row("a", runs(1))}, kind: Quiet},
		{name: "a socket is network, beside any number of quiet runs",
			rows: []store.Evidence{row("a", used(runs(100), "inet", "stream"))}, kind: Network},
		{name: "a socket in another session is network", sessions: []store.Session{watched("a", 0, 10), watched("b", 10, 20)},
			rows: []store.Evidence{row("a", used(runs(1), "packet", "raw")), row("b", runs(9))}, kind: Network},
		{name: "nothing at all", kind: Unproven, reasons: []string{"not seen in the sessions considered"}},
		{name: "no run is complete", rows: []store.Evidence{row("a", store.Tally{Seen: 3, FirstExec: at(1), LastExec: at(1)})},
			kind: Unproven, reasons: []string{"no complete run (needs 1)"}},
		{name: "fewer complete runs than asked for", t: Thresholds{MinRuns: 3}, rows: []store.Evidence{row("a", runs(2))},
			kind: Unproven, reasons: []string{"too few complete runs: 2 (needs 3)"}},
		{name: "complete runs add up over sessions", t: Thresholds{MinRuns: 3}, sessions: []store.Session{watched("a", 0, 10), watched("b", 10, 20)},
			rows: []store.Evidence{row("a", runs(2)), row("b", runs(1))}, kind: Quiet},

		{name: "going for long enough", rows: []store.Evidence{row("a", going(store.Tally{}, 8.5))}, kind: Quiet},
		{name: "going for exactly long enough", rows: []store.Evidence{row("a", going(store.Tally{}, 9))}, kind: Quiet},
		{name: "going for too short", rows: []store.Evidence{row("a", going(store.Tally{}, 9.5))},
			kind: Unproven, reasons: []string{"still going", "no complete run (needs 1)"}},
		{name: "going for as long as asked", t: Thresholds{MinWatch: 10 * time.Minute}, rows: []store.Evidence{row("a", going(store.Tally{}, 9.5))}, kind: Quiet},
		{name: "two complete do not excuse one going", rows: []store.Evidence{row("a", going(runs(2), 9.5))},
			kind: Unproven, reasons: []string{"still going"}},
		{name: "three complete excuse one going", rows: []store.Evidence{row("a", going(runs(3), 9.5))}, kind: Quiet},
		{name: "three complete excuse nothing where more are asked for", t: Thresholds{MinRuns: 5}, rows: []store.Evidence{row("a", going(runs(3), 9.5))},
			kind: Unproven, reasons: []string{"too few complete runs: 3 (needs 5)"}},
		{name: "one going for long does not excuse a second", rows: []store.Evidence{row("a", going(store.Tally{}, 1, 9.5))},
			kind: Unproven, reasons: []string{"still going"}},
		{name: "a killed session is watched up to its last canary", sessions: []store.Session{killed},
			rows: []store.Evidence{row("a", going(store.Tally{}, 9.5))},
			kind: Unproven, reasons: []string{"still going", "no complete run (needs 1)"}},
		{name: "watched from its exec, not across unwatched time", sessions: []store.Session{restarted},
			rows: []store.Evidence{row("a", going(store.Tally{}, 4))}, kind: Unproven, reasons: []string{"still going", "no complete run (needs 1)"}},

		{name: "start not seen alone", rows: []store.Evidence{row("a", store.Tally{UnseenCount: 1})},
			kind: Unproven, reasons: []string{"start not seen"}},
		{name: "start not seen does not disqualify", rows: []store.Evidence{row("a", func() store.Tally { t := runs(1); t.UnseenCount = 4; return t }())}, kind: Quiet},
		{name: "a socket held by what was running before", rows: []store.Evidence{row("a", used(store.Tally{UnseenCount: 1}, "inet", "stream"))}, kind: Network},
		{name: "a run that crosses unwatched time", rows: []store.Evidence{row("a", func() store.Tally { t := runs(9); t.Crossed = 1; return t }())},
			kind: Unproven, reasons: []string{"runs cross unwatched time"}},
		{name: "a session without a socket hook proves nothing", sessions: []store.Session{noHook}, rows: []store.Evidence{row("a", runs(9))},
			kind: Unproven, reasons: []string{"the session has no socket hook", "no complete run (needs 1)"}},

		{name: "a record without a socket hook proves nothing", sessions: []store.Session{recorded}, rows: []store.Evidence{row("a", runs(9))},
			kind: Unproven, reasons: []string{"the record has no socket hook", "no complete run (needs 1)"}},
		{name: "start not seen is not all, beside a run that crosses unwatched time", rows: []store.Evidence{row("a", store.Tally{UnseenCount: 1, Crossed: 1})},
			kind: Unproven, reasons: []string{"runs cross unwatched time", "no complete run (needs 1)"}},
		{name: "start not seen is not all, beside a run that was seen", rows: []store.Evidence{row("a", store.Tally{UnseenCount: 1, Seen: 1})},
			kind: Unproven, reasons: []string{"no complete run (needs 1)"}},
		{name: "a name that was not resolved", rows: []store.Evidence{keyed("host", store.Unresolved+"/usr/bin/tool", row("a", runs(9)))},
			kind: Unproven, reasons: []string{"name not resolved"}},

		{name: "a gap leaves no quiet", sessions: []store.Session{withGap(watched("a", 0, 10), lost)}, rows: []store.Evidence{row("a", runs(9))},
			kind: Unproven, reasons: []string{gap12}},
		{name: "a gap in one session spoils the other", sessions: []store.Session{withGap(watched("a", 0, 10), lost), watched("b", 10, 20)},
			rows: []store.Evidence{row("a", runs(9)), row("b", runs(9))}, kind: Unproven, reasons: []string{gap12}},
		{name: "the row can be what the gap lost", sessions: []store.Session{withGap(watched("a", 0, 10), lost), watched("b", 10, 20)},
			rows: []store.Evidence{row("b", runs(9))}, kind: Unproven, reasons: []string{gap12}},
		{name: "a gap of a session that did not watch the path", sessions: []store.Session{watched("a", 0, 10), elsewhere},
			rows: []store.Evidence{row("a", runs(1))}, kind: Quiet},
		{name: "a gap beside a socket", sessions: []store.Session{withGap(watched("a", 0, 10), lost)},
			rows: []store.Evidence{row("a", used(runs(9), "inet", "dgram"))}, kind: Network},
		{name: "every reason", sessions: []store.Session{withGap(watched("a", 0, 10), lost)},
			rows: []store.Evidence{row("a", func() store.Tally { t := going(store.Tally{}, 9.5); t.Crossed = 2; return t }())},
			kind: Unproven, reasons: []string{"runs cross unwatched time", "still going", "no complete run (needs 1)", gap12}},

		{name: "accepted, the untouched runs decide", t: Thresholds{AcceptGaps: true}, sessions: []store.Session{withGap(watched("a", 0, 10), lost, lostAny)},
			rows: []store.Evidence{row("a", runs(1))}, kind: Quiet,
			notes: []string{"accepted gap: at least 12 observations lost between 2026-03-01T01:00:00Z and 2026-03-01T04:00:00Z in session a (the ring was full; a recording cannot count losses)"}},
		{name: "accepted, a touched run proves nothing", t: Thresholds{AcceptGaps: true}, sessions: []store.Session{withGap(watched("a", 0, 10), lostAny)},
			rows: []store.Evidence{row("a", touched(runs(1)))}, kind: Unproven, reasons: []string{"no complete run that no gap touched (needs 1)"},
			notes: []string{"accepted gap: an unknown number of observations lost between 2026-03-01T03:00:00Z and 2026-03-01T04:00:00Z in session a (a recording cannot count losses)"}},
		{name: "accepted, a touched run still going is ignored", t: Thresholds{AcceptGaps: true},
			rows: []store.Evidence{row("a", func() store.Tally { t := touched(going(runs(1), 9.5)); t.Clean = 1; return t }())}, kind: Quiet},
		{name: "accepted, an untouched one is not", t: Thresholds{AcceptGaps: true}, rows: []store.Evidence{row("a", going(runs(1), 9.5))},
			kind: Unproven, reasons: []string{"still going"}},

		{name: "since leaves out the session that used the network", t: Thresholds{Since: at(15)}, sessions: []store.Session{watched("a", 0, 10), watched("b", 10, 20)},
			rows: []store.Evidence{row("a", used(runs(1), "inet", "stream")), row("b", runs(1))}, kind: Quiet},
		{name: "since leaves out the session with the gap", t: Thresholds{Since: at(15)}, sessions: []store.Session{withGap(watched("a", 0, 10), lost), watched("b", 10, 20)},
			rows: []store.Evidence{row("a", runs(1)), row("b", runs(1))}, kind: Quiet},
		{name: "since leaves out everything", t: Thresholds{Since: at(15)}, rows: []store.Evidence{row("a", runs(9))},
			kind: Unproven, reasons: []string{"not seen in the sessions considered"}},
		{name: "a session that ends at that time stays", t: Thresholds{Since: at(10)}, rows: []store.Evidence{row("a", runs(9))}, kind: Quiet},
		{name: "a killed session ended with its last window", t: Thresholds{Since: at(15)}, sessions: []store.Session{killed, watched("b", 10, 20)},
			rows: []store.Evidence{row("a", used(runs(1), "inet", "stream")), row("b", runs(1))}, kind: Quiet},

		{name: "what the old file did is history", rows: []store.Evidence{row("a", of(oldFile, 1, 2, used(runs(1), "inet", "stream")), of(newFile, 3, 4, runs(1)))}, kind: Quiet},
		{name: "quiet runs of the old file too", rows: []store.Evidence{row("a", of(oldFile, 1, 2, runs(5)), of(newFile, 3, 4, store.Tally{Seen: 1}))},
			kind: Unproven, reasons: []string{"no complete run (needs 1)"}},
		{name: "a file that came back is the current one", rows: []store.Evidence{row("a", of(newFile, 3, 4, used(runs(1), "inet", "stream")), of(oldFile, 1, 5, runs(1)))}, kind: Network},
		{name: "two files by turns: the worse one decides", rows: []store.Evidence{row("a", of(oldFile, 1, 3.5, runs(1)), of(newFile, 3, 4, store.Tally{Seen: 1}))},
			kind: Unproven, reasons: []string{"no complete run (needs 1)"}},
		{name: "the current file was seen last in a session left out", t: Thresholds{Since: at(15)},
			sessions: []store.Session{watched("a", 0, 20), watched("b", 5, 6)},
			rows:     []store.Evidence{row("a", of(oldFile, 1, 2, runs(1))), row("b", of(newFile, 5.5, 5.6, runs(1)))},
			kind:     Unproven, reasons: []string{"not seen in the sessions considered"}},
		{name: "an unknown file counts as any", rows: []store.Evidence{row("a", of(store.FileID{}, 1, 2, used(runs(1), "inet", "stream")), of(newFile, 3, 4, runs(1)))}, kind: Network},
		{name: "an unknown file's runs too", t: Thresholds{MinRuns: 2}, rows: []store.Evidence{row("a", of(store.FileID{}, 1, 2, runs(1)), of(newFile, 3, 4, runs(1)))}, kind: Quiet},
		{name: "an old process of a replaced file is history", rows: []store.Evidence{row("a",
			used(store.Tally{File: oldFile, UnseenCount: 1}, "inet", "stream"), of(newFile, 3, 4, runs(1)))}, kind: Quiet},
		{name: "an old process of the current file is not", rows: []store.Evidence{row("a", of(newFile, 3, 4, runs(1))),
			row("b", used(store.Tally{File: newFile, UnseenCount: 1}, "inet", "stream"))},
			sessions: []store.Session{watched("a", 0, 10), watched("b", 10, 20)}, kind: Network},
		{name: "nothing but old processes of two files", rows: []store.Evidence{row("a",
			used(store.Tally{File: oldFile, UnseenCount: 1}, "inet", "stream"), store.Tally{File: newFile, UnseenCount: 1})}, kind: Network},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.sessions == nil {
				c.sessions = []store.Session{watched("a", 0, 10)}
			}
			sessions := map[string]store.Session{}
			for _, s := range c.sessions {
				sessions[s.ID] = s
			}
			v, err := Judge(c.rows, sessions, c.t)
			if err != nil {
				t.Fatal(err)
			}
			if v.Kind != c.kind {
				t.Errorf("%s, want %s", v.Kind, c.kind)
			}
			if diff := cmp.Diff(c.reasons, v.Reasons); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.notes, v.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJudgeMergesTheCountsOfTheCurrentFile(t *testing.T) {
	sessions := map[string]store.Session{"a": watched("a", 0, 10), "b": watched("b", 10, 20)}
	first := row("a", of(newFile, 1, 2, store.Tally{Seen: 3, Complete: 2,
		Network: []store.Use{{Family: "inet", Type: "stream", Runs: 2, First: at(1), Last: at(2)}},
		Entries: []store.Entry{{Name: "/usr/bin/b", Runs: 3}}}), of(oldFile, 0.1, 0.2, runs(70)))
	first.Attempts = []store.Attempt{{Family: "inet", Type: "stream", Stage: "enforce", Count: 1, First: at(5), Last: at(5)}}
	second := row("b", of(newFile, 11, 12, store.Tally{Seen: 4, Complete: 4,
		Network: []store.Use{{Family: "inet", Type: "dgram", Runs: 1, First: at(11), Last: at(11)}, {Family: "inet", Type: "stream", Runs: 1, First: at(12), Last: at(12)}},
		Entries: []store.Entry{{Name: "/usr/bin/a", Runs: 1}, {Name: "/usr/bin/b", Runs: 3}}}))
	second.FirstSeen, second.LastSeen = at(11), at(12)
	second.Attempts = []store.Attempt{{Family: "inet", Type: "stream", Stage: "enforce", Count: 2, First: at(4), Last: at(4)},
		{Family: "inet", Type: "stream", Stage: "monitor", Count: 9, First: at(4), Last: at(4)}}
	v, err := Judge([]store.Evidence{first, second}, sessions, Thresholds{})
	if err != nil {
		t.Fatal(err)
	}
	want := Verdict{Kind: Network, Seen: 7, Complete: 6,
		Network: []store.Use{{Family: "inet", Type: "dgram", Runs: 1, First: at(11), Last: at(11)}, {Family: "inet", Type: "stream", Runs: 3, First: at(1), Last: at(12)}},
		Attempts: []store.Attempt{{Family: "inet", Type: "stream", Stage: "enforce", Count: 3, First: at(4), Last: at(5)},
			{Family: "inet", Type: "stream", Stage: "monitor", Count: 9, First: at(4), Last: at(4)}},
		Entries:   []store.Entry{{Name: "/usr/bin/a", Runs: 1}, {Name: "/usr/bin/b", Runs: 6}},
		FirstSeen: at(1), LastSeen: at(12), Files: []store.FileID{newFile}}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Errorf("verdict (-want +got):\n%s", diff)
	}
	if n := first.Files[0].Network[0].Runs; n != 2 {
		t.Errorf("judging changed the evidence: %d runs, want 2", n)
	}
}

func TestJudgeShowsAttemptsOfSessionsLeftOut(t *testing.T) {
	r := row("a", runs(1))
	r.Attempts = []store.Attempt{{Family: "inet", Type: "stream", Stage: "enforce", Count: 1}}
	v, err := Judge([]store.Evidence{r}, map[string]store.Session{"a": watched("a", 0, 10)}, Thresholds{Since: at(11)})
	if err != nil {
		t.Fatal(err)
	}
	if v.Seen != 0 || len(v.Attempts) != 1 {
		t.Errorf("%d runs and %d attempts, want 0 and 1", v.Seen, len(v.Attempts))
	}
}

func TestJudgeIgnoresARowOfNoSession(t *testing.T) {
	v, err := Judge([]store.Evidence{row("a", runs(1)), row("ghost", runs(7))}, map[string]store.Session{"a": watched("a", 0, 10)}, Thresholds{})
	if err == nil || !strings.Contains(err.Error(), `"ghost"`) {
		t.Errorf("error %v, want one that names the session", err)
	}
	if v.Kind != Quiet || v.Complete != 1 {
		t.Errorf("%s with %d runs, want quiet with 1", v.Kind, v.Complete)
	}
}

func TestAFileIsReplacedByOneOfItsOwnMachineAlone(t *testing.T) {
	first := row("a", of(oldFile, 1, 2, used(runs(2), "inet", "stream")))
	second := row("b", of(newFile, 5, 6, runs(3)))
	for _, c := range []struct {
		name, a, b string
		want       string
		files      []store.FileID
	}{
		{"replaced", "m", "m", Quiet, []store.FileID{newFile}},
		{"replaced, learned by a profile that did not say where", "", "m", Quiet, []store.FileID{newFile}},
		{"learned by profiles that did not say where", "", "", Quiet, []store.FileID{newFile}},
		{"of another machine", "m", "n", Network, []store.FileID{newFile, oldFile}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := watched("a", 0, 4), watched("b", 4, 8)
			a.Machine, b.Machine = c.a, c.b
			v, err := Judge([]store.Evidence{first, second}, map[string]store.Session{"a": a, "b": b}, Thresholds{})
			if err != nil || v.Kind != c.want {
				t.Errorf("verdict %v, error %v; want %v", v.Kind, err, c.want)
			}
			if diff := cmp.Diff(c.files, v.Files); diff != "" {
				t.Errorf("files that count (-want +got):\n%s", diff)
			}
		})
	}
}
