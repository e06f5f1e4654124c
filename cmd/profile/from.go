package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"profile/profiler"
	"profile/store"
)

// learnFrom learns from recorded events: no agent is asked, and root is not
// needed.
func learnFrom(c *cli.Context) error {
	files := c.StringSlice("from")
	slices.Sort(files)
	if len(slices.Compact(slices.Clone(files))) != len(files) {
		return usagef("--from names a file twice")
	}
	path, err := dbPath(c)
	if err != nil {
		return err
	}
	st, err := store.Create(path)
	if err != nil {
		return err
	}
	shown := newProgress(os.Stderr)
	session, err := profiler.LearnRecord(c.Context, profiler.RecordOptions{
		Store: st, Files: files, Stdin: input{c.Context},
		Only: c.StringSlice("only"), KeepArgs: c.Bool("keep-args"),
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Progress: shown.read,
	})
	shown.end()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "learned from a record of %s; %s; profile report shows it\n",
		session.Ended.Sub(session.Started).Round(time.Second), counted(len(session.Gaps), "gap"))
	if session.NoSocketHook {
		fmt.Fprintln(os.Stderr, "the record has no event of the hook security_socket_create, so that nothing in it is proven")
	}
	return nil
}
