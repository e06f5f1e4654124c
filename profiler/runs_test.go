package profiler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func TestRuns(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*world) // in a window; a canary follows
		want map[string]count
	}{
		{"one process", func(w *world) {
			w.fork(1, 10)
			w.runs(10, "/bin/a")
		}, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}}},

		{"still going", func(w *world) {
			w.exec(10, "/bin/a")
		}, map[string]count{"/bin/a": {Seen: 1, Going: 1}}},

		{"an exec of the same image is another run", func(w *world) {
			w.exec(10, "/bin/a")
			w.exec(10, "/bin/a")
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 2, Complete: 2, Clean: 2}}},

		{"env", func(w *world) {
			w.exec(10, "/usr/bin/env")
			w.exec(10, "/bin/a")
		}, map[string]count{"/usr/bin/env": {Seen: 1, Complete: 1, Clean: 1}, "/bin/a": {Seen: 1, Going: 1}}},

		{"a fork without exec", func(w *world) {
			w.exec(10, "/bin/a")
			w.fork(10, 11)
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 1, Going: 1}}},

		{"a daemon that forks twice", func(w *world) {
			w.exec(10, "/bin/d")
			w.fork(10, 11)
			w.exit(10)
			w.fork(11, 12)
			w.exit(11)
			w.socket(12, 2, 1)
		}, map[string]count{"/bin/d": {Seen: 1, Going: 1, Network: 1}}},

		{"and ends", func(w *world) {
			w.exec(10, "/bin/d")
			w.fork(10, 11)
			w.fork(11, 12)
			w.exit(10, 11, 12)
		}, map[string]count{"/bin/d": {Seen: 1, Complete: 1, Clean: 1}}},

		{"the last one ends by an exec", func(w *world) {
			w.exec(10, "/bin/d")
			w.fork(10, 11)
			w.exit(10)
			w.exec(11, "/bin/a")
		}, map[string]count{"/bin/d": {Seen: 1, Complete: 1, Clean: 1}, "/bin/a": {Seen: 1, Going: 1}}},

		{"threads are no processes", func(w *world) {
			w.exec(10, "/bin/a")
			w.thread(10, 11)
			w.socket(10, 2, 1)
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1, Network: 1}}},

		{"a run counts once for a family and type, whichever process opens it", func(w *world) {
			w.exec(10, "/bin/a")
			w.fork(10, 11)
			w.socket(10, 2, 1)
			w.socket(11, 2, 1)
			w.socket(11, 2, 1|0x80000) // SOCK_CLOEXEC
			w.exit(10, 11)
			w.exec(10, "/bin/a")
			w.socket(10, 2, 1)
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 2, Complete: 2, Clean: 2, Network: 2}}},

		{"a socket is of the image that the process has then", func(w *world) {
			w.exec(10, "/usr/bin/env")
			w.exec(10, "/bin/a")
			w.socket(10, 10, 2)
		}, map[string]count{"/usr/bin/env": {Seen: 1, Complete: 1, Clean: 1}, "/bin/a": {Seen: 1, Going: 1, Network: 1}}},

		{"other families are not network", func(w *world) {
			w.exec(10, "/bin/a")
			w.socket(10, 1, 1)
			w.socket(10, 16, 3)
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}}},

		{"events of other policies are not heard", func(w *world) {
			w.exec(10, "/bin/a")
			w.socket(10, 2, 1, as{policy: "profile-enforce-1"})
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}}},

		{"sockets of the listed are attempts", func(w *world) {
			w.exec(10, "/bin/a")
			w.socket(10, 2, 1, as{listed: "enforce"})
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}}},

		{"where it is not listed its socket is evidence", func(w *world) {
			w.exec(10, "/bin/a")
			w.socket(10, 2, 1, as{listed: "enforce"})
			w.exit(10)
			w.exec(10, "/bin/a")
			w.socket(10, 2, 1)
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 2, Complete: 2, Clean: 2, Network: 1}}},

		{"an exit of nobody known", func(w *world) {
			w.exit(99)
		}, map[string]count{}},

		{"a socket of nobody known", func(w *world) {
			w.socket(99, 2, 1, as{path: "/bin/n"})
		}, map[string]count{"/bin/n": {Unseen: 1, Alive: 1, Network: 1}}},

		{"and its exit", func(w *world) {
			w.socket(99, 2, 1, as{path: "/bin/n"})
			w.exit(99)
		}, map[string]count{"/bin/n": {Unseen: 1, Network: 1}}},

		{"a fork of nobody known", func(w *world) {
			w.fork(99, 100)
			w.runs(100, "/bin/a")
		}, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}}},

		{"an exec that is told twice", func(w *world) {
			w.exec(10, "/bin/a")
			w.again(10)
			w.exit(10)
		}, map[string]count{"/bin/a": {Seen: 1, Complete: 1, Clean: 1}}},

		{"a canary is nobody", func(w *world) {
			w.canary()
		}, map[string]count{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t).open()
			c.do(w)
			w.canary()
			w.flush()
			for path, want := range c.want {
				w.want(path, want)
			}
			for path := range w.rows {
				if _, ok := c.want[path]; !ok {
					t.Errorf("evidence of %s", path)
				}
			}
			if gaps := w.session().Gaps; len(gaps) != 0 {
				t.Errorf("gaps %v, and nothing was lost", gaps)
			}
		})
	}
}

