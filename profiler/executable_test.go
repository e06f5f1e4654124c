package profiler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func TestAttemptsAreKeptBesideTheEvidence(t *testing.T) {
	w := newWorld(t).open()
	w.exec(10, "/bin/a")
	w.socket(10, 2, 1, as{listed: "enforce"})
	first := w.now
	w.socket(10, 2, 1, as{listed: "enforce"})
	last := w.now
	w.socket(10, 10, 2, as{listed: "monitor"})
	other := w.now
	w.flush()
	want := []store.Attempt{
		{Family: "inet", Type: "stream", Stage: "enforce", Count: 2, First: first, Last: last},
		{Family: "inet6", Type: "dgram", Stage: "monitor", Count: 1, First: other, Last: other},
	}
	if diff := cmp.Diff(want, w.rows["/bin/a"].Attempts); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	if c := w.f.Counts(); c.Network != 0 {
		t.Errorf("%d network users, want none", c.Network)
	}
}

func TestAFileThatChangedHasATallyOfItsOwn(t *testing.T) {
	w := newWorld(t).open()
	w.runs(10, "/bin/a", as{file: "1:2:3:4"})
	w.exec(10, "/bin/a", as{file: "1:9:3:5"})
	w.socket(10, 2, 1)
	w.exit(10)
	w.runs(10, "/bin/a", as{file: "1:2:3:4"})
	w.flush()
	files := w.rows["/bin/a"].Files
	if len(files) != 2 {
		t.Fatalf("%d tallies, want 2", len(files))
	}
	old := store.FileID{Dev: 1, Ino: 2, Size: 3, CtimeNS: 4}
	if files[0].File != old || files[0].Seen != 2 || len(files[0].Network) != 0 {
		t.Errorf("first %+v, want 2 quiet runs of %v", files[0], old)
	}
	if files[1].Seen != 1 || len(files[1].Network) != 1 {
		t.Errorf("second %+v, want the network user", files[1])
	}
	for i := range 100 {
		w.runs(10, "/bin/a", as{file: fmt.Sprintf("1:%d:3:4", 100+i)})
		w.canary()
	}
	w.flush()
	files = w.rows["/bin/a"].Files
	if len(files) != maxFiles || files[len(files)-1].File.Ino != 199 {
		t.Errorf("%d tallies, the last of inode %d; want the last %d files", len(files), files[len(files)-1].File.Ino, maxFiles)
	}
}

func TestExecutablesWithoutAPathAreFew(t *testing.T) {
	w := newWorld(t).open()
	for i := range 50 {
		w.runs(10, "", as{name: fmt.Sprintf("/dev/fd/%d", i), nameless: "it has no path: a memfd, or a file made in memory", file: fmt.Sprintf("1:%d:3:4", i)})
	}
	w.runs(10, "/lost/a", as{nameless: "its mount is nowhere"})
	w.canary()
	w.want("memfd:", count{Seen: 50, Complete: 50, Clean: 50})
	w.want("nameless:", count{Seen: 1, Complete: 1, Clean: 1})
	if len(w.rows) != 2 {
		t.Errorf("%d rows, want 2", len(w.rows))
	}
}

func TestNamesAreBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.KeepArgs = true }).open()
	for i := range 200 {
		w.runs(10, "/bin/a", as{name: fmt.Sprintf("/bin/%d", i), args: fmt.Sprint(i) + strings.Repeat("x", 5000)})
	}
	w.runs(10, "/"+strings.Repeat("x", 5000))
	got := w.tally("/bin/a")
	if got.Seen != 200 || len(got.Entries) != store.MaxEntries || len(got.Args) != store.MaxArgs || len(got.Args[0]) != maxArgsLen {
		t.Errorf("seen %d, %d entries, %d arguments", got.Seen, len(got.Entries), len(got.Args))
	}
	w.want("nameless:", count{Seen: 1})
}

