package profiler

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"profile/store"
)

// Paths of executables that have none: they begin with no slash, so that they
// are nobody's path and no policy can name them. All of one sort are one row,
// since a program could make up any number of names.
const (
	memfd    = "memfd:"
	nameless = "nameless:"
)

// namelessPath is the path that stands for an executable without one.
func namelessPath(why string) string {
	if strings.Contains(why, "memfd") {
		return memfd
	}
	return nameless
}

// maxFiles bounds the tallies of one executable. Beyond it the oldest without
// a live run is forgotten: what was learned of a file that is gone is history.
const maxFiles = 16

// maxPath is the kernel's own bound of a path. An agent that says otherwise is
// not believed.
const maxPath = 4096

// maxArgsLen bounds one kept string of arguments.
const maxArgsLen = 4096

type kind uint8

const (
	kindEvidence  kind = iota
	kindOutside        // of --only: followed, not recorded
	kindCanary         // of another session, or of an enforcing policy
	kindOwnCanary      // of this session
)

// executable is what the session knows of one.
type executable struct {
	key      store.Key
	kind     kind
	isEnv    bool
	network  bool
	dirty    bool
	counted  bool
	first    int64
	last     int64
	used     int64  // the last time that it used the network, 0 if never
	sockets  uint64 // told of it
	tallies  []*tally
	latest   *tally // the one looked up last
	attempts []attempt

	// before any window of a recording
	firstOutside, lastOutside int64
}

// tally counts what one file did.
type tally struct {
	ex    *executable
	label string // of the file, as the agent gives it
	file  store.FileID

	firstExec, lastExec int64

	seen, complete, clean, crossed uint64
	unseen                         uint64
	pending, asked                 pending

	live    int // runs
	entries []store.Entry
	uses    []tallyUse
	args    []string

	// for the snapshot being made
	going store.Going
	alive []store.Process
}

type tallyUse struct {
	typ         socketType
	runs        uint64
	inherited   uint64
	first, last int64

	reach        store.Reach
	protocols    []uint32
	destinations []string
}

type attempt struct {
	typ         socketType
	stage       string
	count       uint64
	first, last int64
}

// executable finds the executable of a key, and makes it where there is none.
func (f *Fold) executable(key store.Key) *executable {
	if ex := f.executables[key]; ex != nil {
		return ex
	}
	key.Path, _, _ = strings.Cut(key.Path, "\x00")
	if key.Path == "" || len(key.Path) > maxPath {
		key.Path = nameless
	}
	if ex := f.executables[key]; ex != nil {
		return ex
	}
	ex := &executable{key: key, kind: f.kindOf(key), isEnv: path.Base(key.Path) == "env"}
	f.executables[key] = ex
	return ex
}

func (f *Fold) kindOf(key store.Key) kind {
	// In every scope: this machine may be a container to the agent.
	switch {
	case f.cfg.Canary != "" && key.Path == f.cfg.Canary:
		return kindOwnCanary
	case f.cfg.IsCanary != nil && f.cfg.IsCanary(key.Path):
		return kindCanary
	}
	for _, pattern := range f.cfg.Only {
		if doublestar.MatchUnvalidated(pattern, key.Path) {
			return kindEvidence
		}
	}
	if len(f.cfg.Only) > 0 {
		return kindOutside
	}
	return kindEvidence
}

// observed notes that something was seen of an executable.
func (f *Fold) observed(ex *executable, at int64) {
	if ex.first == 0 || at < ex.first {
		ex.first = at
	}
	ex.last = max(ex.last, at)
	f.changed(ex)
	if !ex.counted && ex.kind == kindEvidence {
		ex.counted = true
		f.counts.Executables++
	}
}

func (ex *executable) outside(at int64) {
	if ex.firstOutside == 0 || at < ex.firstOutside {
		ex.firstOutside = at
	}
	ex.lastOutside = max(ex.lastOutside, at)
}

