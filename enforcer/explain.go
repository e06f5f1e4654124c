package enforcer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"profile/internal/owner"
	"profile/store"
)

// ExplainOptions say under which thresholds a verdict is explained.
type ExplainOptions struct {
	Thresholds
	// Given says that a person gave them; else those of the generation in
	// force are taken, where there is one.
	Given bool
}

// Chapter is a part of what is told of an executable, in plain words.
type Chapter struct {
	Title string
	Lines []string
}

// Explain tells the whole story of what a name stands for on this machine: an
// executable, a process by its number, or a script. It asks no agent. Errors
// about the name wrap ErrUsage; an executable of which nothing was learned is
// none.
func Explain(ctx context.Context, tx *store.Tx, name string, o ExplainOptions) ([]Chapter, error) {
	s, err := findSubject(tx, name)
	if err != nil {
		return nil, err
	}
	x, err := newExplainer(tx, o)
	if err != nil {
		return nil, err
	}
	var told []Chapter
	for _, path := range s.paths {
		chapters, err := x.explain(ctx, path, s.told)
		if err != nil {
			return nil, err
		}
		told = append(told, chapters...)
	}
	return told, nil
}

// explainer tells of executables from one transaction.
type explainer struct {
	tx          *store.Tx
	c           *considered
	generations []store.Generation
	loaded      *store.Generation // nil if none is
	ofLoaded    bool              // the thresholds are those of loaded
	boot        string            // of this machine; "" if it cannot be told
}

func newExplainer(tx *store.Tx, o ExplainOptions) (*explainer, error) {
	x := &explainer{tx: tx}
	var err error
	if x.generations, err = tx.Generations(); err != nil {
		return nil, err
	}
	if x.loaded = inForce(x.generations); x.loaded != nil && !o.Given {
		x.ofLoaded = true
		o.Thresholds = Thresholds{MinRuns: x.loaded.MinRuns, MinWatch: x.loaded.MinWatch, AcceptGaps: x.loaded.AcceptGaps, Since: x.loaded.LearnedSince}
	}
	x.boot, _ = bootID()
	x.c, err = loadConsidered(tx, o.Thresholds)
	return x, err
}

func (x *explainer) explain(ctx context.Context, path string, found []string) ([]Chapter, error) {
	rows, err := x.tx.Evidence(path)
	if err != nil {
		return nil, err
	}
	keys := byKey(rows)
	what, err := x.what(ctx, path, keys, found)
	if err != nil {
		return nil, err
	}
	told := []Chapter{what}
	for _, rows := range keys {
		chapter, err := x.scope(rows)
		if err != nil {
			return nil, err
		}
		told = append(told, chapter)
	}
	if len(keys) == 0 {
		told = append(told, Chapter{"What was learned", []string{"nothing: no session saw it run", "what would change that: run it while learning"}})
	}
	planned, err := x.planned(ctx, path, keys)
	return append(told, planned), err
}

// what tells what the executable is, of the file that is there now.
func (x *explainer) what(ctx context.Context, path string, keys [][]store.Evidence, found []string) (Chapter, error) {
	told := Chapter{Title: path, Lines: slices.Clone(found)}
	if quoted := strconv.Quote(path); quoted != `"`+path+`"` {
		told.Title = quoted
	}
	say := func(format string, args ...any) { told.Lines = append(told.Lines, fmt.Sprintf(format, args...)) }
	now, err := identify(path)
	onHost := slices.ContainsFunc(keys, func(rows []store.Evidence) bool { return rows[0].Key.Scope == store.HostScope })
	if len(keys) > 0 && !onHost {
		say("it was seen in containers alone, whose files are not looked at: what follows is of the host's")
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(keys) > 0 && !onHost:
		say("there is no such file")
	case errors.Is(err, fs.ErrNotExist):
		say("the file is not there any more")
	case err != nil:
		say("the file cannot be looked at: %v", err)
	default:
		say("the file there now: %s", tellFile(now))
	}
	for _, rows := range keys {
		if rows[0].Key.Scope != store.HostScope {
			continue
		}
		v, err := x.c.judge(rows)
		if err != nil {
			return told, err
		}
		if why := replaced(path, v.Files); why != "" {
			say("%s", why)
		}
	}
	if now.Known() {
		say("%s", tellAbility(path))
	}
	members, err := x.members(path)
	if err != nil {
		return told, err
	}
	told.Lines = append(told.Lines, members...)
	owners, err := owner.Of(ctx, "/", path)
	switch {
	case err != nil:
		say("which package owns it cannot be told: %v", err)
	case len(owners) > 0:
		say("it belongs to %s", tellOwners(owners))
	case now.Known():
		say("no package that is known here owns it")
	}
	return told, nil
}

