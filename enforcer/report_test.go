package enforcer

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"profile/store"
)

// database holds what the test puts into it.
func database(t *testing.T, put func(*store.Tx) error) *store.Store {
	t.Helper()
	s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(context.Background(), put); err != nil {
		t.Fatal(err)
	}
	return s
}

func putAll(tx *store.Tx, sessions []store.Session, generations []store.Generation, rows ...store.Evidence) error {
	var errs []error
	for _, s := range sessions {
		errs = append(errs, tx.PutSession(&s))
	}
	for _, g := range generations {
		errs = append(errs, tx.PutGeneration(&g))
	}
	for _, r := range rows {
		errs = append(errs, tx.PutEvidence(&r))
	}
	return errors.Join(errs...)
}

func keyed(scope, path string, r store.Evidence) store.Evidence {
	r.Key = store.Key{Scope: scope, Path: path}
	return r
}

// reported are the rows of a report, and the executables it has no evidence of.
func reported(t *testing.T, s *store.Store, o ReportOptions) (rows []Row, missing []string) {
	t.Helper()
	rows, _, missing = reportedAll(t, s, o)
	return rows, missing
}

func reportedFamilies(t *testing.T, s *store.Store, o ReportOptions) ([]Row, []Family) {
	t.Helper()
	rows, families, _ := reportedAll(t, s, o)
	return rows, families
}

