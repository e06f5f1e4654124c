package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
	"profile/internal/sensor"
	"profile/internal/tetragon"
	"profile/store"
)

// releaseGone records what is in force as ended, by the word of a person that
// its agent is gone for good.
func releaseGone(c *cli.Context) error {
	if c.IsSet("agent") || c.IsSet("insecure") {
		return usagef("--gone is for an agent that no longer is: there is none to ask")
	}
	st, err := openDB(c)
	if err != nil {
		return err
	}
	g, err := enforcer.InForce(c.Context, st)
	if err != nil {
		return err
	}
	if g == nil {
		fmt.Println("nothing was in force")
		return nil
	}
	if err := checkGone(c.Context, st, g); err != nil {
		return err
	}
	question := fmt.Sprintf("Record as ended what agent %s had in force? If it was killed, and not stopped, that acts until the machine is restarted.", g.Agent)
	if err := confirm(c.Context, c.Bool("yes"), question); err != nil {
		return err
	}
	ended, err := enforcer.Gone(c.Context, st, g.Agent)
	for _, n := range ended {
		fmt.Printf("generation %d is recorded as ended; agent %s was not asked\n", n, g.Agent)
	}
	if len(ended) > 0 && g.Dir != "" && err != nil {
		return fmt.Errorf("what is kept in the policy directory %s may be there still: %w", g.Dir, err)
	}
	return err
}

// checkGone gives an error if the agent of a generation answers, or what it
// loaded is here all the same.
func checkGone(ctx context.Context, st *store.Store, g *store.Generation) error {
	if g.Agent == tetragon.Embedded {
		return enforcer.ErrEmbeddedThere
	}
	if a, err := connect(ctx, g.Agent, st.Path()); err == nil {
		return errors.Join(&enforcer.StillThereError{Agent: g.Agent, Why: "it answers"}, a.Close())
	}
	if ctx.Err() != nil || tetragon.CheckAddress(g.Agent, false) != nil {
		return ctx.Err() // it was of another machine
	}
	here, err := agentsHere(ctx)
	for _, a := range here {
		err = errors.Join(err, enforcer.CheckGone(ctx, a, g), a.Close())
	}
	return err
}

// agentsHere are those of this machine that could have taken over from another
// at another address: its Tetragon, and the sensor of `profile agent`, of which
// the kernel has what it loaded also when it has ended.
func agentsHere(ctx context.Context) (here []*tetragon.Agent, err error) {
	if a := localTetragon(ctx); a != nil {
		here = append(here, a)
	}
	switch err := canSense(); {
	case errors.Is(err, errNoBTF):
		return here, nil // nor could a sensor have been here
	case err != nil:
		return here, err
	}
	conn := sensor.NewServer(sensor.Config{Name: agentPins}).Local()
	a, err := tetragon.Connect(ctx, tetragon.Embedded, conn, conn.Close)
	if err != nil {
		return here, errors.Join(err, conn.Close())
	}
	return append(here, a), nil
}