func tellFile(id store.FileID) string {
	return fmt.Sprintf("inode %d, %s, changed %s", id.Ino, humanize.IBytes(uint64(max(0, id.Size))), tellTime(time.Unix(0, id.CtimeNS)))
}

// scope tells the evidence of one key, and its verdict.
func (x *explainer) scope(rows []store.Evidence) (Chapter, error) {
	told := Chapter{Title: "On the host"}
	if scope := rows[0].Key.Scope; scope != store.HostScope {
		told.Title = "In " + tellScope(scope)
	}
	v, err := x.c.judge(rows)
	if err != nil {
		return told, err
	}
	say := func(format string, args ...any) { told.Lines = append(told.Lines, fmt.Sprintf(format, args...)) }
	of := ""
	if rows[0].Key.Scope == store.HostScope {
		of = tellOf(replaced(rows[0].Key.Path, v.Files))
	}
	say("verdict: %s%s", v.Kind, of)
	for _, why := range x.c.reasons(v, rows) {
		say("  %s", why)
	}
	told.Lines = append(told.Lines, x.thresholds())
	told.Lines = append(told.Lines, tellChanges(v)...)
	for _, e := range v.Entries {
		name, _ := printable(e.Name)
		as := "started as"
		if e.Script {
			as = "started through the script"
		}
		say("%s %q: %s", as, name, count(e.Runs, "run"))
	}
	told.Lines = append(told.Lines, x.arguments(rows, v.Files)...)
	for _, u := range v.Network {
		if reach := tellReach(u, v.AtLeast); reach != "" {
			say("%s %s: %s", u.Family, u.Type, reach)
		}
	}
	for _, row := range rows {
		told.Lines = append(told.Lines, x.session(row)...)
	}
	told.Lines = append(told.Lines, x.history(rows, v.Files)...)
	var counted store.Kill
	if rows[0].Key.Scope == store.HostScope {
		counted = sumKills(x.generations)[rows[0].Key.Path]
	}
	for _, a := range attemptRows(v.Attempts, counted) {
		told.Lines = append(told.Lines, tellAttempt(a))
	}
	return told, nil
}

// tellOf says of which file a verdict is, where that is not the one that is
// there, for a reason; "" for none.
func tellOf(why string) string {
	switch why {
	case "":
		return ""
	case replacedSince:
		return ", of the file that was learned; the one there now has no evidence"
	}
	return ", of the file that was learned"
}

// arguments tells those that sessions were asked to keep, of the files that
// count.
func (x *explainer) arguments(rows []store.Evidence, files []store.FileID) []string {
	var given []string
	for _, row := range kept(rows, x.c.has) {
		for _, t := range row.Files {
			if !t.File.Known() || slices.Contains(files, t.File) {
				given = append(given, t.Args...)
			}
		}
	}
	slices.Sort(given)
	given = slices.Compact(given)
	var told []string
	for _, args := range given[:min(len(given), store.MaxArgs)] {
		text, _ := printable(args)
		told = append(told, fmt.Sprintf("was given the arguments %q", text))
	}
	if more := len(given) - len(told); more > 0 {
		told = append(told, "was given "+count(uint64(more), "other list")+" of arguments")
	}
	return told
}

func tellChanges(v Verdict) []string {
	switch v.Kind {
	case Network:
		return []string{"what would change it: nothing as long as that evidence counts; --since leaves out older sessions, and a replaced file begins anew"}
	case Quiet:
		return []string{"what would change it: one network socket that it opens while it is not listed; a gap in a session that would have seen it; another file in its place"}
	}
	lines := make([]string, 0, len(v.Changes))
	for _, change := range v.Changes {
		lines = append(lines, "what would change it: "+change)
	}
	return lines
}

