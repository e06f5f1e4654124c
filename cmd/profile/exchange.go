package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
	"profile/internal/export"
	"profile/store"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:        "export",
		Usage:       "write what was learned as YAML, for other machines and for version control",
		UsageText:   "profile [--db PATH] export >FILE",
		Description: "Sorted, a fact a line, without arguments of programs. profile import reads it.",
		Action: func(c *cli.Context) error {
			st, err := openDB(c)
			if err != nil {
				return err
			}
			x, err := exportOf(c.Context, st)
			if err != nil {
				return err
			}
			return x.Write(os.Stdout)
		},
	}
}

func exportOf(ctx context.Context, st *store.Store) (x *export.Export, err error) {
	err = st.View(ctx, func(tx *store.Tx) (err error) {
		x, err = export.Of(tx)
		return err
	})
	return x, err
}

func importCommand() *cli.Command {
	return &cli.Command{
		Name:        "import",
		Usage:       "add exports to the database",
		UsageText:   "profile [--db PATH] import FILE… (- is standard input)",
		Description: "A session that is there already is not counted twice.",
		Action: func(c *cli.Context) error {
			return bringIn(c, "an export", func(name string) (*export.Export, error) { return readExport(c.Context, name) })
		},
	}
}

func mergeCommand() *cli.Command {
	return &cli.Command{
		Name:        "merge",
		Usage:       "add what other databases learned to the database",
		UsageText:   "profile [--db PATH] merge DATABASE…",
		Description: "A session that is there already is not counted twice. What the others enforced stays theirs.",
		Action: func(c *cli.Context) error {
			return bringIn(c, "a database", func(name string) (*export.Export, error) {
				other, err := store.Open(name)
				if err != nil {
					return nil, err
				}
				return exportOf(c.Context, other)
			})
		},
	}
}

// bringIn reads all that is named before it writes any of it, at once.
func bringIn(c *cli.Context, what string, read func(string) (*export.Export, error)) error {
	if c.NArg() == 0 {
		return usagef("%s needs the name of %s", c.Command.Name, what)
	}
	all := new(export.Export)
	for _, name := range c.Args().Slice() {
		x, err := read(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = export.Merge(all, x)
	}
	path, err := dbPath(c)
	if err != nil {
		return err
	}
	st, err := store.Create(path)
	if err != nil {
		return err
	}
	known := 0
	err = st.Update(c.Context, func(tx *store.Tx) (err error) {
		if known, err = countKnown(tx, all.Sessions); err != nil {
			return err
		}
		return all.Into(tx)
	})
	if err != nil {
		return err
	}
	there := ""
	if known > 0 {
		there = fmt.Sprintf("; %d of the sessions known already, and counted once", known)
	}
	fmt.Printf("brought into %s: %s and %s of evidence%s\n", st.Path(), counted(len(all.Sessions), "session"), counted(len(all.Evidence), "row"), there)
	return nil
}

// countKnown counts the sessions that the database has.
func countKnown(tx *store.Tx, sessions []store.Session) (int, error) {
	ours, err := tx.Sessions()
	if err != nil {
		return 0, err
	}
	has := map[string]bool{}
	for _, s := range ours {
		has[s.ID] = true
	}
	known := 0
	for _, s := range sessions {
		if has[s.ID] {
			known++
		}
	}
	return known, nil
}

func readExport(ctx context.Context, name string) (*export.Export, error) {
	if name == "-" {
		return export.Read(input{ctx})
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return export.Read(f)
}

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show what appeared, went, or changed its verdict or file, from A to B",
		UsageText: "profile [--db PATH] diff [flags] A B",
		Description: "A and B are databases, exports, or times: a time stands for what the database knew then,\n" +
			"from the sessions that had ended. So diff 7d 0s is the last week.",
		Flags:  append(thresholdFlags(), outputFlag("json")),
		Action: showDiff,
	}
}

func showDiff(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef("diff takes two arguments, each a database, an export or a time")
	}
	form, err := output(c, "json")
	if err != nil {
		return err
	}
	t, err := thresholds(c)
	if err != nil {
		return err
	}
	var sides [2]enforcer.Known
	ours := sync.OnceValues(func() (*export.Export, error) { // for both sides
		path, err := dbPath(c)
		if err != nil {
			return nil, err
		}
		return exportOfFile(c.Context, path)
	})
	for i, name := range c.Args().Slice() {
		x, until, err := openSide(c, name, ours)
		if err == nil {
			sides[i], err = enforcer.WhatIsKnown(x.Sessions, x.Evidence, until, t)
		}
		if err != nil {
			return err
		}
	}
	changes := enforcer.Diff(sides[0], sides[1])
	if form == "json" {
		return json.NewEncoder(os.Stdout).Encode(struct {
			Schema  int               `json:"schema"`
			Changes []enforcer.Change `json:"changes"`
		}{enforcer.Schema, changes})
	}
	if len(changes) == 0 {
		fmt.Fprintln(os.Stderr, "nothing changed")
		return nil
	}
	var text bytes.Buffer
	sheet := newTable(&text, "executable", "what", "from", "to")
	for _, one := range changes {
		path := showWhole(one.Path, one.PathBase64)
		if one.Scope != store.HostScope {
			path += " in " + showPath(one.Scope)
		}
		sheet.row(path, one.What, one.From, one.To)
	}
	sheet.print()
	_, err = text.WriteTo(os.Stdout)
	return err
}

// openSide reads a side of a diff, and up to when it counts. Ours is the database
// of the command.
func openSide(c *cli.Context, name string, ours func() (*export.Export, error)) (*export.Export, time.Time, error) {
	if _, err := os.Stat(name); err != nil {
		until, err := moment(name)
		if err != nil {
			return nil, until, usagef("%q is neither a database, nor an export, nor a time", name)
		}
		x, err := ours()
		return x, until, err
	}
	x, err := exportOfFile(c.Context, name)
	if errors.Is(err, store.ErrNotDatabase) {
		if x, err = readExport(c.Context, name); err != nil {
			err = fmt.Errorf("%s is no database, nor is it an export: %w", name, err)
		}
	}
	return x, time.Time{}, err
}

func exportOfFile(ctx context.Context, name string) (*export.Export, error) {
	st, err := store.Open(name)
	if err != nil {
		return nil, err
	}
	return exportOf(ctx, st)
}

// failOnNew fails if a session saw network use that an export does not know.
func failOnNew(ctx context.Context, st *store.Store, session *store.Session, known *export.Export) error {
	if session.NoSocketHook || len(session.Windows) == 0 || len(session.Gaps) > 0 {
		return fmt.Errorf("whether the command used the network anew cannot be said: observations of session %s were lost", session.ID)
	}
	now, err := exportOf(ctx, st)
	if err != nil {
		return err
	}
	if users := enforcer.NewUsers(session.ID, now.Evidence, known.Evidence); len(users) > 0 {
		return fmt.Errorf("the command used the network from %s, unlike what the export knows", quoteAll(users))
	}
	return nil
}