func TestArgumentsAreKeptOnlyWhenAsked(t *testing.T) {
	for _, keep := range []bool{false, true} {
		w := newWorld(t, func(c *Config) { c.KeepArgs = keep }).open()
		w.runs(10, "/bin/a", as{args: "--password x"})
		w.runs(10, "/bin/a", as{args: "--password x"})
		var want []string
		if keep {
			want = []string{"--password x"}
		}
		if diff := cmp.Diff(want, w.tally("/bin/a").Args); diff != "" {
			t.Errorf("keep %v: arguments (-want +got):\n%s", keep, diff)
		}
	}
}

func TestOnlyRecordsWhatMatches(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Only = []string{"/opt/**", "/bin/?"} }).open()
	w.exec(10, "/bin/sh")
	w.socket(10, 2, 1)
	w.fork(10, 11)
	w.runs(11, "/opt/x/y/tool")
	w.runs(10, "/bin/a")
	w.canary() // not of --only, and needed
	w.want("/opt/x/y/tool", count{Seen: 1, Complete: 1, Clean: 1})
	w.want("/bin/a", count{Seen: 1, Complete: 1, Clean: 1})
	if len(w.rows) != 2 {
		t.Errorf("rows of %d executables, want 2", len(w.rows))
	}
	if c := w.f.Counts(); c.Executables != 2 || c.Network != 0 {
		t.Errorf("counts %+v, want 2 executables and no network user", c)
	}
}

func TestContainersAreOtherScopes(t *testing.T) {
	w := newWorld(t).open()
	w.runs(10, "/bin/a")
	w.runs(11, "/bin/a", as{docker: "/pods/one"})
	w.runs(12, "/bin/a", as{docker: "host"})
	seen := map[string]uint64{}
	for _, row := range w.f.Changed() {
		seen[row.Key.Scope] += row.Files[0].Seen
	}
	want := map[string]uint64{"host": 1, "container:/pods/one": 1, "container:host": 1}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("runs by scope (-want +got):\n%s", diff)
	}
}

func TestCanariesOfOthersAreNobody(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.IsCanary = func(path string) bool { return path == "/run/other" } }).open()
	w.exec(10, "/run/other")
	w.socket(10, 2, 2, as{listed: "enforce"})
	w.fork(10, 11)
	w.exit(11, 10)
	w.flush()
	if len(w.rows) != 0 {
		t.Errorf("rows %v, want none", w.rows)
	}
	if n := w.f.Returned(); n != 1 {
		t.Errorf("%d canaries came back, want this session's alone", n)
	}
}

func TestRowsThatCouldNotBeStoredComeAgain(t *testing.T) {
	w := newWorld(t).open()
	w.runs(10, "/bin/a")
	rows := w.f.Changed()
	if len(rows) != 1 {
		t.Fatalf("%d rows, want 1", len(rows))
	}
	if again := w.f.Changed(); len(again) != 0 {
		t.Errorf("%d rows, and nothing changed", len(again))
	}
	w.f.Keep(rows)
	w.canary()
	w.want("/bin/a", count{Seen: 1, Complete: 1, Clean: 1})
}

func TestTimesOfAnExecutable(t *testing.T) {
	w := newWorld(t).open()
	w.exec(10, "/bin/a")
	first := w.now
	w.pass(time.Minute)
	w.socket(10, 2, 1)
	w.pass(time.Minute)
	w.exec(11, "/bin/a")
	exec := w.now
	w.pass(time.Minute)
	w.exit(10)
	w.flush()
	row := w.rows["/bin/a"]
	if !row.FirstSeen.Equal(first) || !row.LastSeen.Equal(w.now) {
		t.Errorf("seen from %v to %v, want %v to %v", row.FirstSeen, row.LastSeen, first, w.now)
	}
	if x := row.Files[0]; !x.FirstExec.Equal(first) || !x.LastExec.Equal(exec) {
		t.Errorf("execs from %v to %v, want %v to %v", x.FirstExec, x.LastExec, first, exec)
	}
}

