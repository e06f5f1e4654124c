package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
	"profile/internal/canary"
	"profile/internal/tetragon"
	"profile/store"
)

func releaseCommand() *cli.Command {
	return &cli.Command{
		Name:        "release",
		Usage:       "take off what is in force",
		UsageText:   "profile [--db PATH] release [--yes] [--agent ADDRESS]",
		Description: "Leaves nothing behind in the kernel. What was learned stays.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "yes", Usage: "release without asking"}, inForceFlag(), insecureFlag()},
		Action:      release,
	}
}

func release(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
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
	if err := confirm(c.Bool("yes"), "Release what is in force? Listed executables may use the network again."); err != nil {
		return err
	}
	names, err := enforcer.Release(c.Context, agent, st)
	for _, name := range names {
		fmt.Printf("released policy %s\n", name)
	}
	if err != nil {
		return err
	}
	if len(names) == 0 {
		fmt.Println("nothing was in force")
	}
	clearGroups()
	return clearCanaries(st)
}

// clearCanaries removes what a killed learner left; a live one keeps its own.
func clearCanaries(st *store.Store) error {
	lock, err := st.LockLearn()
	if err != nil {
		var held *store.HeldError
		if errors.As(err, &held) {
			return nil
		}
		return err
	}
	return errors.Join(canary.Clear(st.Path()), lock.Release())
}
