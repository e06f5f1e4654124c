package e2e

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A random workload whose truth is known: 30 executables a seed, started in
// random ways. Every verdict and count is the truth, and then every quiet one
// that the plan lists is killed when it tries, and no other. There are
// $PROFILE_SEEDS seeds, from 1 on.
func TestRandomWorkload(t *testing.T) {
	for seed := range many(t, "PROFILE_SEEDS", 1) {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { workload(t, uint64(seed+1)) })
	}
}

// program is one executable and what is true of it.
type program struct {
	base    string // the built program that it is a copy of
	path    string
	network bool     // may open network sockets
	names   []string // by which it is started, scripts left out
	script  string   // one that it interprets

	runs    int
	uses    map[string]int // FAMILY/TYPE: runs
	entries map[string]int
}

// launch is one program start: which, by what name, with which words.
type launch struct {
	name string
	args []string
}

type world struct {
	*site
	*rand.Rand
	programs []*program
	launches []launch
}

func workload(t *testing.T, seed uint64) {
	w := &world{site: newSite(t), Rand: rand.New(rand.NewPCG(seed, seed))}
	for i := range 30 {
		w.programs = append(w.programs, w.newProgram(i))
	}
	for _, p := range w.programs {
		for range w.IntN(4) {
			w.plan(p)
		}
		if p.script != "" {
			w.plan(p, p.script)
		}
	}
	w.Shuffle(len(w.launches), func(i, j int) { w.launches[i], w.launches[j] = w.launches[j], w.launches[i] })
	t.Logf("%d launches", len(w.launches))
	w.site.learn(w.runAll)
	if !t.Failed() {
		w.checkReport()
	}
	if !t.Failed() {
		w.enforce()
	}
	if t.Failed() {
		for _, l := range w.launches {
			t.Logf("%q %q", l.name, l.args)
		}
	}
}

var oddNames = []string{"with space", "quo\"te", "it's", "new\nline", "ta\tb", "back\\slash", "Żółw", "star*", "# hash", "key: value",
	"-dash", "$HOME", "x (deleted)", "\x1b[31m", "{brace}", "comma,", "bad\xff", strings.Repeat("l", 250)}

func (w *world) newProgram(i int) *program {
	p := &program{base: "actor", network: w.IntN(3) == 0, uses: map[string]int{}, entries: map[string]int{}}
	if w.IntN(4) == 0 {
		p.base = "sidedoor"
	}
	name := fmt.Sprintf("p%02d", i)
	odd := w.IntN(3) == 0
	if odd {
		name += oddNames[w.IntN(len(oddNames))]
	}
	p.path = filepath.Join(w.dir, fmt.Sprintf("d%d", w.IntN(4)), name)
	w.copies(p.base, p.path)
	p.names = []string{p.path}
	for n := range w.IntN(3) {
		// The first under the same final name, the second under another.
		link := filepath.Join(w.dir, "links", fmt.Sprint(n), name+strings.Repeat("x", n))
		must(w.t, os.MkdirAll(filepath.Dir(link), 0o755))
		must(w.t, os.Symlink(p.path, link))
		p.names = append(p.names, link)
	}
	if p.base == "actor" && !odd && w.IntN(6) == 0 {
		p.script = filepath.Join(w.dir, name+".script")
	}
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plan adds a launch, through a script or by a name, and counts what it does:
// words, then perhaps another executable, or the same again, with words of its
// own.
func (w *world) plan(p *program, script ...string) {
	name := p.names[w.IntN(len(p.names))]
	l := launch{name: name}
	if len(script) > 0 {
		l.name, name = script[0], script[0]
	} else if w.IntN(5) == 0 {
		l.args = []string{"another argv0"}
	}
	if l.args == nil {
		l.args = []string{l.name}
	}
	for depth := 0; ; depth++ {
		p.runs++
		p.entries[name]++
		words := w.words(p)
		if len(script) > 0 {
			text := "#!" + p.path + "\n" + strings.Join(words, " ") + "\n"
			must(w.t, writeProgram(script[0], []byte(text)))
			break
		}
		l.args = append(l.args, words...)
		if depth == 3 || w.IntN(3) > 0 {
			break
		}
		how := "exec"
		if p.base == "sidedoor" {
			how = []string{"thread-exec", "vfork-exec"}[w.IntN(2)]
		}
		if w.IntN(4) > 0 { // else the same again
			p = w.programs[w.IntN(len(w.programs))]
		}
		name = p.names[w.IntN(len(p.names))]
		l.args = append(l.args, how, name)
	}
	w.launches = append(w.launches, l)
}

// words are up to five things that the program does in one run.
func (w *world) words(p *program) []string {
	var words []string
	used := map[string]bool{}
	say := func(ways []string) string { return ways[w.IntN(len(ways))] }
	doors := []string{"call", "int80", "uring", "uring-async", "vfork"}
	for range w.IntN(6) {
		network := p.network && w.IntN(2) == 0
		spec := "unix/stream"
		if network {
			spec = say([]string{"inet/stream", "inet/dgram", "inet6/dgram"})
			used[spec] = true
		}
		switch {
		case p.base == "sidedoor":
			words = append(words, say(doors), spec)
		case network || w.IntN(4) == 0:
			words = append(words, say([]string{"socket", "thread"}), spec)
		default:
			// A child forked while the first thread goes would find the C
			// library's locks held.
			quiet := [][]string{{"sleep", "0.01"}, {"socket", "netlink/raw"}, {"leave"}, {"fork"}, {"daemon"}}
			if slices.Contains(words, "leave") {
				quiet = quiet[:2]
			}
			words = append(words, quiet[w.IntN(len(quiet))]...)
		}
	}
	for spec := range used {
		p.uses[spec]++
	}
	return words
}

// runAll runs what was planned, four at a time, and waits for the daemons.
func (w *world) runAll() {
	work := make(chan launch)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for l := range work {
				if status, out := w.run(l.name, l.args); status != 0 {
					w.t.Errorf("%q %q ends with status %x: %s", l.name, l.args, int(status), out)
				}
			}
		})
	}
	for _, l := range w.launches {
		work <- l
	}
	close(work)
	workers.Wait()
	w.empties()
}

