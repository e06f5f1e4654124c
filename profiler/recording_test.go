package profiler

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"profile/enforcer"
	"profile/store"
)

// recorded is where the streams recorded from real agents lie.
const recorded = "../e2e/testdata/tetragon"

const uncounted = "losses and forks cannot be counted"

var (
	decoding sync.Mutex // guards decoded: some tests run in parallel
	decoded  = map[string][]*api.GetEventsResponse{}
)

// decode reads a recording, once for all tests.
func decode(t *testing.T, name string) []*api.GetEventsResponse {
	t.Helper()
	decoding.Lock()
	defer decoding.Unlock()
	if events, ok := decoded[name]; ok {
		return events
	}
	file, err := os.Open(filepath.Join(recorded, name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var text io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		if text, err = gzip.NewReader(file); err != nil {
			t.Fatal(err)
		}
	}
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		ev := new(api.GetEventsResponse)
		if err := protojson.Unmarshal(lines.Bytes(), ev); err != nil {
			t.Fatal(err)
		}
		decoded[name] = append(decoded[name], ev)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return decoded[name]
}

// replay folds a recording by the rule for recordings.
func replay(t *testing.T, name string) (*Fold, map[string]store.Evidence) {
	t.Helper()
	f := NewFold(Config{Session: "s", Policy: "profile-learn"})
	for _, ev := range decode(t, name) {
		f.Event(ev)
	}
	f.Finish()
	rows := map[string]store.Evidence{}
	for _, row := range f.Changed() {
		if row.Key.Scope != store.HostScope {
			t.Errorf("%s has scope %q: nothing in these recordings was contained", row.Key.Path, row.Key.Scope)
		}
		rows[row.Key.Path] = *row
	}
	return f, rows
}

type truth struct {
	Network       map[string]string       `json:"network"`
	Quiet         []string                `json:"quiet"`
	Unproven      map[string]string       `json:"unproven"`
	NetworkBefore map[string]string       `json:"network_before_recording"`
	Runs          map[string]uint64       `json:"runs"`
	CompleteIfNot map[string]uint64       `json:"complete_runs_if_not_all"`
	NetworkRuns   map[string]uint64       `json:"network_runs"`
	NeverEnforced []struct{ Path string } `json:"never_enforced"`
}

func readTruth(t *testing.T, name string) truth {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recorded, name))
	if err != nil {
		t.Fatal(err)
	}
	var out truth
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// check holds verdicts to the truth: by the rules nothing is quiet, since losses
// and forks are not counted, and by accepted gaps (lenient) each row is as it
// was.
func (want truth) check(t *testing.T, strict, lenient map[string]enforcer.Row) {
	t.Helper()
	for path, row := range strict {
		if row.Verdict == enforcer.Quiet {
			t.Errorf("%q is quiet, and neither losses nor forks are counted", path)
		}
	}
	for path := range want.Network {
		if strict[path].Verdict != enforcer.Network || lenient[path].Verdict != enforcer.Network {
			t.Errorf("%q is %q, and by accepted gaps %q; want network", path, strict[path].Verdict, lenient[path].Verdict)
		}
	}
	for _, path := range want.Quiet {
		if lenient[path].Verdict != enforcer.Quiet {
			t.Errorf("%q is %q (%q), want quiet by accepted gaps", path, lenient[path].Verdict, lenient[path].Reasons)
		}
	}
	for path := range want.Unproven {
		// Without a fork hook dquiet may seem complete.
		if got := lenient[path].Verdict; got != enforcer.Unproven && path != "/tmp/x/dquiet" {
			t.Errorf("%q is %q, want unproven", path, got)
		}
	}
}

// total adds up the tallies of a row; the recordings name no files, so that
// there is one.
func total(t *testing.T, rows map[string]store.Evidence, path string) store.Tally {
	t.Helper()
	row, ok := rows[path]
	if !ok {
		t.Errorf("no evidence of %s", path)
		return store.Tally{}
	}
	if len(row.Files) != 1 {
		t.Errorf("%s has %d tallies", path, len(row.Files))
		return store.Tally{}
	}
	return row.Files[0]
}

