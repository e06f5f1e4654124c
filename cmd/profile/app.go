package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const defaultDB = "/var/lib/profile/profile.db"

func newApp() *cli.App {
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}
	app := &cli.App{
		Name:  "profile",
		Usage: "take the network from programs that never needed it",
		Description: "Learn for a day which programs start and which of them open network sockets,\n" +
			"read the report, and have the kernel kill every quiet one that opens one.\n\n" +
			"   profile learn --for 1d\n   profile report\n   profile enforce --monitor\n   profile enforce",
		Version:                   version,
		UsageText:                 "profile [--db PATH] COMMAND [flags] [arguments]\n\nFlags of a command stand before its arguments.",
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "db", Usage: "the database of what was learned and enforced, at `PATH`", Value: defaultDB, TakesFile: true},
		},
		Commands: []*cli.Command{learnCommand(), reportCommand(), explainCommand(), enforceCommand(), statusCommand(), releaseCommand(), exportCommand(), importCommand(), mergeCommand(), diffCommand(), dbCommand(), agentCommand()},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usagef("there is no command %q: profile --help lists them", name)
			}
			c.App.Writer = c.App.ErrWriter
			_ = cli.ShowAppHelp(c)
			return usagef("say a command")
		},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		// Errors are printed, and exit codes given, in one place: main.
		ExitErrHandler: func(*cli.Context, error) {},
		Writer:         os.Stdout,
		ErrWriter:      os.Stderr,
	}
	finish(app.Commands, app.OnUsageError)
	return app
}

// finish says of every command what holds for all.
func finish(commands []*cli.Command, onUsageError cli.OnUsageErrorFunc) {
	for _, cmd := range commands {
		cmd.OnUsageError = onUsageError
		cmd.HideHelpCommand = true
		cmd.UseShortOptionHandling = false
		for _, flag := range cmd.Flags {
			if b, ok := flag.(*cli.BoolFlag); ok {
				b.DisableDefaultText = true // it is false
			}
		}
		if len(cmd.Subcommands) == 0 {
			cmd.Before = checkCall // what stands behind others are theirs
		}
		finish(cmd.Subcommands, onUsageError)
	}
}

// version is what is built; the commit is in the binary's build information.
const version = "0.1.0"

// checkCall refuses what a command must not be called with, whichever it is.
func checkCall(c *cli.Context) error {
	if err := checkEmpty(c); err != nil {
		return err
	}
	return checkArgs(c)
}

// checkEmpty refuses names that are empty, as an unset variable's is: of a file,
// that would be the directory one is in.
func checkEmpty(c *cli.Context) error {
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		empty := slices.Contains(c.StringSlice(name), "")
		if _, ok := flag.(*cli.StringFlag); ok && name != policyDirFlag {
			empty = c.IsSet(name) && c.String(name) == ""
		}
		if empty {
			return usagef("the flag %s is empty, and names nothing", name)
		}
	}
	// An argument of a command that is learned may be empty.
	if c.Command.Name != "learn" && slices.Contains(c.Args().Slice(), "") {
		return usagef("an argument of %s is empty, and names nothing", c.Command.Name)
	}
	return nil
}

// checkArgs refuses an argument that looks like a flag: behind the first
// argument the library takes flags for arguments, and would ignore them.
func checkArgs(c *cli.Context) error {
	args := c.Args().Slice()
	free := 0
	if i := slices.Index(os.Args, "--"); i >= 0 {
		free = len(os.Args) - i - 1
	}
	for _, a := range args[:max(0, len(args)-free)] {
		stdin := a == "-" && c.Command.Name == "import"
		if strings.HasPrefix(a, "-") && !stdin {
			return usagef("%q stands behind an argument: flags of %s stand before its arguments, and an argument that begins with '-' behind --", a, c.Command.Name)
		}
	}
	return nil
}

func noArgs(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("%s takes no arguments, and %q is one", c.Command.Name, c.Args().First())
	}
	return nil
}

// dbPath is the database's path, absolute: its name stands for what is in force.
func dbPath(c *cli.Context) (string, error) {
	path := c.String("db")
	if path == "" {
		return "", usagef("--db needs a path")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find database %q: %w", path, err)
	}
	return abs, nil
}

func outputFlag(forms ...string) cli.Flag {
	return &cli.StringFlag{Name: "o", Usage: "print as `FORM`: " + strings.Join(forms, ", ")}
}

func output(c *cli.Context, forms ...string) (string, error) {
	o := c.String("o")
	if o != "" && !slices.Contains(forms, o) {
		return "", usagef("-o %q: it is one of %s", o, strings.Join(forms, ", "))
	}
	return o, nil
}
