package main

import (
	"fmt"
	"strings"
	"testing"

	"profile/enforcer"
	"profile/internal/tetragon"
)

func TestALargePlanIsPrintedAsSeveralPolicies(t *testing.T) {
	plan := &enforcer.Plan{Stage: "enforce", Cgroup: "/", Families: []string{"inet"}}
	for i := range 6000 {
		plan.Enforce = append(plan.Enforce, fmt.Sprintf("/opt/%s/%05d", strings.Repeat("long", 45), i))
	}
	var text strings.Builder
	if err := printPolicies(&text, plan); err != nil {
		t.Fatal(err)
	}
	documents := strings.Split(text.String(), "---\n")
	if len(documents) < 2 {
		t.Fatalf("%d documents of %d bytes, want several", len(documents), text.Len())
	}
	var listed []string
	names := map[string]bool{}
	for _, one := range documents {
		p, err := tetragon.ParsePolicy([]byte(one))
		if err != nil {
			t.Fatal(err)
		}
		names[p.Metadata.Name] = true
		listed = append(listed, p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values...)
		if len(one) > printedMost {
			t.Errorf("policy %s has %d bytes", p.Metadata.Name, len(one))
		}
	}
	if len(names) != len(documents) || strings.Join(listed, "\n") != strings.Join(plan.Enforce, "\n") {
		t.Errorf("%d policies of %d names list %d of %d", len(documents), len(names), len(listed), len(plan.Enforce))
	}
}

func TestAnEmptyPlanPrintsNoPolicy(t *testing.T) {
	var text strings.Builder
	if err := printPolicies(&text, &enforcer.Plan{Stage: "enforce", Cgroup: "/"}); err != nil || text.Len() != 0 {
		t.Errorf("printed %q, error %v", text.String(), err)
	}
}
