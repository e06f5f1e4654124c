package enforcer

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"profile/store"
)

// maxPath is the longest path that a policy can name, in bytes (FACTS 3).
const maxPath = 255

// unenforceable says why no policy can name the path, "" if one can.
func unenforceable(file string) string {
	switch {
	case !path.IsAbs(file):
		return "unenforceable: no path names it"
	case len(file) > maxPath:
		return fmt.Sprintf("unenforceable: its path has %d bytes, a policy can name %d", len(file), maxPath)
	case !utf8.ValidString(file), strings.ContainsRune(file, utf8.RuneError):
		// An agent puts U+FFFD in the place of bytes that it cannot give.
		return "unenforceable: its path is not UTF-8"
	case strings.ContainsRune(file, 0):
		return "unenforceable: its path holds a NUL"
	}
	return ""
}

// decide puts one path into the plan, or holds it.
func (p *planner) decide(c *candidate) {
	file := c.file
	given, included := p.included[file]
	protected := p.protect.why(file)
	listed := p.listed[file]
	switch why := unenforceable(file); {
	case why != "":
		if p.wanted(file) || included || p.inDirs[file] || listed {
			p.held[file] = why
		}
	case p.excluded[file]:
		p.held[file], p.lifted[file] = "excluded", true
	case included && (given || protected == ""), p.inDirs[file] && protected == "":
		p.list(file, p.here(file))
	case listed && p.stays:
		p.keep(c, protected)
	case included:
		p.held[file] = "protected (" + protected + "): --include needs its full resolved path as it is written here"
	case p.inDirs[file]:
		p.held[file] = "protected (" + protected + ")"
	case c.learned() && (p.wanted(file) || listed):
		p.learn(c, protected)
	case listed:
		p.held[file] = "not learned"
	}
}

// wanted reports whether --only lets a learned path into the plan.
func (p *planner) wanted(file string) bool {
	return len(p.o.Only) == 0 || matchesAny(p.o.Only, file)
}

func (p *planner) list(file string, id store.FileID) { p.enforce[file] = id }

// keep keeps a listing of the generation in force, whatever has become of the
// executable: only a person lifts it, or the step from monitor to enforce.
func (p *planner) keep(c *candidate, protected string) {
	file, v := c.file, c.verdict
	if p.unpromoted(file, v.Attempts) {
		p.held[file], p.lifted[file] = p.tellWould(file, v.Attempts), true
		return
	}
	p.list(file, p.keptFile(file, v))
	if v.Kind == Quiet && p.uncovered(file, c.host) == "" {
		p.learned = true
	} else {
		p.kept = true
	}
	if v.Kind == Network {
		p.warn("%q opened network sockets where it is not listed (%s); it stays listed until --exclude", file, tellUses(v.Network))
	}
	if protected != "" {
		p.warn("%q is protected (%s) and stays listed until --exclude", file, protected)
	}
}

// keptFile is the identity by which a listing goes on: that of the file there
// now where that one was learned to be quiet, else the one it was listed by.
func (p *planner) keptFile(file string, v Verdict) store.FileID {
	id := p.loaded.Files[file]
	if p.o.Remote {
		return id
	}
	if v.Kind == Quiet && len(v.Files) > 0 && replaced(file, v.Files) == "" {
		return p.here(file)
	}
	if id.Known() && replaced(file, []store.FileID{id}) == replacedSince {
		p.replaced = append(p.replaced, file)
	}
	return id
}

// learn lists an executable that is quiet, unless something holds it.
func (p *planner) learn(c *candidate, protected string) {
	file, v := c.file, c.verdict
	if len(c.host) == 0 {
		p.held[file] = "seen only in " + tellScope(c.containers[0][0].Key.Scope) + ", and never on the host, whose processes a policy is for"
		return
	}
	if why := tellVerdict(v); why != "" {
		p.held[file] = why
		return
	}
	var why []string
	hold := func(reason string) {
		if reason != "" {
			why = append(why, reason)
		}
	}
	if protected != "" {
		hold("protected (" + protected + ")")
	}
	hold(p.uncovered(file, c.host))
	hold(p.runtime(file, v.Entries))
	if f, changes := familyOf(file); changes {
		hold("its path changes: " + f.why)
	}
	if p.unpromoted(file, v.Attempts) {
		hold(p.tellWould(file, v.Attempts))
	}
	why = append(why, p.notQuiet(c.containers)...)
	if !p.o.Remote && (len(v.Files) > 0 || p.learnedHere(c.host)) {
		hold(compare(c.now, c.nowErr, v.Files))
		hold(p.alive.startNotSeen(p.c, c.host))
	}
	if len(why) > 0 {
		p.held[file] = strings.Join(why, "; ")
		return
	}
	p.learned = true
	id := c.now
	if len(v.Files) > 0 && !id.Known() {
		id = v.Files[0]
	}
	p.list(file, id)
}

// learnedHere reports whether any of the rows was learned on this machine: a
// recording, or an agent of another host, says nothing of the files here.
func (p *planner) learnedHere(rows []store.Evidence) bool {
	return slices.ContainsFunc(rows, func(row store.Evidence) bool { return p.c.known[row.Session].BootID != "" })
}