func TestRecordingsCountAsTheirTruthSays(t *testing.T) {
	for _, c := range []struct {
		name, truth string
		// dquiet lives on in forks that only a fork hook would tell of: the
		// truth lets it pass for complete.
		mayComplete string
	}{
		{"tools-v1.3.jsonl.gz", "tools-v1.3.truth.json", "/tmp/x/dquiet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, rows := replay(t, c.name)
			want := readTruth(t, c.truth)
			for path, runs := range want.Runs {
				got := total(t, rows, path)
				if got.Seen != runs {
					t.Errorf("%s: seen %d, want %d", path, got.Seen, runs)
				}
				complete := runs
				if n, ok := want.CompleteIfNot[path]; ok {
					complete = n
				}
				if got.Complete != complete && path != c.mayComplete {
					t.Errorf("%s: complete %d, want %d", path, got.Complete, complete)
				}
				if got.Clean != got.Complete {
					t.Errorf("%s: clean %d of %d: nothing was lost that could be seen", path, got.Clean, got.Complete)
				}
				var network uint64
				for _, u := range got.Network {
					network += u.Runs
				}
				if network != want.NetworkRuns[path] {
					t.Errorf("%s: network runs %d, want %d", path, network, want.NetworkRuns[path])
				}
			}
			for path := range want.Unproven {
				if got := total(t, rows, path); got.Complete != 0 && path != c.mayComplete {
					t.Errorf("%s: complete %d, want none", path, got.Complete)
				}
			}
			for path := range rows {
				_, ran := want.Runs[path]
				_, before := want.NetworkBefore[path]
				_, unproven := want.Unproven[path]
				if !ran && !before && !unproven {
					t.Errorf("evidence of %q, which did not run", path)
				}
			}
		})
	}
}

func TestWorkstationRecording(t *testing.T) {
	f, rows := replay(t, "workstation.jsonl")
	want := readTruth(t, "workstation.truth.json")
	for path := range want.Network {
		if got := total(t, rows, path); len(got.Network) == 0 {
			t.Errorf("%q used the network, and there is no evidence of it", path)
		}
	}
	quiet := want.Quiet
	for _, n := range want.NeverEnforced {
		if n.Path == "" {
			n.Path = memfd
		}
		quiet = append(quiet, n.Path)
	}
	for _, path := range quiet {
		got := total(t, rows, path)
		if got.Seen == 0 || got.Complete != got.Seen || len(got.Network) != 0 || got.UnseenCount != 0 {
			t.Errorf("%q: seen %d, complete %d, unseen %d, network %v; want complete runs and no network",
				path, got.Seen, got.Complete, got.UnseenCount, got.Network)
		}
	}
	if len(rows) != len(want.Network)+len(quiet) {
		t.Errorf("%d executables, want %d", len(rows), len(want.Network)+len(quiet))
	}
	for path, entries := range map[string][]store.Entry{
		"/usr/bin/python3.11": {{Name: "/tmp/x/net.py", Runs: 1, Script: true}, {Name: "/tmp/x/quiet.py", Runs: 1, Script: true}, {Name: "/usr/bin/python3", Runs: 1}},
		"/usr/bin/env":        {{Name: "/tmp/x/net.py", Runs: 1, Script: true}},
		"/usr/bin/bash":       {{Name: "/tmp/x/net.sh", Runs: 1, Script: true}},
		"/usr/bin/dash":       {{Name: "/tmp/x/quiet.sh", Runs: 1, Script: true}},
		"/usr/bin/busybox":    {{Name: "/tmp/x/bbcat", Runs: 1}, {Name: "/tmp/x/wget", Runs: 1}, {Name: "/usr/bin/busybox", Runs: 1}},
		"/usr/bin/curl":       {{Name: "/tmp/x/curl-link", Runs: 1}, {Name: "/usr/bin/curl", Runs: 2}},
		"/usr/bin/mawk":       {{Name: "/usr/bin/awk", Runs: 1}},
		memfd:                 {{Name: "/dev/fd/3", Runs: 1}},
	} {
		if diff := cmp.Diff(entries, total(t, rows, path).Entries); diff != "" {
			t.Errorf("entries of %s (-want +got):\n%s", path, diff)
		}
	}
	// A child forked without exec shares its parent's run, so that the two
	// sockets of that run are of one run.
	wantUse := map[string]uint64{"inet/stream": 1, "inet/dgram": 1, "packet/raw": 1}
	for _, u := range total(t, rows, "/usr/bin/python3.11").Network {
		if wantUse[u.Family+"/"+u.Type] != u.Runs {
			t.Errorf("python3.11 used %s/%s in %d runs", u.Family, u.Type, u.Runs)
		}
		delete(wantUse, u.Family+"/"+u.Type)
	}
	if len(wantUse) != 0 {
		t.Errorf("python3.11 was not seen to use %v", wantUse)
	}
	if len(f.processes) != 0 {
		t.Errorf("%d processes live on", len(f.processes))
	}
}

