package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"profile/enforcer"
	"profile/internal/ability"
	"profile/store"
)

func reportCommand() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "show each executable with its verdict, and why",
		UsageText: "profile [--db PATH] report [-o table|json|yaml] [--verdict V] [--only GLOB]… [EXECUTABLE…]",
		Description: "network: it opened a network socket. quiet: it never did, in complete runs that were\n" +
			"watched without a gap; able: its file could. unproven: all else, with every reason.",
		Flags: append(thresholdFlags(),
			outputFlag("table", "json", "yaml"),
			&cli.StringFlag{Name: "verdict", Usage: "only executables of the verdict `V`: network, quiet or unproven"},
			&cli.StringSliceFlag{Name: "only", Usage: "only executables that match `GLOB`; may be repeated"},
		),
		Action: showReport,
	}
}

// thresholdFlags are those of verdicts, the same wherever one is given.
func thresholdFlags() []cli.Flag {
	return []cli.Flag{
		&cli.Uint64Flag{Name: "min-runs", Usage: "how many complete runs prove an executable quiet: `N`", Value: 1},
		durationFlag("min-watch", "time `D` for which one run still going must have been watched to do so", time.Hour),
		&cli.StringFlag{Name: "since", Usage: "leave out sessions that ended before `TIME`: 2026-01-31, 2026-01-31T08:00:00Z, or how long ago, such as 2d"},
		&cli.BoolFlag{Name: "accept-gaps", Usage: "take the verdicts of runs that no gap is known to have touched"},
	}
}

func thresholds(c *cli.Context) (enforcer.Thresholds, error) {
	t := enforcer.Thresholds{MinRuns: c.Uint64("min-runs"), MinWatch: getDuration(c, "min-watch"), AcceptGaps: c.Bool("accept-gaps")}
	if t.MinRuns == 0 {
		return t, usagef("--min-runs 0 would call quiet what never ran")
	}
	if t.MinWatch == 0 {
		return t, usagef("--min-watch needs a duration longer than 0")
	}
	if c.IsSet("since") {
		var err error
		if t.Since, err = moment(c.String("since")); err != nil {
			return t, err
		}
	}
	return t, nil
}

func checkGlobs(flag string, globs []string) error {
	for _, g := range globs {
		if !doublestar.ValidatePattern(g) {
			return usagef("--%s %q is not a pattern", flag, g)
		}
	}
	return nil
}

