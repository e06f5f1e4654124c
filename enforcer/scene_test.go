package enforcer

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

// scene is a database for plans, and options that begin as a plain enforce on
// the whole machine.
type scene struct {
	t           *testing.T
	dir         string // of executables, resolved
	sessions    []store.Session
	generations []store.Generation
	rows        []store.Evidence
	o           PlanOptions
}

func newScene(t *testing.T) *scene {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &scene{t: t, dir: dir, sessions: []store.Session{watched("a", 0, 10)}, o: PlanOptions{Stage: store.StageEnforce, Cgroup: "/"}}
}

// learned makes a program and gives it evidence of session a.
func (s *scene) learned(name string, tally store.Tally) string {
	file := program(s.t, s.dir, name)
	s.rows = append(s.rows, keyed("host", file, row("a", tally)))
	return file
}

// loaded says that a generation lists the paths.
func (s *scene) loaded(stage string, paths ...string) *store.Generation {
	s.generations = append(s.generations, store.Generation{N: uint64(len(s.generations) + 1), State: store.StateLoaded, Stage: stage, Cgroup: "/",
		Paths: paths, Families: []string{"inet", "inet6", "packet"}})
	return &s.generations[len(s.generations)-1]
}

func (s *scene) plan() (*Plan, error) {
	s.t.Helper()
	db := database(s.t, func(tx *store.Tx) error { return putAll(tx, s.sessions, s.generations, s.rows...) })
	var plan *Plan
	err := db.View(context.Background(), func(tx *store.Tx) (err error) {
		plan, err = BuildPlan(context.Background(), tx, s.o)
		return err
	})
	return plan, err
}

// mustPlan checks that exactly the paths are enforced.
func (s *scene) mustPlan(enforce ...string) *Plan {
	s.t.Helper()
	plan, err := s.plan()
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff(append([]string{}, enforce...), append([]string{}, plan.Enforce...)); diff != "" {
		s.t.Errorf("enforced (-want +got):\n%s\nheld: %v", diff, plan.Held)
	}
	return plan
}

// mustHold checks that a path is held for a reason that says so.
func mustHold(t *testing.T, plan *Plan, file, says string) {
	t.Helper()
	for _, h := range plan.Held {
		if h.Path == file {
			if !strings.Contains(h.Why, says) {
				t.Errorf("%s is held: %s; want a reason that says %q", file, h.Why, says)
			}
			return
		}
	}
	t.Errorf("%q is not held; held are %v", file, plan.Held)
}
