package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"profile/internal/canary"
	"profile/internal/cgroup"
	"profile/internal/export"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

func learnCommand() *cli.Command {
	return &cli.Command{
		Name:  "learn",
		Usage: "record which programs start, and which open network sockets",
		UsageText: "profile [--db PATH] learn [--for 1d] [--cgroup PATH] [--only GLOB]… [-- COMMAND…]\n" +
			"profile [--db PATH] learn --from FILE… [--only GLOB]…",
		Description: "Until --for is over, or Ctrl-C. Nothing is killed or refused while learning.\n" +
			"Learning again into the same database adds to it. With a COMMAND that is run in a cgroup\n" +
			"of its own, learned alone, and its exit code passed on.",
		Flags: []cli.Flag{
			durationFlag("for", "learn for `D`, such as 8h, 1d or 1w; without it until Ctrl-C", 0),
			agentFlag("auto"),
			insecureFlag(),
			&cli.StringFlag{Name: "metrics", Usage: "the `URL` of a Tetragon's metrics, which count what it loses, such as http://localhost:2112/metrics"},
			&cli.StringFlag{Name: "cgroup", Usage: "learn only inside this cgroup2 subtree, a directory or a `PATH` of the hierarchy"},
			&cli.StringSliceFlag{Name: "only", Usage: "learn only executables that match `GLOB` (* stays within a directory, ** does not); may be repeated"},
			vsockFlag(),
			&cli.StringFlag{Name: "fail-on-new", Usage: "fail, naming them, if the command used the network from executables that `EXPORT` does not know to (see export)"},
			&cli.BoolFlag{Name: "keep-args", Usage: "store arguments of programs, which may hold secrets; explain shows them, and export leaves them out"},
			&cli.StringSliceFlag{Name: "from", Usage: "read the events that a Tetragon recorded in `FILE` instead (its JSON export, gzipped or not; - is standard input); may be repeated"},
		},
		Action: learn,
	}
}

func agentFlag(value string) cli.Flag {
	return &cli.StringFlag{Name: "agent", Usage: "the agent: auto, embedded, or the `ADDRESS` of one", Value: value}
}

func vsockFlag() cli.Flag {
	return &cli.BoolFlag{Name: "vsock", Usage: "include AF_VSOCK, where the sensor's hook does not: that costs every system call of the machine some 50 ns, and misses int 0x80 and io_uring"}
}

// watchVsock does as --vsock says, and says what it costs.
func watchVsock(c *cli.Context, agent *tetragon.Agent) {
	if c.Bool("vsock") && agent.WatchVsock() {
		fmt.Fprintln(os.Stderr, "AF_VSOCK is included: every system call of the machine takes some 50 ns longer")
	}
}

func findCgroup(c *cli.Context) (cgroup.Group, error) {
	if !c.IsSet("cgroup") {
		return cgroup.Root()
	}
	return cgroup.Find(c.String("cgroup"))
}

func learn(c *cli.Context) error {
	if err := checkLearn(c); err != nil {
		return err
	}
	if c.IsSet("from") {
		return learnFrom(c)
	}
	clearGroups()
	if c.NArg() == 0 {
		group, err := findCgroup(c)
		if err != nil {
			return err
		}
		shown := newProgress(os.Stderr)
		return learnIn(c, c.Context, group, shown.opened, shown)
	}
	if err := canSense(); err != nil {
		return err
	}
	command, err := newCommand(c.Args().Slice())
	if err != nil {
		return err
	}
	// Until the command runs a signal ends learning; from then on only the
	// command's own end does.
	ctx, end := context.WithCancelCause(context.WithoutCancel(c.Context))
	defer end(nil)
	stop := context.AfterFunc(c.Context, func() { end(nil) })
	shown := newProgress(os.Stderr)
	err = learnIn(c, ctx, command.group.Group, func(at time.Time) {
		shown.opened(at)
		if stop() {
			command.start(func() { end(profiler.ErrCommandEnded) })
		}
	}, nil)
	if err != nil {
		return errors.Join(err, command.wait())
	}
	return command.wait()
}

func checkLearn(c *cli.Context) error {
	if c.IsSet("for") && getDuration(c, "for") == 0 {
		return usagef("--for needs a duration longer than 0, such as 1d")
	}
	if c.NArg() > 0 && !slices.Contains(os.Args, "--") {
		return usagef("learn takes no argument %q: a command to learn stands behind --", c.Args().First())
	}
	// A variable that is empty must not make it the whole machine.
	if c.NArg() == 0 && os.Args[len(os.Args)-1] == "--" {
		return usagef("a command to learn stands behind --, and there is none")
	}
	if c.NArg() > 0 && c.IsSet("cgroup") {
		return usagef("--cgroup does not go with a command, which gets a cgroup of its own")
	}
	if text := c.String("metrics"); c.IsSet("metrics") {
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return usagef("--metrics %q is no URL such as http://localhost:2112/metrics", text)
		}
	}
	if c.IsSet("from") {
		for _, other := range []string{"for", "agent", "cgroup", "metrics", "insecure"} {
			if c.IsSet(other) {
				return usagef("--%s does not go with --from, which reads what was recorded", other)
			}
		}
		if c.NArg() > 0 {
			return usagef("a command does not go with --from, which reads what was recorded")
		}
	}
	if c.IsSet("fail-on-new") && c.NArg() == 0 {
		return usagef("--fail-on-new goes with a command, as in learn --fail-on-new EXPORT -- make")
	}
	return checkOnly(c)
}

// learnIn learns in a cgroup. With a command there is no progress: the
// terminal is the command's.
func learnIn(c *cli.Context, ctx context.Context, group cgroup.Group, opened func(time.Time), shown *progress) (err error) {
	path, err := dbPath(c)
	if err != nil {
		return err
	}
	var known *export.Export
	if c.IsSet("fail-on-new") {
		if known, err = readExport(ctx, c.String("fail-on-new")); err != nil {
			return err
		}
	}
	// Nothing is attached yet, and without an agent no database is made.
	agent, err := connectTo(c, c.String("agent"), path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.Close()) }()
	st, err := store.Create(path)
	if err != nil {
		return err
	}
	dir := ""
	if agent.OnThisHost() {
		if dir, err = canary.Dir(path); err != nil {
			return err
		}
		defer os.Remove(dir) // an enforce may have its canaries there: then it stays
	}
	watchVsock(c, agent)
	o := profiler.Options{
		Agent: agent, Store: st, Group: group, Only: c.StringSlice("only"), For: getDuration(c, "for"),
		KeepArgs: c.Bool("keep-args"), CanaryDir: dir, Metrics: c.String("metrics"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Opened: opened,
	}
	if shown != nil {
		o.Progress = shown.show
	}
	session, err := profiler.Learn(ctx, o)
	if shown != nil {
		shown.end()
	}
	if session != nil && !session.Ended.IsZero() && (err == nil || len(session.Windows) > 0) {
		fmt.Fprintf(os.Stderr, "learned for %s (%s); %s; profile report shows it\n",
			aboutSeconds(session.Awake), unwrapped(session.End), counted(len(session.Gaps), "gap"))
	}
	if err == nil && known != nil {
		err = failOnNew(context.WithoutCancel(ctx), st, session, known)
	}
	return err
}
