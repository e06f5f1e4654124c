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
		UsageText:   "profile [--db PATH] status [-o json] [--follow]",
		Description: "Fails if what was applied is no longer in force.",
		Flags: []cli.Flag{
			outputFlag("json"),
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
	var last string
	for {
		text, broken, err := statusText(c.Context, st, agent, form)
		if err != nil {
			return err
		}
		if text != last {
			if _, err := io.WriteString(os.Stdout, text); err != nil {
				return err
			}
			last = text
		}
		if !c.Bool("follow") {
			return broken
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// openInForce opens the database and the agent of the generation in force.
// The agent is nil if there is none.
func openInForce(c *cli.Context) (*store.Store, *tetragon.Agent, error) {
	path, err := dbPath(c)
	if err != nil {
		return nil, nil, err
	}
	st, err := store.Open(path)
	if err != nil {
		return nil, nil, err
	}
	address, err := enforcer.AgentInForce(c.Context, st)
	if err != nil {
		return nil, nil, err
	}
	if address == "" {
		return st, nil, nil
	}
	agent, err := connect(c.Context, address, path)
	return st, agent, err
}

// statusText gives the status in a form, and an error if what is recorded as
// in force is not.
func statusText(ctx context.Context, st *store.Store, agent *tetragon.Agent, form string) (string, error, error) {
	s, err := enforcer.ReadStatus(ctx, agent, st)
	if err != nil {
		return "", nil, err
	}
	var broken error
	if s.Problem != "" {
		broken = errors.New(s.Problem)
	}
	if form == "json" {
		text, err := json.Marshal(s)
		return string(text) + "\n", broken, err
	}
	return humanStatus(s), broken, nil
}

func humanStatus(s *enforcer.Status) string {
	if s.Stage == enforcer.StageNone {
		return "nothing is in force\n"
	}
	text := fmt.Sprintf("generation %d is in force: stage %s, since %s, by agent %s, %d executables listed",
		s.Generation, s.Stage, s.Since.Local().Format(time.DateTime), s.Agent, s.Listed)
	if s.Cgroup != "/" {
		text += ", in cgroup " + showPath(s.Cgroup)
	}
	text += "\n"
	if s.Tried.IsZero() {
		text += "it was never tried\n"
	} else {
		text += "last tried " + s.Tried.Local().Format(time.DateTime) + "\n"
	}
	text += killLines("killed", s.Kills) + killLines("would have been killed", s.WouldKill)
	if s.Problem != "" {
		text += "NOT IN FORCE: " + s.Problem + "\n"
	}
	return text
}

func killLines(what string, kills []enforcer.KillRow) string {
	text := ""
	for _, k := range kills {
		path := showPath(k.Path)
		if k.Path == "" {
			path = "some executable (this agent does not tell which)"
		}
		text += fmt.Sprintf("%s ×%d, last %s: %s\n", what, k.Count, k.Last.Local().Format(time.DateTime), path)
	}
	return text
}