// checkOnly refuses what is no pattern, and what could match nothing: who gave
// it would take what is left out for what never ran.
func checkOnly(c *cli.Context) error {
	globs := c.StringSlice("only")
	for _, g := range globs {
		if !strings.ContainsRune(`/*?[{\`, rune(g[0])) {
			return usagef("--only %q matches nothing: what it is compared with begins with /", g)
		}
	}
	return checkGlobs("only", globs)
}

func showReport(c *cli.Context) error {
	form, err := output(c, "table", "json", "yaml")
	if err != nil {
		return err
	}
	if v := c.String("verdict"); v != "" && !slices.Contains([]string{enforcer.Network, enforcer.Quiet, enforcer.Unproven}, v) {
		return usagef("%q is no verdict: it is network, quiet or unproven", v)
	}
	if err := checkOnly(c); err != nil {
		return err
	}
	t, err := thresholds(c)
	if err != nil {
		return err
	}
	path, err := dbPath(c)
	if err != nil {
		return err
	}
	st, err := store.Open(path)
	if err != nil {
		return err
	}
	stdout := newSpool(os.Stdout)
	out := bufio.NewWriterSize(stdout, 64<<10)
	err = st.View(c.Context, func(tx *store.Tx) error {
		r, err := enforcer.NewReport(tx, enforcer.ReportOptions{
			Thresholds: t, Verdict: c.String("verdict"), Only: c.StringSlice("only"), Executables: c.Args().Slice()})
		if err != nil {
			return err
		}
		switch form {
		case "json":
			err = writeJSON(out, r)
		case "yaml":
			err = writeYAML(out, r)
		default:
			err = writeTable(c.Context, out, r)
		}
		if err != nil {
			return err
		}
		if missing := r.Missing(); len(missing) > 0 {
			return fmt.Errorf("nothing is known of %s", quoteAll(missing))
		}
		return nil
	})
	if err == nil {
		err = out.Flush()
	}
	if full := stdout.Close(); err == nil {
		err = full
	}
	return err
}

// writeJSON prints rows as they come, so that a large database begins to print
// at once.
func writeJSON(w *bufio.Writer, r *enforcer.Report) error {
	// Little is in memory at any time, and all of it is soon garbage.
	defer debug.SetGCPercent(debug.SetGCPercent(500))
	fmt.Fprintf(w, "{\"schema\":%d,\"executables\":[", enforcer.Schema)
	sep := "\n"
	for row, err := range r.Rows() {
		if err != nil {
			return err
		}
		w.WriteString(sep)
		text, err := row.AppendJSON(w.AvailableBuffer())
		if err != nil {
			return fmt.Errorf("write the row of %q: %w", row.Path, err)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		if sep == "\n" { // the first row is not to wait for the buffer to fill
			if err := w.Flush(); err != nil {
				return err
			}
		}
		sep = ",\n"
	}
	sessions, err := json.Marshal(r.Sessions())
	if err != nil {
		return err
	}
	families, err := json.Marshal(r.Families())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n],\"sessions\":%s,\"families\":%s}\n", sessions, families)
	return err
}

// writeYAML prints the form that writeJSON does, and row by row like that: the
// library takes some 13 kB of memory for each row that it is given at once.
func writeYAML(w io.Writer, r *enforcer.Report) error {
	fmt.Fprintf(w, "schema: %d\n", enforcer.Schema)
	some := false
	for row, err := range r.Rows() {
		if err != nil {
			return err
		}
		text, err := yamlOf(map[string][]enforcer.Row{"executables": {row}})
		if err != nil {
			return fmt.Errorf("write the row of %q: %w", row.Path, err)
		}
		if some { // it stands below the key of the first
			_, text, _ = bytes.Cut(text, []byte("\n"))
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		some = true
	}
	if !some {
		fmt.Fprintln(w, "executables: []")
	}
	text, err := yamlOf(struct {
		Sessions []enforcer.SessionRow `yaml:"sessions"`
		Families []enforcer.Family     `yaml:"families"`
	}{r.Sessions(), r.Families()})
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func yamlOf(what any) ([]byte, error) {
	var text bytes.Buffer
	enc := yaml.NewEncoder(&text)
	enc.SetIndent(2)
	err := errors.Join(enc.Encode(what), enc.Close())
	return text.Bytes(), err
}

// gapTime is how a gap's ends are shown: a session can take days.
const gapTime = "2006-01-02 15:04:05.000"

func writeTable(ctx context.Context, w io.Writer, r *enforcer.Report) error {
	t := newTable(w, "executable", "verdict", "runs", "network", "started as", "last seen", "why")
	counts := map[string]int{}
	for row, err := range r.Rows() {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		counts[row.Verdict]++
		t.row(showScoped(row), showVerdict(row), showRuns(row.Runs), showUse(row), showEntries(row.Entries),
			row.LastSeen.Local().Format("2006-01-02 15:04:05"), strings.Join(row.Reasons, "; "))
	}
	t.print()
	fmt.Fprintf(w, "%d network, %d quiet, %d unproven\n", counts["network"], counts["quiet"], counts["unproven"])
	for _, f := range r.Families() {
		fmt.Fprintf(w, "family %s (%s): %s, as its members:\n", showPath(f.Pattern), f.Why, f.Verdict)
		for _, m := range f.Members {
			fmt.Fprintf(w, "  %s: %s\n", showPath(m.Path), m.Verdict)
		}
	}
	for _, s := range r.Sessions() {
		fmt.Fprintf(w, "session %s: %s, hook %s (%s), awake and watched for %s", s.ID, s.Agent, s.Hook, strings.Join(s.Families, ", "),
			aboutSeconds(time.Duration(s.AwakeSeconds*float64(time.Second))))
		if what := s.NotWatched(); what != "" {
			fmt.Fprintf(w, "\n  not watched: %s", what)
		}
		for _, g := range s.Gaps {
			fmt.Fprintf(w, "\n  gap %s to %s: %s", g.From.Local().Format(gapTime), g.To.Local().Format(gapTime), g.Cause)
			if g.Count > 0 {
				fmt.Fprintf(w, ", %d lost", g.Count)
			}
		}
		fmt.Fprintln(w)
	}
	return nil
}

func showScoped(row enforcer.Row) string {
	if row.Scope == store.HostScope {
		return showWhole(row.Path, row.PathBase64)
	}
	return showWhole(row.Path, row.PathBase64) + " in " + showPath(row.Scope)
}

// showWhole quotes a path once, also where the report has quoted what is not
// UTF-8 in it.
func showWhole(text, whole string) string {
	if raw, err := base64.StdEncoding.DecodeString(whole); err == nil && whole != "" {
		text = string(raw)
	}
	return showPath(text)
}

// showVerdict marks the quiet that could use the network: enforcement is for
// those.
func showVerdict(row enforcer.Row) string {
	if slices.Contains(row.Able, ability.Sockets) || slices.Contains(row.Able, ability.Resolver) {
		return row.Verdict + ", able"
	}
	return row.Verdict
}

func showRuns(n enforcer.RunCount) string {
	if n.Complete == n.Seen {
		return fmt.Sprint(n.Seen)
	}
	return fmt.Sprintf("%d of %d complete", n.Complete, n.Seen)
}

func showUse(row enforcer.Row) string {
	var parts []string
	for _, u := range row.Network {
		part := fmt.Sprintf("%s/%s ×%d", u.Family, u.Type, u.Count)
		if len(u.Reach) > 0 {
			part += " " + strings.Join(u.Reach, "+")
		}
		if len(u.Destinations) > 0 {
			part += " (" + strings.Join(u.Destinations, " ") + ")"
		}
		if u.AtLeast {
			part += " at least"
		}
		if u.Inherited > 0 {
			part += " inherited"
		}
		parts = append(parts, part)
	}
	for _, a := range row.Attempts {
		what := "killed"
		if a.Stage == store.StageMonitor {
			what = "would be killed"
		}
		parts = append(parts, fmt.Sprintf("%s ×%d", what, a.Count))
	}
	return strings.Join(parts, ", ")
}

// maxShown is how many of a list fit a row for a person; -o json has all.
const maxShown = 4

func showEntries(entries []enforcer.EntryRow) string {
	var names []string
	for i, e := range entries {
		if i == maxShown {
			names = append(names, fmt.Sprintf("and %d more", len(entries)-maxShown))
			break
		}
		names = append(names, showWhole(e.Name, e.NameBase64))
	}
	return strings.Join(names, ", ")
}
