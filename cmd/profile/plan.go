package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"profile/enforcer"
	"profile/store"
)

func showTried(g *store.Generation) string {
	switch {
	case g.Tried.IsZero():
		return "not tried, the agent being on another host"
	case g.Stage == store.StageMonitor:
		return "tried: a canary that it lists was counted and lived, as one did that it does not list"
	}
	return "tried: a canary that it lists was killed, and one that it does not list lived"
}

func (e *enforcing) print(plan *enforcer.Plan) error {
	if len(plan.Enforce) == 0 {
		fmt.Fprintf(os.Stderr, "the plan is empty: %s\n", whyEmpty(plan))
	}
	if e.form != "" {
		for _, w := range plan.Warnings {
			fmt.Fprintf(os.Stderr, "warning: %s\n", showLine(w))
		}
	}
	switch e.form {
	case "json":
		enc := json.NewEncoder(os.Stdout)
		enc.SetEscapeHTML(false)
		return enc.Encode(plan)
	case "yaml":
		return printPolicies(os.Stdout, plan)
	}
	return printPlan(plan)
}

// printedName is the name of a policy that is printed, for a person to apply;
// printedMost is how many bytes one may have. A cluster keeps no object of more
// than 1.5 MiB, written in a way that takes somewhat more.
const (
	printedName = "profile-enforce"
	printedMost = 1 << 20
)

// printPolicies prints the policy of a plan, or several as one YAML document
// each. An empty plan has none.
func printPolicies(w io.Writer, plan *enforcer.Plan) error {
	if len(plan.Enforce) == 0 {
		return nil
	}
	all, err := enforcer.PolicySpec{Name: printedName, Stage: plan.Stage, Cgroup: plan.Cgroup, Families: plan.Families,
		Paths: plan.Enforce, Sensor: plan.Cgroup != "/", Limit: printedMost}.Policies()
	if err != nil {
		return err
	}
	if len(all) > 1 {
		fmt.Fprintf(os.Stderr, "warning: too large for one policy: these are %d, a document each. kubectl applies them all; "+
			"an agent reads only the first document of a file, so for tetra or a policy directory give each a file of its own\n", len(all))
	}
	// What is printed can be given to any agent, and none refuses what it does
	// not know.
	if plan.Cgroup != "/" {
		fmt.Fprintf(os.Stderr, "warning: only the embedded sensor (profile agent) knows the option that confines it to cgroup %s: "+
			"a Tetragon would take it for the whole machine\n", showPath(plan.Cgroup))
	}
	if plan.Stage == store.StageMonitor {
		fmt.Fprintln(os.Stderr, "warning: a Tetragon older than v1.4 does not know the option that makes it monitor, and would kill")
	}
	for i, p := range all {
		text, err := p.Marshal()
		if err != nil {
			return err
		}
		if i > 0 {
			text = append([]byte("---\n"), text...)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

func whyEmpty(plan *enforcer.Plan) string {
	if len(plan.Held) == 0 {
		return "nothing that it could list was learned"
	}
	if len(plan.Held) == 1 {
		return "the one executable is held, for its reason"
	}
	return fmt.Sprintf("all %d executables are held, each for its reason", len(plan.Held))
}

// printPlan fails where a plan cannot be shown: it is not applied then.
func printPlan(plan *enforcer.Plan) error {
	var text bytes.Buffer
	showPlan(&text, plan)
	if _, err := text.WriteTo(os.Stdout); err != nil {
		return fmt.Errorf("show the plan: %w", err)
	}
	return nil
}

func showPlan(w io.Writer, plan *enforcer.Plan) {
	what := "killed when it opens a network socket"
	if plan.Stage == store.StageMonitor {
		what = "counted, and not killed, when it opens a network socket"
	}
	where := "on the whole machine"
	if plan.Cgroup != "/" {
		where = "in cgroup " + showPath(plan.Cgroup)
	}
	fmt.Fprintf(w, "%s: each is %s (%s) %s\n", counted(len(plan.Enforce), "executable"), what, strings.Join(plan.Families, ", "), where)
	for _, p := range plan.Enforce {
		mark := " "
		if _, added := slices.BinarySearch(plan.Added, p); added {
			mark = "+"
		}
		since := ""
		if slices.Contains(plan.Replaced, p) {
			since = " (replaced since it was listed)"
		}
		fmt.Fprintf(w, "  %s %s%s\n", mark, showPath(p), since)
	}
	if plan.Loaded > 0 {
		fmt.Fprintf(w, "against generation %d, which is loaded: %d added, %d removed\n", plan.Loaded, len(plan.Added), len(plan.Removed))
		for _, p := range plan.Removed {
			fmt.Fprintf(w, "  - %s\n", showPath(p))
		}
	}
	if len(plan.Held) > 0 {
		fmt.Fprintf(w, "%d held:\n", len(plan.Held))
		t := newTable(w, "executable", "why")
		for _, h := range plan.Held {
			t.row(showPath(h.Path), h.Why)
		}
		t.print()
	}
	if len(plan.Unwatched) > 0 {
		fmt.Fprintf(w, "not watched, and so not enforced: %s\n", strings.Join(plan.Unwatched, ", "))
	}
	for _, warning := range plan.Warnings {
		fmt.Fprintf(w, "warning: %s\n", showLine(warning))
	}
}