func TestARecordingProvesNothingByItself(t *testing.T) {
	for _, name := range []string{"workstation.jsonl", "tools-v1.3.jsonl.gz", "lossy-v1.7.jsonl.gz"} {
		t.Run(name, func(t *testing.T) {
			f, _ := replay(t, name)
			var s store.Session
			f.Describe(&s)
			if len(s.Windows) != 1 || s.NoSocketHook {
				t.Fatalf("windows %v, no socket hook %v; want one window", s.Windows, s.NoSocketHook)
			}
			want := []store.Gap{{From: s.Windows[0].From, To: s.Windows[0].To, Cause: uncounted}}
			if diff := cmp.Diff(want, s.Gaps); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			if s.Awake != s.Windows[0].To.Sub(s.Windows[0].From) {
				t.Errorf("awake %v in %v", s.Awake, s.Windows)
			}
		})
	}
}

func TestARecordingWithoutTheAuditPolicyHasNoWindow(t *testing.T) {
	f, rows := replay(t, "kill.jsonl")
	var s store.Session
	f.Describe(&s)
	if len(s.Windows) != 0 || !s.NoSocketHook || len(s.Gaps) != 0 {
		t.Errorf("windows %v, no socket hook %v, gaps %v: an enforcing policy's events are no evidence", s.Windows, s.NoSocketHook, s.Gaps)
	}
	// What ran is shown all the same, with nothing claimed of it.
	if _, ok := rows[store.Unresolved+"/usr/bin/jq"]; !ok {
		t.Error("no row of jq, which ran")
	}
	for path := range rows {
		if got := total(t, rows, path); got.Seen+got.Complete+got.UnseenCount != 0 || len(got.Network) != 0 {
			t.Errorf("%s: %+v, want nothing that counts", path, got)
		}
	}
}

func TestLateExecsFromBeforeTheWindowAreDropped(t *testing.T) {
	f, rows := replay(t, "lossy-v1.7.jsonl.gz")
	for _, path := range []string{"/usr/bin/grep", "/usr/bin/sleep"} {
		if row, ok := rows[path]; ok {
			t.Errorf("%s ended before the window, and there is evidence: %+v", path, row)
		}
	}
	if got := total(t, rows, "/work/zz"); got.Seen != 1 || got.Complete != 1 {
		t.Errorf("/work/zz: seen %d, complete %d, want its one run in the window", got.Seen, got.Complete)
	}
	// Its exec was lost, so that its socket is all there is.
	if got := total(t, rows, "/tmp/x/late"); got.Seen != 0 || got.UnseenCount != 1 || len(got.Network) != 1 {
		t.Errorf("/tmp/x/late: %+v, want a network user whose start was not seen", got)
	}
	if len(f.processes) != 1 {
		t.Errorf("%d processes live on, want flood alone", len(f.processes))
	}
}
