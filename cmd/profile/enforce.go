package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
	"profile/internal/cgroup"
	"profile/internal/schedule"
	"profile/internal/tetragon"
	"profile/store"
)

// policyDirFlag is the one flag whose value may be empty: that says to keep the
// policies nowhere.
const policyDirFlag = "policy-dir"

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
			&cli.StringSliceFlag{Name: "protect", Usage: "hold executables that match `PATTERN`, a name such as vpn-* or a path such as /opt/vpn/**; may be repeated"},
			&cli.StringSliceFlag{Name: "dir", Usage: "enforce every executable below `DIR`, learned or not; may be repeated"},
			vsockFlag(),
			&cli.BoolFlag{Name: "wider", Usage: "enforce more widely than was learned"},
			&cli.BoolFlag{Name: "untried", Usage: "take an agent of another host, on which enforcing cannot be tried"},
			&cli.StringFlag{Name: policyDirFlag, Usage: "keep the policies in `DIR` as well, from which a Tetragon loads them when it is restarted (by itself it has /etc/tetragon/tetragon.tp.d); stays so until it is given as ''"},
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
	if program := agent.Executable(); program != "" {
		e.option.AgentPaths = []string{program}
	}
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
	o.Dir = c.String(policyDirFlag)
	if g != nil && g.Agent == agent.Address && !c.IsSet(policyDirFlag) {
		o.Dir = g.Dir
	}
	if c.Bool("watch") && enforcer.Unchanged(o, g) {
		fmt.Printf("generation %d lists that already\n", g.N)
		return nil
	}
	if err := confirm(c.Context, e.yes, "Apply this plan?"); err != nil {
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