// A Tetragon names only containers whose cgroup has an ID for a name; of the
// others it tells the pid namespace.
func TestAContainerThatTheAgentDoesNotNameIsNotTheHost(t *testing.T) {
	const host, other, third = firstPIDNamespace, 4026532300, 4026532400
	live := map[uint32]uint32{20: other, 21: host}
	w := newWorld(t, func(c *Config) { c.NamespaceOf = func(pid uint32) uint32 { return live[pid] } }).open()
	w.runs(10, "/bin/a", as{pidns: host})
	w.runs(11, "/bin/a", as{pidns: other})
	w.runs(12, "/bin/a", as{pidns: third})
	w.exec(13, "/bin/a", as{pidns: third})
	w.socket(13, 2, 1)
	w.exit(13)
	w.runs(14, "/bin/a", as{pidns: other, docker: "abc"})
	w.runs(15, "/bin/a", as{pidns: host, docker: "abc"}) // it shares the host's
	w.runs(20, "/bin/a")                                 // not told, and looked up
	w.runs(21, "/bin/a")
	w.runs(22, "/bin/a") // gone by then
	w.socket(20, 2, 1, as{path: "/bin/unseen"})
	w.socket(21, 2, 1, as{path: "/bin/unseen"})
	got := map[string]string{}
	for _, row := range w.f.Changed() {
		got[row.Key.Path+" "+row.Key.Scope] = fmt.Sprintf("%d %d", row.Files[0].Seen, len(row.Files[0].Network))
	}
	want := map[string]string{
		"/bin/a host": "3 0", "/bin/a pidns:4026532300": "2 0", "/bin/a pidns:4026532400": "2 1", "/bin/a container:abc": "2 0",
		"/bin/unseen pidns:4026532300": "0 1", "/bin/unseen host": "0 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runs and network uses by scope (-want +got):\n%s", diff)
	}
}

func TestContainersThatComeAndGoAreOneScopeInTheEnd(t *testing.T) {
	w := newWorld(t).open()
	pid := uint32(100)
	for i := range maxNumbers + 20 {
		w.exec(pid, "/bin/a", as{docker: fmt.Sprintf("%031x", i)})
		if i > maxNumbers {
			w.socket(pid, 2, 1)
		}
		w.exit(pid)
		pid++
	}
	w.runs(pid, "/bin/a", as{docker: fmt.Sprintf("%031x", 3)}) // known still
	w.canary()
	seen := map[string]store.Tally{}
	for _, row := range w.f.Changed() {
		seen[row.Key.Scope] = row.Files[0]
	}
	if len(seen) != maxNumbers+1 {
		t.Errorf("%d scopes, want %d and that of the others", len(seen), maxNumbers)
	}
	others, third := seen[store.OtherContainers], seen["container:"+fmt.Sprintf("%031x", 3)]
	if others.Seen != 20 || others.Complete != 20 || len(others.Network) != 1 || others.Network[0].Runs != 19 {
		t.Errorf("the others: %+v, want 20 runs, 19 with a socket", others)
	}
	if third.Seen != 2 || len(third.Network) != 0 {
		t.Errorf("the third: %+v, want two runs without a socket", third)
	}
}

// A policy acts on whoever is in the host's pid namespace, a container that
// shares it too.
func TestAListedPathInAContainerOfTheHostsNamespaceIsAnAttempt(t *testing.T) {
	for _, c := range []struct {
		what    string
		pidns   uint32
		attempt bool
	}{{"of the host", firstPIDNamespace, true}, {"of its own", 4026532300, false}, {"not told", 0, false}} {
		w := newWorld(t).open()
		w.f.SetListed([]listing{{1, []string{"/bin/a"}, store.StageEnforce}})
		w.exec(10, "/bin/a", as{docker: "abc", pidns: c.pidns})
		w.socket(10, 2, 1)
		rows := w.f.Changed()
		if len(rows) != 1 || (len(rows[0].Attempts) == 1) != c.attempt || (len(rows[0].Files[0].Network) == 0) != c.attempt {
			t.Errorf("pid namespace %s: %+v", c.what, rows)
		}
	}
}
