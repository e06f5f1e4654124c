package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"profile/enforcer"
	"profile/internal/cgroup"
	"profile/internal/schedule"
	"profile/internal/tetragon"
	"profile/store"
)

func enforceCommand() *cli.Command {
	return &cli.Command{
		Name:      "enforce",
		Usage:     "have the kernel kill every quiet executable that opens a network socket",
		UsageText: "profile [--db PATH] enforce [--monitor] [--dry-run] [--yes] [flags]",
		Description: "Shows the plan, asks, and applies it. What is applied stays when the command ends.\n" +
			"With --monitor it counts and kills nothing; enforce again promotes.",
		Flags: append(thresholdFlags(),
			&cli.StringFlag{Name: "agent", Usage: "the agent: auto, embedded, or the `ADDRESS` of one; without it the kind that learned"},
			insecureFlag(),
			&cli.StringFlag{Name: "cgroup", Usage: "enforce only inside this cgroup2 subtree, a directory or a `PATH` of the hierarchy"},
			&cli.StringSliceFlag{Name: "only", Usage: "plan only learned executables that match `GLOB`; may be repeated"},
			&cli.StringSliceFlag{Name: "include", Usage: "enforce `PATH` whatever was learned; a protected one must be named in full; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "never enforce `PATH`, and lift it if it is listed; may be repeated"},
			&cli.StringSliceFlag{Name: "protect", Usage: "hold executables that match `PATTERN`; may be repeated"},
			&cli.StringSliceFlag{Name: "dir", Usage: "enforce every executable below `DIR`, learned or not; may be repeated"},
			vsockFlag(),
			&cli.BoolFlag{Name: "wider", Usage: "enforce more widely than was learned"},
			&cli.BoolFlag{Name: "untried", Usage: "take an agent of another host, on which enforcing cannot be tried"},
			&cli.StringFlag{Name: "policy-dir", Usage: "keep the policies in `DIR` as well, from which a Tetragon loads them when it is restarted (by itself it has /etc/tetragon/tetragon.tp.d); stays so until it is given as ''"},
			&cli.BoolFlag{Name: "monitor", Usage: "count, and kill nothing"},
			&cli.BoolFlag{Name: "watch", Usage: "stay, and load what is in force again where the agent has lost it; without a terminal and --yes nothing is planned or changed"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show the plan and apply nothing"},
			&cli.BoolFlag{Name: "yes", Usage: "apply without asking"},
			outputFlag("json (the plan)", "yaml (the policy)"),
		),
		Action: enforce,
	}
}

// enforcing is what the flags of one call say.
type enforcing struct {
	db     string
	form   string
	apply  bool
	yes    bool
	agent  string
	group  cgroup.Group
	option enforcer.PlanOptions
	store  *store.Store
	temp   string // directory of an empty database, for a plan where there is none
}

func enforce(c *cli.Context) (err error) {
	e, err := readEnforcing(c)
	if e != nil && e.temp != "" {
		defer os.RemoveAll(e.temp)
	}
	if err != nil {
		return err
	}
	if !e.apply {
		plan, err := e.plan(c.Context)
		if err != nil {
			return err
		}
		return e.print(plan)
	}
	if c.Bool("watch") {
		return e.watch(c)
	}
	return e.enforce(c)
}

// enforce makes the plan, asks, and applies it. With --watch, what is in force
// already is left as it is.
func (e *enforcing) enforce(c *cli.Context) (err error) {
	agent, err := e.connect(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.Close()) }()
	// A plan for promotion needs what was counted in monitor.
	if err := enforcer.CountKills(c.Context, agent, e.store); err != nil {
		return err
	}
	watchVsock(c, agent)
	e.option.AgentFamilies, e.option.Remote = agent.Families, !enforcer.OnThisHost(agent)
	plan, err := e.plan(c.Context)
	if err != nil {
		return err
	}
	if err := printPlan(plan); err != nil {
		return err
	}
	if len(plan.Enforce) == 0 {
		err := fmt.Errorf("%w: %s", enforcer.ErrEmptyPlan, whyEmpty(plan))
		if plan.Loaded > 0 {
			err = fmt.Errorf("%w; generation %d stays in force: profile release takes it off", err, plan.Loaded)
		}
		return err
	}
	o := enforcer.ApplyOptions{Agent: agent, Store: e.store, Plan: plan, Group: e.group, Untried: c.Bool("untried")}
	g, err := enforcer.InForce(c.Context, e.store)
	if err != nil {
		return err
	}
	if err := enforcer.CheckMoved(e.store, g); err != nil {
		fmt.Fprintf(os.Stderr, "warning: %s\n", explain(err))
	}
	o.Dir = c.String("policy-dir")
	if g != nil && g.Agent == agent.Address && !c.IsSet("policy-dir") {
		o.Dir = g.Dir
	}
	if c.Bool("watch") && enforcer.Unchanged(o, g) {
		fmt.Printf("generation %d lists that already\n", g.N)
		return nil
	}
	if err := confirm(e.yes, "Apply this plan?"); err != nil {
		return err
	}
	g, err = enforcer.Apply(c.Context, o)
	if g != nil {
		fmt.Printf("generation %d is in force, stage %s; %s\n", g.N, g.Stage, showTried(g))
	}
	if g != nil && g.Dir != "" {
		fmt.Printf("kept in %s as well, from which the agent loads it when it is restarted\n", showPath(g.Dir))
	}
	return err
}

func showTried(g *store.Generation) string {
	switch {
	case g.Tried.IsZero():
		return "not tried, the agent being on another host"
	case g.Stage == store.StageMonitor:
		return "tried: a canary that it lists was counted and lived, as one did that it does not list"
	}
	return "tried: a canary that it lists was killed, and one that it does not list lived"
}

func readEnforcing(c *cli.Context) (*enforcing, error) {
	if err := noArgs(c); err != nil {
		return nil, err
	}
	e := &enforcing{yes: c.Bool("yes"), agent: c.String("agent")}
	e.form = c.String("o")
	if e.form != "" && e.form != "json" && e.form != "yaml" {
		return nil, usagef("-o %q: it is json (the plan) or yaml (the policy)", e.form)
	}
	e.apply = e.form == "" && !c.Bool("dry-run")
	if c.Bool("watch") && !e.apply {
		return nil, usagef("--watch watches over what is applied, and with -o and --dry-run nothing is")
	}
	if err := errors.Join(checkOnly(c), checkGlobs("protect", c.StringSlice("protect"))); err != nil {
		return nil, err
	}
	t, err := thresholds(c)
	if err != nil {
		return nil, err
	}
	e.option = enforcer.PlanOptions{
		Thresholds: t, Stage: store.StageEnforce,
		Only: c.StringSlice("only"), Include: c.StringSlice("include"), Exclude: c.StringSlice("exclude"),
		Protect: c.StringSlice("protect"), Dirs: c.StringSlice("dir"), Wider: c.Bool("wider"),
		Vsock: c.Bool("vsock"),
	}
	if c.Bool("monitor") {
		e.option.Stage = store.StageMonitor
	}
	if e.group, err = findCgroup(c); err != nil {
		return nil, err
	}
	e.option.Cgroup = e.group.Path
	if e.db, err = dbPath(c); err != nil {
		return nil, err
	}
	e.store, err = e.open()
	return e, err
}

// open opens the database. A directory needs nothing learned: there may be none
// yet, which applying then makes, since what is in force is recorded.
func (e *enforcing) open() (*store.Store, error) {
	st, err := store.Open(e.db)
	if !errors.Is(err, fs.ErrNotExist) || len(e.option.Dirs)+len(e.option.Include) == 0 {
		return st, err
	}
	if e.apply {
		return store.Create(e.db)
	}
	dir, err := os.MkdirTemp("", "profile-plan-")
	if err != nil {
		return nil, fmt.Errorf("plan without a database: %w", err)
	}
	e.temp = dir
	return store.Create(filepath.Join(dir, "empty.db"))
}

func (e *enforcing) plan(ctx context.Context) (*enforcer.Plan, error) {
	var plan *enforcer.Plan
	if !e.option.Remote {
		jobs, err := schedule.Jobs(ctx, "/", time.Now())
		if err != nil {
			// The plan does not depend on them.
			fmt.Fprintf(os.Stderr, "warning: what this machine runs by itself cannot be told: %v\n", err)
		}
		e.option.Jobs = jobs
	}
	err := e.store.View(ctx, func(tx *store.Tx) (err error) {
		plan, err = enforcer.BuildPlan(ctx, tx, e.option)
		return err
	})
	return plan, err
}

// printedName is the name of a policy that is printed, for a person to apply;
// printedMost is how many bytes one may have. A cluster keeps no object of more
// than 1.5 MiB, written in a way that takes somewhat more.
const (
	printedName = "profile-enforce"
	printedMost = 1 << 20
)

func (e *enforcing) print(plan *enforcer.Plan) error {
	if len(plan.Enforce) == 0 {
		fmt.Fprintf(os.Stderr, "the plan is empty: %s\n", whyEmpty(plan))
	}
	if e.form != "" {
		for _, w := range plan.Warnings {
			fmt.Fprintf(os.Stderr, "warning: %s\n", showLine(w))
		}
	}
	switch e.form {
	case "json":
		enc := json.NewEncoder(os.Stdout)
		enc.SetEscapeHTML(false)
		return enc.Encode(plan)
	case "yaml":
		return printPolicies(os.Stdout, plan)
	}
	return printPlan(plan)
}

// printPolicies prints the policy of a plan, or several as one YAML document
// each. An empty plan has none.
func printPolicies(w io.Writer, plan *enforcer.Plan) error {
	if len(plan.Enforce) == 0 {
		return nil
	}
	all, err := enforcer.PolicySpec{Name: printedName, Stage: plan.Stage, Cgroup: plan.Cgroup, Families: plan.Families,
		Paths: plan.Enforce, Sensor: plan.Cgroup != "/", Limit: printedMost}.Policies()
	if err != nil {
		return err
	}
	if len(all) > 1 {
		fmt.Fprintf(os.Stderr, "warning: too large for one policy: these are %d, a document each. kubectl applies them all; "+
			"an agent reads only the first document of a file, so for tetra or a policy directory give each a file of its own\n", len(all))
	}
	// What is printed can be given to any agent, and none refuses what it does
	// not know.
	if plan.Cgroup != "/" {
		fmt.Fprintf(os.Stderr, "warning: only the embedded sensor (profile agent) knows the option that confines it to cgroup %s: "+
			"a Tetragon would take it for the whole machine\n", showPath(plan.Cgroup))
	}
	if plan.Stage == store.StageMonitor {
		fmt.Fprintln(os.Stderr, "warning: a Tetragon older than v1.4 does not know the option that makes it monitor, and would kill")
	}
	for i, p := range all {
		text, err := p.Marshal()
		if err != nil {
			return err
		}
		if i > 0 {
			text = append([]byte("---\n"), text...)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

func whyEmpty(plan *enforcer.Plan) string {
	if len(plan.Held) == 0 {
		return "nothing that it could list was learned"
	}
	if len(plan.Held) == 1 {
		return "the one executable is held, for its reason"
	}
	return fmt.Sprintf("all %d executables are held, each for its reason", len(plan.Held))
}

// printPlan fails where a plan cannot be shown: it is not applied then.
func printPlan(plan *enforcer.Plan) error {
	var text bytes.Buffer
	showPlan(&text, plan)
	if _, err := text.WriteTo(os.Stdout); err != nil {
		return fmt.Errorf("show the plan: %w", err)
	}
	return nil
}

func showPlan(w io.Writer, plan *enforcer.Plan) {
	what := "killed when it opens a network socket"
	if plan.Stage == store.StageMonitor {
		what = "counted, and not killed, when it opens a network socket"
	}
	where := "on the whole machine"
	if plan.Cgroup != "/" {
		where = "in cgroup " + showPath(plan.Cgroup)
	}
	fmt.Fprintf(w, "%s: each is %s (%s) %s\n", counted(len(plan.Enforce), "executable"), what, strings.Join(plan.Families, ", "), where)
	for _, p := range plan.Enforce {
		mark := " "
		if _, added := slices.BinarySearch(plan.Added, p); added {
			mark = "+"
		}
		since := ""
		if slices.Contains(plan.Replaced, p) {
			since = " (replaced since it was listed)"
		}
		fmt.Fprintf(w, "  %s %s%s\n", mark, showPath(p), since)
	}
	if plan.Loaded > 0 {
		fmt.Fprintf(w, "against generation %d, which is loaded: %d added, %d removed\n", plan.Loaded, len(plan.Added), len(plan.Removed))
		for _, p := range plan.Removed {
			fmt.Fprintf(w, "  - %s\n", showPath(p))
		}
	}
	if len(plan.Held) > 0 {
		fmt.Fprintf(w, "%d held:\n", len(plan.Held))
		t := newTable(w, "executable", "why")
		for _, h := range plan.Held {
			t.row(showPath(h.Path), h.Why)
		}
		t.print()
	}
	if len(plan.Unwatched) > 0 {
		fmt.Fprintf(w, "not watched, and so not enforced: %s\n", strings.Join(plan.Unwatched, ", "))
	}
	for _, warning := range plan.Warnings {
		fmt.Fprintf(w, "warning: %s\n", showLine(warning))
	}
}

// canAsk reports whether there is a person at a terminal.
func canAsk() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// confirm asks on the terminal. Without one, and without --yes, nothing is done.
func confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !canAsk() {
		return errors.New("nothing was changed: there is no terminal to ask on; say --yes")
	}
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// connect takes the agent that was named, else the kind that learned.
func (e *enforcing) connect(c *cli.Context) (*tetragon.Agent, error) {
	address := e.agent
	if address == "" {
		address = "auto"
		err := e.store.View(c.Context, func(tx *store.Tx) error {
			sessions, err := tx.Sessions()
			for _, s := range sessions {
				if s.Agent != store.Recording {
					address = s.Agent
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return connectTo(c, address, e.db)
}
