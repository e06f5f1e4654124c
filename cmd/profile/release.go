package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
	"profile/internal/canary"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

func releaseCommand() *cli.Command {
	return &cli.Command{
		Name:        "release",
		Usage:       "take off what is in force",
		UsageText:   "profile [--db PATH] release [--yes] [--agent ADDRESS | --gone]",
		Description: "Leaves nothing behind in the kernel. What was learned stays.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "yes", Usage: "release without asking"}, inForceFlag(), insecureFlag(),
			&cli.BoolFlag{Name: "gone", Usage: "the agent is gone for good, as a Tetragon that was uninstalled: record what it had in force as ended, without it"},
		},
		Action: release,
	}
}

func release(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.Bool("gone") {
		return releaseGone(c)
	}
	st, agent, err := openInForce(c)
	if err != nil {
		return err
	}
	if agent == nil {
		// A command that was killed may have left something pinned all the same.
		if agent, err = connect(c.Context, tetragon.Embedded, st.Path()); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, agent.Close()) }()
	if err := confirm(c.Context, c.Bool("yes"), "Release what is in force? Listed executables may use the network again."); err != nil {
		return err
	}
	released, err := enforcer.Release(c.Context, agent, st)
	for _, name := range released.Policies {
		fmt.Printf("released policy %s\n", name)
	}
	for _, n := range released.Lost {
		fmt.Printf("generation %d was recorded as in force, but agent %s had none of its policies any more\n", n, agent.Address)
	}
	if err != nil {
		return err
	}
	if len(released.Policies)+len(released.Lost) == 0 {
		fmt.Println("nothing was in force")
	}
	clearGroups()
	return clearLearners(c.Context, st)
}

// clearLearners removes what killed learners left, here and in agents; a live
// one keeps its own.
func clearLearners(ctx context.Context, st *store.Store) error {
	lock, err := st.LockLearn()
	if err != nil {
		var held *store.HeldError
		if errors.As(err, &held) {
			return nil
		}
		return err
	}
	addresses, err := profiler.Abandoned(ctx, st)
	errs := []error{err, canary.Clear(st.Path())}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	for _, address := range addresses {
		agent, err := connect(ctx, address, st.Path())
		if err != nil {
			// One that is gone has nothing loaded.
			log.Warn("a learner was killed, and its audit policies may be loaded still", "agent", address, "error", err)
			continue
		}
		errs = append(errs, profiler.ClearKilled(ctx, agent, st, log), agent.Close())
	}
	return errors.Join(append(errs, lock.Release())...)
}
