package profiler

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

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
