package enforcer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"profile/internal/schedule"
	"profile/store"
)

// Plan is what enforcing would do, for a person to review before it is done.
// Its JSON form is that of `enforce -o json`.
type Plan struct {
	Enforce []string // resolved paths, sorted
	Held    []Held   // sorted by path

	Stage     string   // store.StageMonitor or store.StageEnforce
	Cgroup    string   // "/" is the whole machine
	Families  []string // enforced
	Unwatched []string // network families that are not

	// Loaded is the generation in force that the plan was made against, 0 if
	// there was none; Added and Removed are the changes to what it lists.
	Loaded  uint64
	Added   []string
	Removed []string

	Thresholds Thresholds
	Wider      bool                    // it was to be wider than what was learned
	Sessions   []string                // that it considered, sorted
	Files      map[string]store.FileID // by path of Enforce, where known
	Replaced   []string                // those of Enforce whose files were replaced since, and stay listed; sorted
	Warnings   []string                // in plain words
}

// Held is an executable that is left out of a plan, and why.
type Held struct {
	Path string
	Why  string
}

// PlanOptions say what a plan is made of.
type PlanOptions struct {
	Thresholds
	Stage  string // store.StageMonitor or store.StageEnforce
	Cgroup string // absolute in the hierarchy; "/" is the whole machine

	Only    []string // doublestar patterns; restricts what was learned, none is no restriction
	Include []string // paths that stand above verdict, coverage and holds
	Exclude []string // paths that are never listed
	Protect []string // more protected patterns, in the form of protected.txt
	Dirs    []string // directories whose executables join as if included

	Wider bool // enforce more widely than was learned
	// Remote says that the agent is on another host, of whose files and
	// processes this machine can say nothing.
	Remote bool
	// AgentFamilies are the families that the agent can enforce; nil if it is
	// not asked.
	AgentFamilies []string
	// Vsock says that the agent will be asked to enforce AF_VSOCK where that
	// takes a hook on every system call.
	Vsock bool
	// Jobs are what this machine runs by itself: the plan names those that did
	// not run while it was learned.
	Jobs []schedule.Job
	// AgentPaths are resolved executables of the agent, which are protected.
	AgentPaths []string
}

// CoverageError refuses a plan that would enforce more widely than was
// learned.
type CoverageError struct {
	Cgroup  string   // that was to be enforced in
	Learned []string // where sessions learned, in plain words
}

func (e *CoverageError) Error() string {
	places := e.Learned
	if n := len(places); n > 3 { // such as a cgroup for each command
		places = append(slices.Clone(places[:2]), fmt.Sprintf("in %d other places", n-2))
	}
	return fmt.Sprintf("learned only %s: enforcing %s is wider than that", strings.Join(places, " and "), tellWhere(e.Cgroup))
}

// BuildPlan makes the plan from the evidence of one transaction, from the
// generation in force, and from the files and processes of this machine. It
// asks no agent. Errors about the options wrap ErrUsage; a plan wider than the
// evidence is a *CoverageError. A plan may be empty.
func BuildPlan(ctx context.Context, tx *store.Tx, o PlanOptions) (*Plan, error) {
	p, err := newPlanner(tx, o)
	if err != nil {
		return nil, err
	}
	if err := p.name(ctx, tx); err != nil {
		return nil, err
	}
	if err := p.checkCoverage(); err != nil {
		return nil, err
	}
	if err := p.judgeLearned(ctx, tx); err != nil {
		return nil, err
	}
	for _, file := range p.unlearned() {
		p.decide(&candidate{file: file})
	}
	return p.finish()
}

// planner is a plan in the making.
type planner struct {
	o        PlanOptions
	c        *considered // all sessions that count
	covering *considered // those that cover the enforced cgroup
	loaded   store.Generation
	listed   map[string]bool // by loaded
	stays    bool            // what the loaded generation lists stays listed
	would    map[string]store.Kill
	unheard  map[string]uint64 // would-be kills that may have been the path's
	protect  *protection
	runtimes *patterns
	alive    *processes

	included map[string]bool   // resolved: whether it was given as that
	excluded map[string]bool   // as given, and resolved
	inDirs   map[string]bool   // executables below the directories
	named    map[string]string // held by name already: why

	enforce  map[string]store.FileID
	held     map[string]string
	lifted   map[string]bool // a listing that a person, or the step to enforce, lifted
	replaced []string        // kept though its file was replaced
	warnings []string
	learned  bool // something in the plan rests on a quiet verdict
	kept     bool // something rests on its listing alone
}

func newPlanner(tx *store.Tx, o PlanOptions) (*planner, error) {
	if o.Stage != store.StageMonitor && o.Stage != store.StageEnforce {
		return nil, fmt.Errorf("%w: %q is no stage", ErrUsage, o.Stage)
	}
	if !path.IsAbs(o.Cgroup) {
		return nil, fmt.Errorf("%w: cgroup %q is not absolute", ErrUsage, o.Cgroup)
	}
	if err := checkPatterns(o.Only); err != nil {
		return nil, err
	}
	o.Cgroup = path.Clean(o.Cgroup)
	c, err := loadConsidered(tx, o.Thresholds)
	if err != nil {
		return nil, err
	}
	generations, err := tx.Generations()
	if err != nil {
		return nil, err
	}
	p := &planner{o: o, c: c, would: sumKills(generations), unheard: unheardWould(generations), alive: &processes{}, listed: map[string]bool{},
		enforce: map[string]store.FileID{}, held: map[string]string{}, lifted: map[string]bool{}}
	p.covering = c.only(func(s *session) bool { return o.Wider || s.covers(o.Cgroup) })
	if g := inForce(generations); g != nil {
		p.loaded = *g
	}
	for _, file := range p.loaded.Paths {
		p.listed[file] = true
	}
	if p.protect, err = newProtection(o.Protect, o.AgentPaths); err != nil {
		return nil, err
	}
	if p.runtimes, err = parsePatterns(runtimesText); err != nil {
		return nil, err
	}
	return p, p.checkLoaded()
}