// showOutside gives rows to what ran in a recording without a window, so that
// it is told that nothing is proven of it.
func (f *Fold) showOutside() {
	for _, ex := range f.executables {
		if ex.first == 0 && ex.firstOutside != 0 {
			f.observed(ex, ex.firstOutside)
			f.observed(ex, ex.lastOutside)
		}
	}
}

func (f *Fold) changed(ex *executable) {
	if !ex.dirty && ex.kind == kindEvidence {
		ex.dirty = true
		f.dirty = append(f.dirty, ex)
	}
}

// tally finds the tally of a file by its label, "" if that is not known.
func (ex *executable) tally(label string) *tally {
	if t := ex.latest; t != nil && t.label == label {
		return t
	}
	i := slices.IndexFunc(ex.tallies, func(t *tally) bool { return t.label == label })
	if i < 0 {
		if len(ex.tallies) >= maxFiles {
			ex.forgetOldest()
		}
		i = len(ex.tallies)
		ex.tallies = append(ex.tallies, &tally{ex: ex, label: label, file: parseFile(label)})
	}
	ex.latest = ex.tallies[i]
	return ex.latest
}

func (ex *executable) forgetOldest() {
	i := slices.IndexFunc(ex.tallies, func(t *tally) bool { return t.live == 0 && !t.pending.queued && !t.asked.queued && t.file.Known() })
	if i >= 0 {
		ex.tallies = slices.Delete(ex.tallies, i, i+1)
	}
}

// parseFile reads "dev:ino:size:ctime_ns"; what is not of that form is not
// known.
func parseFile(label string) store.FileID {
	parts := strings.Split(label, ":")
	if len(parts) != 4 {
		return store.FileID{}
	}
	dev, e1 := strconv.ParseUint(parts[0], 10, 64)
	ino, e2 := strconv.ParseUint(parts[1], 10, 64)
	size, e3 := strconv.ParseInt(parts[2], 10, 64)
	ctime, e4 := strconv.ParseInt(parts[3], 10, 64)
	if e1 != nil || e2 != nil || e3 != nil || e4 != nil {
		return store.FileID{}
	}
	return store.FileID{Dev: dev, Ino: ino, Size: size, CtimeNS: ctime}
}

// labelOf is the label that parseFile reads.
func labelOf(id store.FileID) string {
	if !id.Known() {
		return ""
	}
	return fmt.Sprintf("%d:%d:%d:%d", id.Dev, id.Ino, id.Size, id.CtimeNS)
}

// enter counts a run under the name it was started by.
func (t *tally) enter(e entry) {
	if e.name == "" {
		return
	}
	for i := range t.entries {
		if t.entries[i].Name == e.name {
			t.entries[i].Runs++
			t.entries[i].Script = t.entries[i].Script || e.script
			return
		}
	}
	if len(t.entries) < store.MaxEntries {
		t.entries = append(t.entries, store.Entry{Name: e.name, Runs: 1, Script: e.script})
	}
}

// use finds the tally's count of a family and type, with its times set.
func (t *tally) use(u use) *tallyUse {
	i := slices.IndexFunc(t.uses, func(n tallyUse) bool { return n.typ == u.typ })
	if i < 0 {
		i = len(t.uses)
		t.uses = append(t.uses, tallyUse{typ: u.typ, first: u.at})
	}
	n := &t.uses[i]
	n.first, n.last = min(n.first, u.at), max(n.last, u.at)
	return n
}

func (ex *executable) attempt(u use) {
	i := slices.IndexFunc(ex.attempts, func(a attempt) bool { return a.typ == u.typ && a.stage == u.stage })
	if i < 0 {
		i = len(ex.attempts)
		ex.attempts = append(ex.attempts, attempt{typ: u.typ, stage: u.stage, first: u.at})
	}
	a := &ex.attempts[i]
	a.count++
	a.first, a.last = min(a.first, u.at), max(a.last, u.at)
}

func (t *tally) keepArgs(args string) {
	args = args[:min(len(args), maxArgsLen)]
	if args != "" && len(t.args) < store.MaxArgs && !slices.Contains(t.args, args) {
		t.args = append(t.args, args)
	}
}
