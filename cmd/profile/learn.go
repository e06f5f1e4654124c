package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"profile/internal/canary"
	"profile/internal/cgroup"
	"profile/profiler"
	"profile/store"
)

func learnCommand() *cli.Command {
	return &cli.Command{
		Name:      "learn",
		Usage:     "record which programs start, and which open network sockets",
		UsageText: "profile [--db PATH] learn [--for 1d] [--cgroup PATH] [--only GLOB]…",
		Description: "Until --for is over, or Ctrl-C. Nothing is killed or refused while learning.\n" +
			"Learning again into the same database adds to it.",
		Flags: []cli.Flag{
			durationFlag("for", "learn for `D`, such as 8h, 1d or 1w; without it until Ctrl-C", 0),
			agentFlag("auto"),
			&cli.StringFlag{Name: "cgroup", Usage: "learn only inside this cgroup2 subtree, a directory or a `PATH` of the hierarchy"},
			&cli.StringSliceFlag{Name: "only", Usage: "learn only executables that match `GLOB` (* stays within a directory, ** does not); may be repeated"},
			&cli.BoolFlag{Name: "keep-args", Usage: "store arguments of programs, which may hold secrets"},
		},
		Action: learn,
	}
}

func agentFlag(value string) cli.Flag {
	return &cli.StringFlag{Name: "agent", Usage: "the agent: auto, embedded, or the `ADDRESS` of one", Value: value}
}

func findCgroup(c *cli.Context) (cgroup.Group, error) {
	if !c.IsSet("cgroup") {
		return cgroup.Root()
	}
	return cgroup.Find(c.String("cgroup"))
}

func learn(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.IsSet("for") && getDuration(c, "for") == 0 {
		return usagef("--for needs a duration longer than 0, such as 1d")
	}
	if err := checkGlobs("only", c.StringSlice("only")); err != nil {
		return err
	}
	path, err := dbPath(c)
	if err != nil {
		return err
	}
	group, err := findCgroup(c)
	if err != nil {
		return err
	}
	st, err := store.Create(path)
	if err != nil {
		return err
	}
	dir, err := canary.Dir(path)
	if err != nil {
		return err
	}
	agent, err := connect(c.Context, c.String("agent"), path)
	if err != nil {
		return err
	}
	shown := newProgress(os.Stderr)
	session, err := profiler.Learn(c.Context, profiler.Options{
		Agent: agent, Store: st, Group: group, Only: c.StringSlice("only"), For: getDuration(c, "for"),
		KeepArgs: c.Bool("keep-args"), CanaryDir: dir,
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Opened: shown.opened, Progress: shown.show,
	})
	shown.end()
	err = errors.Join(err, agent.Close())
	if session != nil && !session.Ended.IsZero() {
		fmt.Fprintf(os.Stderr, "learned for %s (%s); %d gaps; profile report shows it\n",
			session.Awake.Round(time.Second), session.End, len(session.Gaps))
	}
	return err
}
