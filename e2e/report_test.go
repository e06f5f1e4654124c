package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The forms that the commands print, as DESIGN.md has them. They are written
// down again here on purpose: a test that shared the types would not notice a
// changed field.
type (
	reportDoc struct {
		Schema      int
		Executables []reportRow
		Sessions    []struct {
			From, To time.Time
			Families []string
			Gaps     []struct {
				From, To time.Time
				Cause    string
				Count    int
			}
		}
	}
	reportRow struct {
		Scope, Path, Verdict string
		PathBase64           string `json:"path_base64"`
		Reasons              []string
		Runs                 struct{ Seen, Complete int }
		Network              []useRow
		Attempts             []struct {
			Family, Type, Stage string
			Count               int
		}
		Entries []struct {
			Name string
			Runs int
		}
	}
	useRow struct {
		Family, Type string
		Count        int
		Reach        []string
		Destinations []string
		Inherited    int
	}
	planDoc struct {
		Schema  int
		Enforce []string
		Held    []struct {
			Path, Why  string
			PathBase64 string `json:"path_base64"`
		}
	}
	statusDoc struct {
		Stage     string
		Kills     []killRow
		WouldKill []killRow `json:"would_kill"`
	}
	killRow struct {
		Path  string
		Count int
	}
)

// ask runs profile and reads what it prints. $REPORTFLAGS and $PLANFLAGS are
// for flags of the commands, split at blanks.
func ask(ts *testscript.TestScript, into any, args ...string) {
	cmd := exec.Command(filepath.Join(built, "profile"), append([]string{"--db", ts.Getenv("DB")}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		ts.Fatalf("%q: %v: %s", args, err, exit.Stderr)
	}
	if err := json.Unmarshal(out, into); err != nil {
		ts.Fatalf("%q prints no JSON: %v", args, err)
	}
}

func report(ts *testscript.TestScript) reportDoc {
	var doc reportDoc
	ask(ts, &doc, append([]string{"report", "-o", "json"}, strings.Fields(ts.Getenv("REPORTFLAGS"))...)...)
	return doc
}

// rowOf finds the row of a path in the scope of the host. A path is relative to
// the script's directory.
func rowOf(ts *testscript.TestScript, path string) (reportRow, bool) {
	if !filepath.IsAbs(path) {
		path = ts.MkAbs(path)
	}
	for _, row := range report(ts).Executables {
		whole, err := base64.StdEncoding.DecodeString(row.PathBase64)
		ts.Check(err)
		if row.Scope == "host" && (row.Path == path || string(whole) == path) {
			return row, true
		}
	}
	return reportRow{}, false
}

func mustRow(ts *testscript.TestScript, path string) reportRow {
	row, ok := rowOf(ts, path)
	if !ok {
		ts.Fatalf("no row of %q in %+v", path, report(ts).Executables)
	}
	return row
}

// verdict PATH KIND [REASON] compares; the reason must be part of one.
func cmdVerdict(ts *testscript.TestScript, neg bool, args []string) {
	row := mustRow(ts, args[0])
	if row.Verdict != args[1] {
		ts.Fatalf("%s is %s, want %s: %+v", args[0], row.Verdict, args[1], row)
	}
	if len(args) > 2 && !slices.ContainsFunc(row.Reasons, func(r string) bool { return strings.Contains(r, args[2]) }) {
		ts.Fatalf("%s: reasons %q, want %q", args[0], row.Reasons, args[2])
	}
}

// runs PATH SEEN COMPLETE
func cmdRuns(ts *testscript.TestScript, neg bool, args []string) {
	row := mustRow(ts, args[0])
	if got := []string{strconv.Itoa(row.Runs.Seen), strconv.Itoa(row.Runs.Complete)}; !slices.Equal(got, args[1:]) {
		ts.Fatalf("%s: runs seen and complete are %v, want %v", args[0], got, args[1:])
	}
}

// network PATH [FAMILY/TYPE=COUNT…]: exactly these.
func cmdNetwork(ts *testscript.TestScript, neg bool, args []string) {
	got := []string{}
	for _, n := range mustRow(ts, args[0]).Network {
		got = append(got, n.Family+"/"+n.Type+"="+strconv.Itoa(n.Count))
	}
	if !slices.Equal(got, args[1:]) {
		ts.Fatalf("%s: network is %v, want %v", args[0], got, args[1:])
	}
}

// entry PATH [NAME=RUNS…]: exactly these.
func cmdEntry(ts *testscript.TestScript, neg bool, args []string) {
	got := []string{}
	for _, e := range mustRow(ts, args[0]).Entries {
		got = append(got, e.Name+"="+strconv.Itoa(e.Runs))
	}
	if !slices.Equal(got, args[1:]) {
		ts.Fatalf("%s: entries are %q, want %q", args[0], got, args[1:])
	}
}

// attempt PATH [STAGE=COUNT…]: exactly these.
func cmdAttempt(ts *testscript.TestScript, neg bool, args []string) {
	got := []string{}
	for _, a := range mustRow(ts, args[0]).Attempts {
		got = append(got, a.Stage+"="+strconv.Itoa(a.Count))
	}
	if agent, _ := against(); agent != nil && agent.tetragon {
		// It counts none by executable: those alone are told that a learner saw.
		left := slices.Clone(args[1:])
		for _, one := range got {
			i := slices.Index(left, one)
			if i < 0 {
				ts.Fatalf("%s: attempts are %q, want some of %q", args[0], got, args[1:])
			}
			left = slices.Delete(left, i, i+1)
		}
		return
	}
	if !slices.Equal(got, args[1:]) {
		ts.Fatalf("%s: attempts are %q, want %q", args[0], got, args[1:])
	}
}

// absent PATH: the report has no row of it.
func cmdAbsent(ts *testscript.TestScript, neg bool, args []string) {
	if row, ok := rowOf(ts, args[0]); ok {
		ts.Fatalf("there is a row of %s: %+v", args[0], row)
	}
}

func plan(ts *testscript.TestScript) planDoc {
	var doc planDoc
	ask(ts, &doc, append([]string{"enforce", "-o", "json"}, strings.Fields(ts.Getenv("PLANFLAGS"))...)...)
	return doc
}

// plan PATH…: the plan lists exactly these, in any order; what lies outside the
// script's directory is left out of the comparison unless it is asked for.
func cmdPlan(ts *testscript.TestScript, neg bool, args []string) {
	want := []string{}
	for _, a := range args {
		if !filepath.IsAbs(a) {
			a = ts.MkAbs(a)
		}
		want = append(want, a)
	}
	got := slices.DeleteFunc(plan(ts).Enforce, func(p string) bool {
		return !strings.HasPrefix(p, ts.MkAbs(".")+"/") && !slices.Contains(want, p)
	})
	slices.Sort(want)
	if !slices.Equal(got, want) {
		ts.Fatalf("the plan lists %q, want %q", got, want)
	}
}

// held PATH WHY: the plan holds it, and the reason has that in it.
func cmdHeld(ts *testscript.TestScript, neg bool, args []string) {
	path := args[0]
	if !filepath.IsAbs(path) {
		path = ts.MkAbs(path)
	}
	doc := plan(ts)
	for _, h := range doc.Held {
		whole, err := base64.StdEncoding.DecodeString(h.PathBase64)
		ts.Check(err)
		if h.Path == path || string(whole) == path {
			if !strings.Contains(h.Why, args[1]) {
				ts.Fatalf("%s is held: %q, want %q", path, h.Why, args[1])
			}
			return
		}
	}
	ts.Fatalf("%s is not held: %+v", path, doc)
}

// kills STAGE PATH KILLS WOULD: what status says.
func cmdKills(ts *testscript.TestScript, neg bool, args []string) {
	var doc statusDoc
	ask(ts, &doc, "status", "-o", "json")
	if doc.Stage != args[0] {
		ts.Fatalf("stage %s, want %s", doc.Stage, args[0])
	}
	if len(args) == 1 {
		return
	}
	path := args[1]
	if !filepath.IsAbs(path) {
		path = ts.MkAbs(path)
	}
	if agent, _ := against(); agent != nil && agent.tetragon {
		atLeast(ts, doc, args[2:])
		return
	}
	count := func(rows []killRow) string {
		for _, r := range rows {
			if r.Path == path {
				return strconv.Itoa(r.Count)
			}
		}
		return "0"
	}
	if got := []string{count(doc.Kills), count(doc.WouldKill)}; !slices.Equal(got, args[2:]) {
		ts.Fatalf("%s: kills and would-be kills are %v, want %v", path, got, args[2:])
	}
}

// atLeast compares with what an agent counts that does not tell executables
// apart: one row for all.
func atLeast(ts *testscript.TestScript, doc statusDoc, want []string) {
	for i, rows := range [][]killRow{doc.Kills, doc.WouldKill} {
		n, err := strconv.Atoi(want[i])
		ts.Check(err)
		all := 0
		for _, r := range rows {
			all += r.Count
		}
		if all < n {
			ts.Fatalf("%d kills or would-be kills in all, want at least %d: %+v", all, n, doc)
		}
	}
}