// checkLoaded decides whether listings of the loaded generation stay: they do
// in the same cgroup, and in a wider one they are judged anew.
func (p *planner) checkLoaded() error {
	if p.loaded.N == 0 {
		return nil
	}
	if !contains(p.o.Cgroup, p.loaded.Cgroup) {
		return fmt.Errorf("generation %d is in force %s: enforcing %s instead would lift it there; release it first",
			p.loaded.N, tellWhere(p.loaded.Cgroup), tellWhere(p.o.Cgroup))
	}
	p.stays = p.o.Cgroup == p.loaded.Cgroup || p.o.Wider
	return nil
}

// checkCoverage refuses a plan that no session covers, unless all of it stands
// above coverage.
func (p *planner) checkCoverage() error {
	above := len(p.included) > 0 || len(p.inDirs) > 0 || p.stays && len(p.loaded.Paths) > 0
	proves := func(s *session) bool { return s.proves() }
	if above || len(p.covering.only(proves).ids) > 0 {
		return nil
	}
	if where := p.c.only(proves).places(); len(where) > 0 {
		return &CoverageError{Cgroup: p.o.Cgroup, Learned: where}
	}
	return nil
}

// judgeLearned decides on every path that there is evidence of.
func (p *planner) judgeLearned(ctx context.Context, tx *store.Tx) error {
	for c, err := range ahead(p.candidates(tx)) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		p.decide(c)
	}
	return nil
}

// unlearned returns the paths that a person or the loaded generation names and
// that nothing was decided of yet, sorted.
func (p *planner) unlearned() []string {
	names := map[string]bool{}
	for _, set := range []map[string]bool{p.included, p.inDirs, p.listed} {
		for file := range set {
			names[file] = true
		}
	}
	for file := range p.enforce {
		delete(names, file)
	}
	for file := range p.held {
		delete(names, file)
	}
	return slices.Sorted(maps.Keys(names))
}

func (p *planner) finish() (*Plan, error) {
	for file, why := range p.named {
		if _, listed := p.enforce[file]; !listed && p.held[file] == "" {
			p.held[file] = why
		}
	}
	plan := &Plan{Stage: p.o.Stage, Cgroup: p.o.Cgroup, Loaded: p.loaded.N, Thresholds: p.c.t, Wider: p.o.Wider, Sessions: p.c.ids,
		Enforce: slices.Sorted(maps.Keys(p.enforce)), Files: p.enforce}
	maps.DeleteFunc(plan.Files, func(_ string, id store.FileID) bool { return !id.Known() })
	for _, file := range slices.Sorted(maps.Keys(p.held)) {
		plan.Held = append(plan.Held, Held{Path: file, Why: p.held[file]})
	}
	plan.Added = without(plan.Enforce, p.loaded.Paths)
	plan.Removed = without(p.loaded.Paths, plan.Enforce)
	if err := p.checkRemoved(plan.Removed); err != nil {
		return nil, err
	}
	if err := p.chooseFamilies(plan); err != nil {
		return nil, err
	}
	p.warnOfLearned()
	slices.Sort(p.replaced)
	plan.Replaced = p.replaced
	plan.Warnings = p.warnings
	return plan, nil
}

// checkRemoved refuses to lift a listing that no person lifted. It comes to
// that only in a wider cgroup.
func (p *planner) checkRemoved(removed []string) error {
	for _, file := range removed {
		if !p.lifted[file] {
			return fmt.Errorf("generation %d lists %q, and this plan would not: %s; --include or --exclude it, or say --wider",
				p.loaded.N, file, p.held[file])
		}
	}
	return nil
}

func (p *planner) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// MarshalJSON writes the form of `enforce -o json`.
func (p *Plan) MarshalJSON() ([]byte, error) {
	type held struct {
		Path       string `json:"path"`
		PathBase64 string `json:"path_base64,omitempty"`
		Why        string `json:"why"`
	}
	type thresholds struct {
		MinRuns         uint64    `json:"min_runs"`
		MinWatchSeconds float64   `json:"min_watch_seconds"`
		AcceptGaps      bool      `json:"accept_gaps"`
		Since           time.Time `json:"since,omitzero"`
		Wider           bool      `json:"wider"`
	}
	t := p.Thresholds
	out := struct {
		Schema     int        `json:"schema"`
		Enforce    []string   `json:"enforce"`
		Held       []held     `json:"held"`
		Replaced   []string   `json:"replaced_since,omitempty"`
		Warnings   []string   `json:"warnings,omitempty"`
		Thresholds thresholds `json:"thresholds"`
	}{Schema, append([]string{}, p.Enforce...), []held{}, p.Replaced, p.Warnings,
		thresholds{t.MinRuns, t.MinWatch.Seconds(), t.AcceptGaps, t.Since, p.Wider}}
	for _, h := range p.Held {
		one := held{Why: h.Why}
		one.Path, one.PathBase64 = printable(h.Path)
		out.Held = append(out.Held, one)
	}
	return json.Marshal(out)
}

// without returns those of a, sorted, that are not in b.
func without(a, b []string) []string {
	in := make(map[string]bool, len(b))
	for _, s := range b {
		in[s] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return in[s] })
}
