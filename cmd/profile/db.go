package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"profile/store"
)

func dbCommand() *cli.Command {
	return &cli.Command{
		Name:      "db",
		Usage:     "check, compact or prune the database",
		UsageText: "profile [--db PATH] db check|compact|prune --older-than D",
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "read all of it, and fail if anything is wrong",
				UsageText: "profile [--db PATH] db check", Action: checkDB,
			},
			{
				Name: "compact", Usage: "write it anew without what it no longer uses",
				UsageText: "profile [--db PATH] db compact", Action: compactDB,
			},
			{
				Name: "prune", Usage: "delete old sessions with all that was learned in them",
				UsageText:   "profile [--db PATH] db prune --older-than D",
				Description: "What used the network only then is no longer known to. Generations stay, with what they killed.",
				Flags:       []cli.Flag{&cli.StringFlag{Name: "older-than", Usage: "delete sessions that ended before `TIME`: 2026-01-31, 2026-01-31T08:00:00Z, or a duration such as 30d ago"}},
				Action:      pruneDB,
			},
		},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usagef("there is no command %q of db: it has check, compact and prune", name)
			}
			return usagef("say what to do with the database: check, compact or prune")
		},
	}
}

func openDB(c *cli.Context) (*store.Store, error) {
	if err := noArgs(c); err != nil {
		return nil, err
	}
	path, err := dbPath(c)
	if err != nil {
		return nil, err
	}
	return store.Open(path)
}

func checkDB(c *cli.Context) error {
	st, err := openDB(c)
	if err != nil {
		return err
	}
	h, err := st.Check(c.Context)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, fault := range h.Faults {
		fmt.Fprintln(&text, fault)
	}
	fmt.Fprintf(&text, "%s in %s of evidence, %s, %s\n", counted(h.Executables, "executable"), counted(h.Evidence, "row"),
		counted(h.Sessions, "session"), counted(h.Generations, "generation"))
	if len(h.Faults) > 0 {
		err = fmt.Errorf("database %s is damaged", st.Path())
	} else {
		fmt.Fprintf(&text, "%s, of which %s is not used; nothing is wrong\n", humanize.IBytes(uint64(h.Bytes)), humanize.IBytes(uint64(h.Free)))
	}
	_, untold := os.Stdout.WriteString(text.String())
	return errors.Join(err, untold)
}

func compactDB(c *cli.Context) error {
	st, err := openDB(c)
	if err != nil {
		return err
	}
	before, after, err := st.Compact(c.Context)
	if err != nil {
		return err
	}
	fmt.Printf("%s before, %s now\n", humanize.IBytes(uint64(before)), humanize.IBytes(uint64(after)))
	return nil
}

func pruneDB(c *cli.Context) error {
	if !c.IsSet("older-than") {
		return usagef("prune needs --older-than, such as --older-than 90d")
	}
	before, err := moment(c.String("older-than"))
	if err != nil {
		return err
	}
	st, err := openDB(c)
	if err != nil {
		return err
	}
	sessions, rows, err := st.Prune(c.Context, before)
	if err != nil {
		return err
	}
	fmt.Printf("deleted %s and %s of evidence", counted(sessions, "session"), counted(rows, "row"))
	if rows > 0 {
		fmt.Print("; profile db compact gives the room back")
	}
	fmt.Println()
	return nil
}
