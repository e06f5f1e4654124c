package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"profile/internal/sensor"
)

// agentPins is the name of the pins of `profile agent`: it serves any number
// of databases, and is one agent to all of them.
const agentPins = "agent"

func agentCommand() *cli.Command {
	return &cli.Command{
		Name:      "agent",
		Usage:     "serve the embedded sensor at a socket, as an agent for the other commands",
		UsageText: "profile agent --listen unix:///run/profile/agent.sock [--group NAME]",
		Description: "Speaks Tetragon's API, to root alone unless a group is named. Name it to the other\n" +
			"commands with --agent. What they put in force stays when the agent ends.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "listen at `ADDRESS`, a unix socket: unix:///PATH"},
			&cli.StringFlag{Name: "group", Usage: "let members of the group `NAME` connect too"},
		},
		Action: serveAgent,
	}
}

func serveAgent(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	path, ok := strings.CutPrefix(c.String("listen"), "unix://")
	if !ok || !filepath.IsAbs(path) {
		return usagef("--listen %q: it is a unix socket, such as unix:///run/profile/agent.sock", c.String("listen"))
	}
	if err := canSense(); err != nil {
		return err
	}
	node, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find the machine's name: %w", err)
	}
	// Not for others to open: what is in force is locked by /run/profile.
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return fmt.Errorf("make the socket's directory: %w", err)
	}
	lis, err := sensor.Listen(path, c.String("group"), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "listening at unix://%s\n", path)
	return sensor.NewServer(sensor.Config{Name: agentPins, Node: node}).Serve(c.Context, lis)
}
