package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
	"profile/internal/tetragon"
	"profile/store"
)

// followEvery is how often status --follow looks.
const followEvery = time.Second

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:        "status",
		Usage:       "show what is in force, since when, and what it killed",
		UsageText:   "profile [--db PATH] status [-o json] [--follow] [--agent ADDRESS]",
		Description: "Fails if what was applied is no longer in force.",
		Flags: []cli.Flag{
			outputFlag("json"),
			inForceFlag(), insecureFlag(),
			&cli.BoolFlag{Name: "follow", Usage: "go on, and print each change"},
		},
		Action: showStatus,
	}
}

func showStatus(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	form, err := output(c, "json")
	if err != nil {
		return err
	}
	st, agent, err := openInForce(c)
	if err != nil {
		return err
	}
	if agent != nil {
		defer func() { err = errors.Join(err, agent.Close()) }()
	}
	if c.Bool("follow") {
		return follow(c.Context, st, agent, form)
	}
	text, drift, err := statusText(c.Context, st, agent, form)
	if text != "" {
		if _, err := io.WriteString(os.Stdout, text); err != nil {
			return err
		}
	}
	return errors.Join(drift, err)
}

// follow prints the status, and then what changes of it. An agent that counts
// kills only together is listened to meanwhile.
func follow(ctx context.Context, st *store.Store, agent *tetragon.Agent, form string) (err error) {
	record := func(context.Context) error { return nil }
	if agent != nil && !agent.IsSensor() {
		listening, stop := context.WithCancel(ctx)
		ears := enforcer.Listen(listening, agent, st)
		record = ears.Record
		defer func() {
			stop()
			err = errors.Join(err, ears.Close())
		}()
	}
	lines := &changes{w: os.Stdout}
	last := ""
	for {
		if err := record(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		text, drift, err := statusText(ctx, st, agent, form)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case form == "":
			lines.print(text, drift)
		case text != last:
			fmt.Print(text)
		}
		last = text
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

func inForceFlag() cli.Flag {
	return &cli.StringFlag{Name: "agent", Usage: "ask the agent at this `ADDRESS`; without it the one that loaded what is in force"}
}

// openInForce opens the database and the agent of the generation in force,
// unless another is named; of none, the embedded sensor. The agent is nil if
// there is neither.
func openInForce(c *cli.Context) (*store.Store, *tetragon.Agent, error) {
	path, err := dbPath(c)
	if err != nil {
		return nil, nil, err
	}
	st, err := store.Open(path)
	var missing *store.MissingError
	if errors.As(err, &missing) {
		return openOrphaned(c, path, err)
	}
	if err != nil {
		return nil, nil, err
	}
	if c.IsSet("agent") {
		agent, err := connectTo(c, c.String("agent"), path)
		return st, agent, err
	}
	g, err := enforcer.InForce(c.Context, st)
	if err == nil && g == nil && canSense() == nil {
		// Where the database was lost, or put back as it was, something may be
		// pinned all the same. A kernel that the sensor cannot work on has nothing.
		if agent, err := connect(c.Context, tetragon.Embedded, path); err == nil {
			return st, agent, nil
		}
	}
	if err != nil || g == nil {
		return st, nil, err
	}
	agent, err := connect(c.Context, g.Agent, path)
	return st, agent, err
}

// openOrphaned makes the database anew if it is gone and what it had in force is
// not: whoever deleted it must not be left with that. Else the error is the one
// given.
func openOrphaned(c *cli.Context, path string, missing error) (*store.Store, *tetragon.Agent, error) {
	address := tetragon.Embedded
	if c.IsSet("agent") {
		address = c.String("agent")
	} else if canSense() != nil {
		return nil, nil, missing
	}
	agent, err := connectTo(c, address, path)
	if err != nil {
		return nil, nil, errors.Join(missing, err)
	}
	path = resolveDB(path)
	names, err := enforcer.Orphaned(c.Context, agent, path)
	if err == nil && len(names) == 0 {
		err = missing
	}
	var st *store.Store
	if err == nil {
		fmt.Fprintf(os.Stderr, "database %s is gone, and made anew: what it had in force is there still\n", showPath(path))
		st, err = store.Create(path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, agent.Close())
	}
	return st, agent, nil
}

// statusText gives the status in a form, and as drift that what is recorded as
// in force is not. An error beside a text says what could not be recorded.
func statusText(ctx context.Context, st *store.Store, agent *tetragon.Agent, form string) (text string, drift, err error) {
	s, err := enforcer.GetStatus(ctx, agent, st)
	var drifted *enforcer.DriftError
	if errors.As(err, &drifted) {
		drift, err = err, nil
	}
	if s == nil {
		return "", nil, err
	}
	if form == "json" {
		raw, failed := json.Marshal(s)
		return string(raw) + "\n", drift, errors.Join(err, failed)
	}
	return humanStatus(s, drift), drift, err
}

func humanStatus(s *enforcer.Status, drift error) string {
	text := ""
	if drift != nil {
		text = "NOT AS IT WAS LOADED\n"
	}
	if g := s.Recorded; g == nil && s.Stage != enforcer.StageNone {
		text += fmt.Sprintf("nothing is recorded as in force, and yet something is: stage %s\n", s.Stage)
	} else if g == nil {
		text += "nothing is in force\n"
	} else {
		text += fmt.Sprintf("generation %d, stage %s, since %s, agent %s: %s listed", g.N, s.Stage,
			g.Since.Local().Format(time.DateTime), g.Agent, counted(len(g.Paths), "executable"))
		if g.Cgroup != "/" {
			text += ", in cgroup " + showPath(g.Cgroup)
		}
		if text += "\nlast tried "; g.Tried.IsZero() {
			text += "never\n"
		} else {
			text += g.Tried.Local().Format(time.DateTime) + "\n"
		}
	}
	for _, file := range s.Replaced {
		text += "replaced since it was listed, and listed still: " + showPath(file) + "\n"
	}
	if s.Unjudged > 0 {
		text += fmt.Sprintf("could not be judged, for want of memory in the kernel, and was opened all the same: %s\n", counted(int(s.Unjudged), "socket"))
	}
	text += killLines("killed", s.Kills) + killLines("would have been killed", s.WouldKill)
	if s.Restarted {
		text += "these counts are at least so many: an agent was restarted, and what it did after it was last asked is not told\n"
	}
	return text
}

func killLines(what string, kills []enforcer.KillRow) string {
	text := ""
	for _, k := range kills {
		path := showPath(k.Path)
		if k.Path == "" {
			path = "which executables was not heard"
		}
		last := ""
		if !k.Last.IsZero() {
			last = ", last " + k.Last.Local().Format(time.DateTime)
		}
		text += fmt.Sprintf("%s ×%d%s: %s\n", what, k.Count, last, path)
	}
	return text
}
