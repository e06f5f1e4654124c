package profiler

import (
	"testing"
	"time"

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