func TestARunIsCompleteOnceACanaryComesAfterIt(t *testing.T) {
	w := newWorld(t).open()
	w.runs(10, "/bin/a")
	w.want("/bin/a", count{Seen: 1})
	w.canary("socket")
	w.want("/bin/a", count{Seen: 1})
	w.canary()
	w.want("/bin/a", count{Seen: 1, Complete: 1, Clean: 1})
	s := w.session()
	if len(s.Windows) != 1 || !s.Windows[0].To.Equal(w.now) {
		t.Errorf("windows %v, want one until %v", s.Windows, w.now)
	}
}

func TestStartNotSeen(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after func(*world) // the window opens
		path          string
		want          count
	}{
		{"it ran before the policy",
			func(w *world) { w.before(5, "/bin/d") }, func(w *world) {},
			"/bin/d", count{Unseen: 1, Alive: 1}},
		{"its exec was seen, but before the window",
			func(w *world) { w.exec(5, "/bin/d") }, func(w *world) {},
			"/bin/d", count{Unseen: 1, Alive: 1}},
		{"it ended before the window",
			func(w *world) { w.runs(5, "/bin/d") }, func(w *world) {},
			"/bin/d", count{}},
		{"it ends in the window",
			func(w *world) { w.before(5, "/bin/d") }, func(w *world) { w.exit(5) },
			"/bin/d", count{Unseen: 1}},
		{"what it forks is not seen to start either",
			func(w *world) { w.before(5, "/bin/d") }, func(w *world) { w.fork(5, 6); w.exit(5) },
			"/bin/d", count{Unseen: 1, Alive: 1}},
		{"what it execs is",
			func(w *world) { w.before(5, "/bin/d") }, func(w *world) { w.fork(5, 6); w.runs(6, "/bin/a") },
			"/bin/a", count{Seen: 1, Complete: 1, Clean: 1}},
		{"it does not spoil the runs that are seen",
			func(w *world) { w.before(5, "/bin/d") }, func(w *world) { w.runs(6, "/bin/d", as{file: "x"}) },
			"/bin/d", count{Seen: 1, Complete: 1, Clean: 1, Unseen: 1, Alive: 1}},
		{"a socket that it holds",
			func(w *world) { w.before(5, "/bin/d"); w.socket(5, 2, 1, as{held: true}) }, func(w *world) {},
			"/bin/d", count{Unseen: 1, Alive: 1, Network: 1}},
		{"a listed socket that it holds",
			func(w *world) { w.before(5, "/bin/d"); w.socket(5, 2, 1, as{held: true, listed: "monitor"}) }, func(w *world) {},
			"/bin/d", count{Unseen: 1, Alive: 1}},
		{"a socket of a run that was over before the window",
			func(w *world) { w.exec(5, "/bin/d"); w.socket(5, 2, 1); w.exit(5) }, func(w *world) {},
			"/bin/d", count{Network: 1}},
		{"it came into sight in the window",
			func(w *world) {}, func(w *world) { w.before(5, "/bin/d") },
			"/bin/d", count{Unseen: 1, Alive: 1}},
		{"it is told of twice",
			func(w *world) { w.before(5, "/bin/d"); w.again(5) }, func(w *world) { w.again(5) },
			"/bin/d", count{Unseen: 1, Alive: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.before(w)
			w.open()
			c.after(w)
			w.canary()
			w.flush()
			row := w.rows[c.path]
			var got count
			for _, x := range row.Files { // those of a known file and of an unknown one
				got.Seen += x.Seen
				got.Complete += x.Complete
				got.Clean += x.Clean
				got.Going += x.Going.Clean
				got.Unseen += x.UnseenCount
				got.Alive += len(x.Unseen)
				for _, u := range x.Network {
					got.Network += u.Runs
				}
			}
			if got != c.want {
				t.Errorf("%s:\n got %+v\nwant %+v", c.path, got, c.want)
			}
		})
	}
}

