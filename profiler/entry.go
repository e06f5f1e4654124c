package profiler

import (
	"path"
	"strings"

	api "github.com/cilium/tetragon/api/v1/tetragon"
)

// entry is the name by which a run was started.
type entry struct {
	name   string
	script bool // the name is a script, which the executable interprets
	// through is the script that env was started by, if this exec is env's:
	// the entry then, unless a script of its own is executed.
	through string
}

// entered reads the name of an exec, by a process that had the image of q
// before; q is nil if that is not known.
func (f *Fold) entered(p *api.Process, q *process) entry {
	e := entry{name: absolute(p.GetBinary(), p.GetCwd())}
	if q != nil && q.run.of != nil && q.run.of.ex.isEnv && q.run.entry.script {
		e.through = q.run.entry.name
	}
	return e
}

// as settles the entry once it is known whether the name is a script's. raw is
// the name where it is not UTF-8.
func (e entry) as(raw string, script bool) entry {
	if raw != "" {
		e.name = raw
	}
	if !script && e.through != "" {
		return entry{name: e.through, script: true}
	}
	return entry{name: e.name, script: script}
}

func absolute(name, cwd string) string {
	if name == "" || strings.HasPrefix(name, "/") || !strings.HasPrefix(cwd, "/") {
		return name
	}
	return path.Join(cwd, name)
}

// seemsScript guesses, for agents that do not tell, whether a name is that of a
// script: its interpreter has another name, and gets the script's as its first
// argument, or as its second after an option or, for env, a program.
func seemsScript(name, resolved, args string) bool {
	if name == resolved {
		return false
	}
	base := path.Base(name)
	if path.Base(resolved) == "env" {
		return base != "env"
	}
	words := strings.SplitN(args, " ", 3)
	for _, w := range words[:min(len(words), 2)] {
		if path.Base(w) == base {
			return true
		}
	}
	return false
}
