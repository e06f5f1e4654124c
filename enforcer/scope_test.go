package enforcer

import (
	"fmt"
	"strings"
	"testing"
)

func TestScopesInPlainWords(t *testing.T) {
	for scope, want := range map[string]string{
		"container:3fc4ccfe745870e2c0d99f71f30ff06": "container 3fc4ccfe745870e2c0d99f71f30ff06",
		"container:others":                          "containers beyond those that are kept apart",
		"container:/box/one":                        "container /box/one",
		"pod:shop/till:till:1":                      "pod shop/till:till:1",
		"pidns:4026532300":                          "container without a name (pid namespace 4026532300)",
		"shop/web":                                  "container shop/web",
	} {
		if got := tellScope(scope); got != want {
			t.Errorf("%q is told as %q, want %q", scope, got, want)
		}
	}
}

func TestAPlanNamesAFewOfManyContainers(t *testing.T) {
	s := newScene(t)
	file := s.learned("tool", runs(1))
	for i := range 200 {
		tally := used(runs(1), "inet", "stream")
		if i%2 == 0 {
			tally = runs(1)
		}
		s.rows = append(s.rows, keyed(fmt.Sprintf("container:%03d", i), file, row("a", tally)))
	}
	plan := s.mustPlan()
	mustHold(t, plan, file, "not quiet in container 001: network: inet stream; not quiet in container 003")
	mustHold(t, plan, file, "; nor in 97 more")
	for _, held := range plan.Held {
		if strings.Count(held.Why, "container") != 3 {
			t.Errorf("held: %s", held.Why)
		}
	}
}