func TestUnseenProcessesAreListedUpToABound(t *testing.T) {
	w := newWorld(t)
	w.before(5, "/bin/d")
	start := w.now.Add(-time.Millisecond)
	for pid := range uint32(30) {
		w.fork(5, 100+pid)
	}
	w.open()
	got := w.tally("/bin/d")
	if len(got.Unseen) != store.MaxUnseen || got.UnseenCount != 1 {
		t.Fatalf("%d listed of %d starts, want %d of 1", len(got.Unseen), got.UnseenCount, store.MaxUnseen)
	}
	if first := got.Unseen[0]; first.PID != 5 || !first.Start.Equal(start) {
		t.Errorf("first is %v, want pid 5 started at %v", first, start)
	}
}

func TestGoingSaysSinceWhen(t *testing.T) {
	w := newWorld(t).open()
	w.exec(10, "/bin/a")
	first := w.now
	w.pass(time.Minute)
	w.exec(11, "/bin/a")
	w.fork(11, 12)
	last := w.now.Add(-time.Millisecond)
	g := w.tally("/bin/a").Going
	if g.Clean != 2 || !g.Oldest.Equal(first) || !g.Newest.Equal(last) || !g.OldestAny.Equal(first) || !g.NewestAny.Equal(last) {
		t.Errorf("going %+v, want two from %v to %v", g, first, last)
	}
	w.loss(1)
	w.exec(13, "/bin/a")
	clean := w.now
	g = w.tally("/bin/a").Going
	if g.Clean != 1 || g.Touched != 2 || !g.Oldest.Equal(clean) || !g.Newest.Equal(clean) || !g.OldestAny.Equal(first) || !g.NewestAny.Equal(clean) {
		t.Errorf("going %+v, want one clean at %v and two touched from %v", g, clean, first)
	}
}