// uncovered says why the quiet verdict of all sessions does not reach the
// enforced cgroup, "" if it does: what it rests on must have been watched there.
func (p *planner) uncovered(file string, host []store.Evidence) string {
	if p.o.Wider {
		return ""
	}
	rows := kept(host, func(row *store.Evidence) bool {
		s, ok := p.covering.sessions[row.Session]
		return !ok || s.watches(file)
	})
	if len(rows) == len(host) && len(p.covering.ids) == len(p.c.ids) {
		return "" // it is the verdict of just those
	}
	if v, _ := p.covering.judge(rows); v.Kind == Quiet {
		return ""
	}
	inside := p.c.only(func(s *session) bool {
		return s.proves() && slices.ContainsFunc(host, func(row store.Evidence) bool { return row.Session == s.ID })
	})
	narrower := inside.only(func(s *session) bool { return !s.covers(p.o.Cgroup) })
	if len(narrower.ids) == 0 {
		return "outside the --only of the sessions that learned it"
	}
	return "learned only " + strings.Join(narrower.places(), " and ")
}

// runtime says why killing the executable would kill others' code with it.
func (p *planner) runtime(file string, entries []store.Entry) string {
	if pattern := p.runtimes.match(file); pattern != "" {
		return "a runtime (matches " + pattern + "): killing it kills all that it runs"
	}
	var names []string
	for _, e := range entries {
		text, _ := printable(e.Name)
		if e.Script {
			return "a runtime: it was started through the script " + text
		}
		if strings.HasPrefix(e.Name, "/proc/") || strings.HasPrefix(e.Name, "/dev/fd/") {
			continue // an open file's name, not the program's
		}
		if name := path.Base(text); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > 1 {
		return "a runtime: it was started under several names: " + tellFew(names)
	}
	return ""
}

// unpromoted reports whether would-be kills hold the path from the step to
// enforce. What is enforced already, a person has let through.
func (p *planner) unpromoted(file string, seen []store.Attempt) bool {
	enforced := p.loaded.Stage == store.StageEnforce && p.listed[file]
	return p.o.Stage == store.StageEnforce && !enforced && (p.wouldKills(file, seen) > 0 || p.unheard[file] > 0)
}

// wouldKills is how often the path would have been killed. Learners and the
// kernel count the same attempts: the higher count is taken.
func (p *planner) wouldKills(file string, seen []store.Attempt) uint64 {
	var learned uint64
	for _, a := range seen {
		if a.Stage == store.StageMonitor {
			learned += a.Count
		}
	}
	return max(learned, p.would[file].Would)
}

func (p *planner) tellWould(file string, seen []store.Attempt) string {
	n := p.wouldKills(file, seen)
	switch {
	case n == 0:
		return fmt.Sprintf("may be what would have been killed in monitor (×%d) while nobody listened to whose names: enforce --watch and status --follow do", p.unheard[file])
	case n == 1:
		return "would have been killed once in monitor"
	}
	return fmt.Sprintf("would have been killed %d times in monitor", n)
}

// here is the identity of the file at the path on this machine, unknown if
// that cannot be said.
func (p *planner) here(file string) store.FileID {
	if p.o.Remote {
		return store.FileID{}
	}
	id, err := identify(file)
	if err != nil {
		return store.FileID{}
	}
	return id
}

// replaced says why the file now at the path is not the one that was learned.
func replaced(file string, learned []store.FileID) string {
	now, err := identify(file)
	return compare(now, err, learned)
}

// compare says it of a file that was, or could not be, identified.
func compare(now store.FileID, err error, learned []store.FileID) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "gone since it was learned"
	case err != nil:
		return fmt.Sprintf("cannot be compared with the file that was learned: %v", err)
	case len(learned) > 0 && !slices.ContainsFunc(learned, func(id store.FileID) bool { return sameFile(id, now) }):
		return replacedSince
	}
	return ""
}

const replacedSince = "replaced since it was learned"

// sameFile compares identities. The device is left out: on overlay and btrfs
// stat(2) gives another one than the kernel knows the inode by.
func sameFile(a, b store.FileID) bool {
	a.Dev, b.Dev = 0, 0
	return a == b
}

func identify(file string) (store.FileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return store.FileID{}, &fs.PathError{Op: "stat", Path: file, Err: err}
	}
	return store.FileID{Dev: st.Dev, Ino: st.Ino, Size: st.Size, CtimeNS: st.Ctim.Nano()}, nil
}

// tellVerdict says why a verdict holds an executable from a plan, "" if it is
// quiet.
func tellVerdict(v Verdict) string {
	switch v.Kind {
	case Quiet:
		return ""
	case Network:
		return "network: " + tellUses(v.Network)
	}
	return v.Kind + ": " + strings.Join(v.Reasons, "; ")
}

func tellUses(uses []store.Use) string {
	var told []string
	for _, u := range uses {
		told = append(told, u.Family+" "+u.Type)
	}
	return strings.Join(told, ", ")
}

// tellFew names the first few of many.
func tellFew(names []string) string {
	const few = 4
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// splitScopes takes the host's rows apart from those of containers.
func splitScopes(keys [][]store.Evidence) (host []store.Evidence, containers [][]store.Evidence) {
	for _, rows := range keys {
		if rows[0].Key.Scope == store.HostScope {
			host = rows
		} else {
			containers = append(containers, rows)
		}
	}
	return host, containers
}