func (x *explainer) thresholds() string {
	t := x.c.t
	text := fmt.Sprintf("thresholds: %s, or one still going that was watched from its start for %s", count(t.MinRuns, "complete run"), tellDuration(t.MinWatch))
	if t.AcceptGaps {
		text += "; gaps are accepted"
	}
	if !t.Since.IsZero() {
		text += "; sessions that ended before " + tellTime(t.Since) + " are left out"
	}
	if x.ofLoaded {
		text += fmt.Sprintf(" (those of generation %d, which is in force)", x.loaded.N)
	}
	return text
}

// history tells of files that were at the path before, and count no more.
func (x *explainer) history(rows []store.Evidence, current []store.FileID) []string {
	var lines []string
	for _, row := range rows {
		for _, t := range row.Files {
			if !t.File.Known() || slices.Contains(current, t.File) {
				continue
			}
			line := fmt.Sprintf("history, which counts no more: another file (%s) ran %s in session %s", tellFile(t.File), tellTimes(t.Seen), row.Session)
			if len(t.Network) > 0 {
				line += " and opened " + tellUses(t.Network)
			}
			lines = append(lines, line)
		}
	}
	return lines
}

func tellTimes(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func tellAttempt(a AttemptRow) string {
	what := "was killed"
	if a.Stage == store.StageMonitor {
		what = "would have been killed"
	}
	text := fmt.Sprintf("%s %s while listed", what, tellTimes(a.Count))
	if a.Family != "" {
		text += fmt.Sprintf(", opening %s %s", a.Family, a.Type)
	}
	if !a.Last.IsZero() {
		text += ", last at " + tellTime(a.Last)
	}
	return text
}

// planned tells what is in force for the path, and what a plan made now would
// do.
func (x *explainer) planned(ctx context.Context, path string, keys [][]store.Evidence) (Chapter, error) {
	told := Chapter{Title: "Enforcement"}
	o := PlanOptions{Thresholds: x.c.t, Stage: store.StageEnforce, Cgroup: "/"}
	if x.loaded != nil {
		o.Cgroup = x.loaded.Cgroup
	}
	told.Lines = append(told.Lines, x.inForce(path))
	p, err := newPlanner(x.tx, o)
	if err != nil {
		return told, err
	}
	if err := p.name(ctx, x.tx); err != nil {
		return told, err
	}
	p.decide(p.look(path, keys))
	_, listed := p.enforce[path]
	switch why := p.held[path]; {
	case listed:
		told.Lines = append(told.Lines, "a plan made now for "+tellCgroup(o.Cgroup)+" lists it")
	case why != "":
		told.Lines = append(told.Lines, "a plan made now for "+tellCgroup(o.Cgroup)+" holds it: "+why)
	default:
		told.Lines = append(told.Lines, "a plan made now for "+tellCgroup(o.Cgroup)+" does not name it")
	}
	told.Lines = append(told.Lines, p.warnings...)
	return told, nil
}

func (x *explainer) inForce(path string) string {
	switch {
	case x.loaded == nil:
		return "nothing is in force"
	case !slices.Contains(x.loaded.Paths, path):
		return fmt.Sprintf("generation %d, in force since %s, does not list it", x.loaded.N, tellTime(x.loaded.Since))
	}
	what := "it is killed when it opens a network socket"
	if x.loaded.Stage == store.StageMonitor {
		what = "it is counted, and not killed, when it opens a network socket"
	}
	return fmt.Sprintf("generation %d, in force %s since %s, lists it: %s", x.loaded.N, tellWhere(x.loaded.Cgroup), tellTime(x.loaded.Since), what)
}

// byKey takes the rows of one path apart by scope. They are sorted by it.
func byKey(rows []store.Evidence) [][]store.Evidence {
	var keys [][]store.Evidence
	for i, row := range rows {
		if i == 0 || rows[i-1].Key != row.Key {
			keys = append(keys, nil)
		}
		keys[len(keys)-1] = append(keys[len(keys)-1], row)
	}
	return keys
}