func reportedAll(t *testing.T, s *store.Store, o ReportOptions) (rows []Row, families []Family, missing []string) {
	t.Helper()
	err := s.View(context.Background(), func(tx *store.Tx) error {
		r, err := NewReport(tx, o)
		if err != nil {
			return err
		}
		for row, err := range r.Rows() {
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
		families, missing = r.Families(), r.Missing()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows, families, missing
}

func TestReportRowsAreAsPrinted(t *testing.T) {
	s := database(t, func(tx *store.Tx) error {
		r := row("a", store.Tally{Seen: 2, Complete: 1, Clean: 1, FirstExec: at(1), LastExec: at(2),
			Network: []store.Use{{Family: "inet", Type: "stream", Runs: 2, First: at(1), Last: at(2)}},
			Entries: []store.Entry{{Name: "/usr/bin/t\xf6\xf6l", Runs: 2}}})
		r.Attempts = []store.Attempt{{Family: "inet", Type: "dgram", Stage: "enforce", Count: 1, First: at(1), Last: at(2)}}
		return putAll(tx, []store.Session{watched("a", 0, 10)},
			[]store.Generation{{N: 1, State: store.StateReplaced, Kills: []store.Kill{{Path: "/usr/bin/t\xf6\xf6l", Kills: 4, Would: 3, LastKill: at(2), LastWould: at(3)}}}},
			keyed("host", "/usr/bin/t\xf6\xf6l", r))
	})
	rows, _ := reported(t, s, ReportOptions{})
	text, err := json.MarshalIndent(rows, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `[
 {
  "scope": "host",
  "path": "/usr/bin/t\\xf6\\xf6l",
  "path_base64": "L3Vzci9iaW4vdPb2bA==",
  "verdict": "network",
  "reasons": [
   "inet stream in 2 runs from 2026-03-01T01:00:00Z to 2026-03-01T02:00:00Z"
  ],
  "runs": {
   "seen": 2,
   "complete": 1
  },
  "network": [
   {
    "family": "inet",
    "type": "stream",
    "count": 2,
    "first": "2026-03-01T01:00:00Z",
    "last": "2026-03-01T02:00:00Z"
   }
  ],
  "attempts": [
   {
    "family": "inet",
    "type": "dgram",
    "stage": "enforce",
    "count": 1,
    "first": "2026-03-01T01:00:00Z",
    "last": "2026-03-01T02:00:00Z"
   },
   {
    "stage": "enforce",
    "count": 3,
    "last": "2026-03-01T02:00:00Z"
   },
   {
    "stage": "monitor",
    "count": 3,
    "last": "2026-03-01T03:00:00Z"
   }
  ],
  "entries": [
   {
    "name": "/usr/bin/t\\xf6\\xf6l",
    "name_base64": "L3Vzci9iaW4vdPb2bA==",
    "runs": 2
   }
  ],
  "first_seen": "2026-03-01T01:00:00Z",
  "last_seen": "2026-03-01T02:00:00Z"
 }
]`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestReportSessionsAreAsPrinted(t *testing.T) {
	killed := watched("b", 10, 20)
	killed.Ended, killed.Awake, killed.Reach = time.Time{}, 90*time.Minute, true
	killed.Handed = false
	s := database(t, func(tx *store.Tx) error {
		return putAll(tx, []store.Session{watched("a", 0, 10), withGap(killed, lost)}, nil)
	})
	err := s.View(context.Background(), func(tx *store.Tx) error {
		r, err := NewReport(tx, ReportOptions{Thresholds: Thresholds{Since: at(15)}})
		if err != nil {
			return err
		}
		text, err := json.Marshal(r.Sessions())
		const want = `[{"id":"b","agent":"embedded","hook":"cgroup/sock_create","families":["inet","inet6","packet"],` +
			`"from":"2026-03-01T10:00:00Z","to":"2026-03-01T20:00:00Z","awake_seconds":5400,` +
			`"gaps":[{"from":"2026-03-01T01:00:00Z","to":"2026-03-01T01:30:00Z","cause":"the ring was full","count":12}],"uses_watched":true,"handed_watched":false,"sends_watched":true}]`
		if diff := cmp.Diff(want, string(text)); diff != "" {
			t.Errorf("sessions (-want +got):\n%s", diff)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReportFilters(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	target := program(t, filepath.Dir(link), "target")
	symlink(t, target, link)
	s := database(t, func(tx *store.Tx) error {
		return putAll(tx, []store.Session{watched("a", 0, 10)}, nil,
			keyed("host", "/usr/bin/quiet", row("a", runs(1))),
			keyed("host", "/usr/bin/net", row("a", used(runs(1), "inet", "stream"))),
			keyed("shop/web", "/usr/bin/net", row("a", runs(1))),
			keyed("host", "/usr/bin/deep/odd", row("a", store.Tally{UnseenCount: 1})),
			keyed("host", target, row("a", runs(1))))
	})
	paths := func(rows []Row) []string {
		got := []string{}
		for _, r := range rows {
			got = append(got, r.Scope+" "+r.Path)
		}
		return got
	}
	for _, c := range []struct {
		name    string
		o       ReportOptions
		want    []string
		missing []string
	}{
		{name: "all, by path and then scope", o: ReportOptions{Only: []string{"/usr/**"}},
			want: []string{"host /usr/bin/deep/odd", "host /usr/bin/net", "shop/web /usr/bin/net", "host /usr/bin/quiet"}},
		{name: "by verdict", o: ReportOptions{Verdict: Network}, want: []string{"host /usr/bin/net"}},
		{name: "a star does not cross a slash", o: ReportOptions{Only: []string{"/usr/bin/*"}, Verdict: Unproven}, want: []string{}},
		{name: "any of several patterns", o: ReportOptions{Only: []string{"/nowhere/*", "/usr/bin/q*"}}, want: []string{"host /usr/bin/quiet"}},
		{name: "executables", o: ReportOptions{Executables: []string{"/usr/bin/quiet", "/usr/bin/net", "/usr/bin/none"}},
			want: []string{"host /usr/bin/net", "shop/web /usr/bin/net", "host /usr/bin/quiet"}, missing: []string{"/usr/bin/none"}},
		{name: "an executable by a symlink to it", o: ReportOptions{Executables: []string{link}}, want: []string{"host " + target}},
		{name: "thresholds", o: ReportOptions{Verdict: Quiet, Thresholds: Thresholds{MinRuns: 2}}, want: []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, missing := reported(t, s, c.o)
			if diff := cmp.Diff(c.want, paths(rows)); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.missing, missing); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReportRefusesOptions(t *testing.T) {
	s := database(t, func(*store.Tx) error { return nil })
	for _, o := range []ReportOptions{{Verdict: "silent"}, {Only: []string{"/a/[b"}}} {
		err := s.View(context.Background(), func(tx *store.Tx) error {
			_, err := NewReport(tx, o)
			return err
		})
		if !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: error %v, want ErrUsage", o, err)
		}
	}
}

func TestReportShowsTheKernelsCountOnlyWhereNoLearnerSawIt(t *testing.T) {
	for _, c := range []struct {
		name string
		seen []store.Attempt
		kill store.Kill
		want []AttemptRow
	}{
		{"neither", nil, store.Kill{}, []AttemptRow{}},
		{"the kernel alone", nil, store.Kill{Kills: 2, LastKill: at(1)}, []AttemptRow{{Stage: "enforce", Count: 2, Last: at(1)}}},
		{"both, the same", []store.Attempt{{Stage: "enforce", Count: 2}}, store.Kill{Kills: 2}, []AttemptRow{{Stage: "enforce", Count: 2}}},
		{"both, a learner for some of the time", []store.Attempt{{Stage: "enforce", Count: 1}}, store.Kill{Kills: 3, LastKill: at(1)},
			[]AttemptRow{{Stage: "enforce", Count: 1}, {Stage: "enforce", Count: 2, Last: at(1)}}},
		{"both, and what was counted was not asked for yet", []store.Attempt{{Stage: "enforce", Count: 3}}, store.Kill{Kills: 1}, []AttemptRow{{Stage: "enforce", Count: 3}}},
		{"each another stage", []store.Attempt{{Stage: "enforce", Count: 1}}, store.Kill{Would: 2},
			[]AttemptRow{{Stage: "enforce", Count: 1}, {Stage: "monitor", Count: 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, attemptRows(c.seen, c.kill)); diff != "" {
				t.Errorf("attempts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReportOfADamagedDatabaseEndsWithAnError(t *testing.T) {
	s := database(t, func(tx *store.Tx) error {
		return putAll(tx, nil, nil, keyed("host", "/usr/bin/x", row("ghost", runs(1))))
	})
	err := s.View(context.Background(), func(tx *store.Tx) error {
		r, err := NewReport(tx, ReportOptions{})
		if err != nil {
			return err
		}
		for _, err := range r.Rows() {
			if err != nil {
				return err
			}
			t.Error("a row was given")
		}
		return nil
	})
	if err == nil {
		t.Error("no error")
	}
}

func TestReportTellsOfTheFileThatIsThereNow(t *testing.T) {
	dir := t.TempDir()
	curl, err := os.ReadFile("/proc/self/exe") // this test is a program that can do all of it
	if err != nil {
		t.Fatal(err)
	}
	able := write(t, dir, "able", string(curl), 0o755)
	replaced, gone := program(t, dir, "replaced"), filepath.Join(dir, "gone")
	id, err := identify(able)
	if err != nil {
		t.Fatal(err)
	}
	s := database(t, func(tx *store.Tx) error {
		return putAll(tx, []store.Session{watched("a", 0, 10)}, nil,
			keyed("host", able, row("a", of(id, 1, 2, runs(1)))), keyed("shop/web", able, row("a", of(id, 1, 2, runs(1)))),
			keyed("host", gone, row("a", of(oldFile, 1, 2, runs(1)))), keyed("host", replaced, row("a", of(oldFile, 1, 2, runs(1)))))
	})
	rows, _ := reported(t, s, ReportOptions{})
	type told struct {
		Path     string
		Replaced bool
		Able     []string
		Helper   bool
	}
	var got []told
	for _, r := range rows {
		got = append(got, told{r.Scope + " " + filepath.Base(r.Path), r.ReplacedSince, r.Able, slices.Contains(r.Reasons, fallsBack)})
	}
	want := []told{{"host able", false, []string{"sockets", "resolver"}, true}, {"shop/web able", false, nil, false},
		{"host gone", false, nil, false}, {"host replaced", true, nil, false}}
	for i := range got { // with or without TLS, which the test's own imports decide
		got[i].Able = slices.DeleteFunc(got[i].Able, func(what string) bool { return what == "tls" || what == "loads" })
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestReportTellsWhatNetworkUseWas(t *testing.T) {
	u := store.Use{Family: "inet", Type: "dgram", Runs: 3, First: at(1), Last: at(2), Protocols: []uint32{0, 1, 17, 99},
		Reach: store.ReachLoopback | store.ReachOut, Destinations: []string{"192.0.2.1:53"}, Inherited: 1}
	want := NetworkUse{Family: "inet", Type: "dgram", Count: 3, First: at(1), Last: at(2), Protocols: []string{"icmp", "udp", "99"},
		Reach: []string{"loopback", "out"}, Destinations: []string{"192.0.2.1:53"}, Inherited: 1}
	if diff := cmp.Diff(want, networkUse(u)); diff != "" {
		t.Errorf("use (-want +got):\n%s", diff)
	}
	more := store.Use{Family: "inet", Type: "dgram", Runs: 2, First: at(0), Last: at(1), Protocols: []uint32{2, 17}, Reach: store.ReachListen,
		Destinations: []string{"10.0.0.1:1", "192.0.2.1:53", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1"}[:store.MaxDestinations], Inherited: 1}
	merged := mergeUses([]store.Use{u}, []store.Use{more})
	sum := []store.Use{{Family: "inet", Type: "dgram", Runs: 5, First: at(0), Last: at(2), Protocols: []uint32{0, 1, 2, 17, 99},
		Reach: store.ReachLoopback | store.ReachListen | store.ReachOut, Inherited: 2,
		Destinations: []string{"10.0.0.1:1", "192.0.2.1:53", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"}}}
	if diff := cmp.Diff(sum, merged); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}