func TestEntries(t *testing.T) {
	env, py := "/usr/bin/env", "/usr/bin/python3.11"
	for _, c := range []struct {
		name string
		do   func(*world)
		path string
		want []store.Entry
	}{
		{"its own path", func(w *world) { w.runs(10, "/bin/a") }, "/bin/a", []store.Entry{{Name: "/bin/a", Runs: 1}}},
		{"a link", func(w *world) { w.runs(10, "/bin/a", as{name: "/bin/link"}) }, "/bin/a", []store.Entry{{Name: "/bin/link", Runs: 1}}},
		{"a relative name", func(w *world) { w.runs(10, "/home/a", as{name: "./a", cwd: "/home"}) }, "/home/a", []store.Entry{{Name: "/home/a", Runs: 1}}},
		{"exec -a is no name: what was executed is", func(w *world) { w.runs(10, "/bin/a", as{args: "x"}) }, "/bin/a", []store.Entry{{Name: "/bin/a", Runs: 1}}},
		{"a script", func(w *world) { w.runs(10, "/bin/bash", as{name: "/x.sh", script: true}) }, "/bin/bash", []store.Entry{{Name: "/x.sh", Runs: 1, Script: true}}},
		{"a script through env", func(w *world) {
			w.exec(10, env, as{name: "/x.py", script: true})
			w.exec(10, py, as{name: "/usr/bin/python3"})
			w.exit(10)
		}, py, []store.Entry{{Name: "/x.py", Runs: 1, Script: true}}},
		{"env itself then", func(w *world) {
			w.exec(10, env, as{name: "/x.py", script: true})
			w.exec(10, py, as{name: "/usr/bin/python3"})
		}, env, []store.Entry{{Name: "/x.py", Runs: 1, Script: true}}},
		{"env by hand hands nothing on", func(w *world) {
			w.exec(10, env)
			w.exec(10, py, as{name: "/usr/bin/python3"})
		}, py, []store.Entry{{Name: "/usr/bin/python3", Runs: 1}}},
		{"a script that another script's env runs is its own", func(w *world) {
			w.exec(10, env, as{name: "/x.py", script: true})
			w.exec(10, "/bin/bash", as{name: "/shim", script: true})
		}, "/bin/bash", []store.Entry{{Name: "/shim", Runs: 1, Script: true}}},
		{"env twice", func(w *world) {
			w.exec(10, env, as{name: "/x.py", script: true})
			w.exec(10, env, as{name: "/usr/bin/env"})
			w.exec(10, py, as{name: "/usr/bin/python3"})
		}, py, []store.Entry{{Name: "/x.py", Runs: 1, Script: true}}},
		{"no further than one exec", func(w *world) {
			w.exec(10, env, as{name: "/x.py", script: true})
			w.exec(10, py, as{name: "/usr/bin/python3"})
			w.exec(10, "/bin/a")
		}, "/bin/a", []store.Entry{{Name: "/bin/a", Runs: 1}}},
		{"a name that is not UTF-8", func(w *world) {
			w.runs(10, "/x/\uFFFD", as{name: "/x/\uFFFD", raw: "/x/\xff", rawName: "/x/\xff"})
		}, "/x/\xff", []store.Entry{{Name: "/x/\xff", Runs: 1}}},
		{"each with its runs", func(w *world) {
			w.runs(10, "/bin/a", as{name: "/bin/z"})
			w.runs(10, "/bin/a")
			w.runs(10, "/bin/a", as{name: "/bin/z"})
		}, "/bin/a", []store.Entry{{Name: "/bin/a", Runs: 1}, {Name: "/bin/z", Runs: 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t).open()
			c.do(w)
			if diff := cmp.Diff(c.want, w.tally(c.path).Entries); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScriptsAreGuessedWhereTheAgentDoesNotTell(t *testing.T) {
	for _, c := range []struct {
		name, resolved, args string
		want                 bool
	}{
		{"/tmp/x/net.sh", "/usr/bin/bash", "./net.sh", true},
		{"/tmp/x/bin/sum.pl", "/usr/bin/perl", "-w bin/sum.pl", true},
		{"/tmp/x/net.py", "/usr/bin/env", "python3 ./net.py", true},
		{"/tmp/x/curl-link", "/usr/bin/curl", "-s -m2 http://127.0.0.1:8088/", false},
		{"/usr/bin/env", "/usr/bin/env", "python3 x", false},
		{"/bin/env", "/usr/bin/env", "python3 x", false},
		{"/usr/bin/python3", "/usr/bin/python3.11", "./net.py", false},
		{"/tmp/x/wget", "/usr/bin/busybox", "-q -O- wget", false},
	} {
		if got := seemsScript(c.name, c.resolved, c.args); got != c.want {
			t.Errorf("seemsScript(%q, %q, %q) = %v, want %v", c.name, c.resolved, c.args, got, c.want)
		}
	}
}

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
