package main

import (
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"

	"profile/enforcer"
	"profile/store"
)

func explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "tell the whole story of one executable, process or script",
		UsageText: "profile [--db PATH] explain [flags] EXECUTABLE|PID|SCRIPT",
		Description: "What it is, every session in which it ran, what it opened, its verdict, and what would\n" +
			"change it. Without flags under the thresholds of what is in force, if anything is.",
		Flags:  thresholdFlags(),
		Action: tellStory,
	}
}

func tellStory(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("explain takes one argument: an executable, the number of a process, or a script")
	}
	t, err := thresholds(c)
	if err != nil {
		return err
	}
	given := c.IsSet("min-runs") || c.IsSet("min-watch") || c.IsSet("since") || c.IsSet("accept-gaps")
	path, err := dbPath(c)
	if err != nil {
		return err
	}
	st, err := store.Open(path)
	if err != nil {
		return err
	}
	var story []enforcer.Chapter
	err = st.View(c.Context, func(tx *store.Tx) (err error) {
		story, err = enforcer.Explain(c.Context, tx, c.Args().First(), enforcer.ExplainOptions{Thresholds: t, Given: given})
		return err
	})
	if err != nil {
		return err
	}
	var text strings.Builder
	for i, chapter := range story {
		if i > 0 {
			text.WriteString("\n")
		}
		fmt.Fprintln(&text, showLine(chapter.Title))
		for _, line := range chapter.Lines {
			fmt.Fprintf(&text, "  %s\n", showLine(line))
		}
	}
	_, err = os.Stdout.WriteString(text.String())
	return err
}

// showLine keeps what was learned from reaching the terminal as anything but
// text: what turns its direction around, or is not to be seen, neither.
func showLine(line string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, line)
}