func (p *program) verdict() string {
	switch {
	case p.runs == 0:
		return ""
	case len(p.uses) > 0:
		return "network"
	}
	return "quiet"
}

// held reports whether a plan must hold the quiet program.
func (p *program) held() bool {
	finals := map[string]bool{}
	for name := range p.entries {
		if name == p.script {
			return true
		}
		finals[filepath.Base(name)] = true
	}
	return len(finals) > 1 || p.unenforceable()
}

func (p *program) unenforceable() bool {
	return len(p.path) > 255 || strings.Contains(p.path, "\xff")
}

func (w *world) checkReport() {
	var doc reportDoc
	w.read(&doc, "report", "-o", "json")
	rows := map[string]reportRow{}
	for _, row := range doc.Executables {
		rows[row.whole(w.t)] = row
	}
	known := map[string]bool{}
	for _, p := range w.programs {
		known[p.path] = true
		row, there := rows[p.path]
		uses, entries := map[string]int{}, map[string]int{}
		for _, n := range row.Network {
			uses[n.Family+"/"+n.Type] = n.Count
		}
		for _, e := range row.Entries {
			entries[e.Name] = e.Runs
		}
		wantEntries := map[string]int{}
		for name, n := range p.entries {
			wantEntries[strings.ReplaceAll(name, "\xff", `\xff`)] = n
		}
		switch {
		case there != (p.runs > 0), row.Verdict != p.verdict(), row.Runs.Seen != p.runs, row.Runs.Complete != p.runs,
			!maps.Equal(uses, p.uses), !maps.Equal(entries, wantEntries):
			w.t.Errorf("%q: the report has %+v; the truth is %s, %d runs, %v, %v", p.path, row, p.verdict(), p.runs, p.uses, p.entries)
		}
	}
	for path, row := range rows {
		if !known[path] {
			w.t.Errorf("%q was never started: %+v", path, row)
		}
	}
	for _, session := range doc.Sessions {
		if len(session.Gaps) > 0 {
			w.t.Errorf("there are gaps: %+v", session.Gaps)
		}
	}
}

// enforce applies the plan, and then every program tries to open a socket.
func (w *world) enforce() {
	var doc planDoc
	w.read(&doc, "enforce", "-o", "json", "--cgroup", w.group.Name())
	want := []string{}
	for _, p := range w.programs {
		if p.verdict() == "quiet" && !p.held() {
			want = append(want, p.path)
		}
	}
	slices.Sort(want)
	if !slices.Equal(doc.Enforce, want) {
		w.t.Errorf("the plan lists %q, want %q; it holds %+v", doc.Enforce, want, doc.Held)
		return
	}
	if len(want) == 0 {
		w.t.Error("nothing is quiet: the seed says nothing")
		return
	}
	w.profile("enforce", "--cgroup", w.group.Name(), "--yes")
	kills := map[string]int{}
	for _, p := range w.programs {
		way := []string{"socket", "inet/stream"}
		if p.base == "sidedoor" {
			way[0] = []string{"call", "int80", "uring", "uring-async"}[w.IntN(4)]
		} else if w.IntN(2) == 0 {
			way[0] = "thread"
		}
		name := p.names[w.IntN(len(p.names))]
		status, out := w.run(name, append([]string{name}, way...))
		listed := slices.Contains(want, p.path)
		if killed := status.Signal() == syscall.SIGKILL; killed != listed || !killed && status != 0 {
			w.t.Errorf("%q, listed %v, tries by %s and ends with status %x: %s", name, listed, way[0], int(status), out)
		}
		if listed {
			kills[p.path] = 1
		}
	}
	var status statusDoc
	w.read(&status, "status", "-o", "json")
	counted := map[string]int{}
	for _, k := range status.Kills {
		counted[k.Path] = k.Count
	}
	if !maps.Equal(counted, kills) {
		w.t.Errorf("status counts %v, want %v", counted, kills)
	}
}

// whole is the path as it is, where the report has it escaped.
func (row reportRow) whole(t *testing.T) string {
	if row.PathBase64 == "" {
		return row.Path
	}
	path, err := base64.StdEncoding.DecodeString(row.PathBase64)
	must(t, err)
	return string(path)
}
