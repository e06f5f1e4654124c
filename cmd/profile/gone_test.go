package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/internal/tetragon"
	"profile/store"
)

// inForceWith makes a database that has recorded a generation as in force with
// an agent, which is kept in a policy directory.
func inForceWith(t *testing.T, agent string) (st *store.Store, kept string) {
	t.Helper()
	st, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(st.Path()))
	name := tetragon.EnforcePrefix + hex.EncodeToString(sum[:6]) + "-g1"
	kept = filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(kept, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err = st.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutGeneration(&store.Generation{
			N: 1, Policies: []string{name}, Dir: filepath.Dir(kept), State: store.StateLoaded,
			Stage: store.StageEnforce, Agent: agent, Cgroup: "/", Since: time.Now(),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return st, kept
}

// asksTheKernel says that a test looks for what the kernel has in force.
func asksTheKernel(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root: it looks for what the kernel has in force")
	}
}

func releaseOf(t *testing.T, st *store.Store, flags ...string) error {
	t.Helper()
	return newApp().RunContext(t.Context(), append([]string{"profile", "--db", st.Path(), "release", "--yes"}, flags...))
}

func inForceOf(t *testing.T, st *store.Store) *store.Generation {
	t.Helper()
	g, err := enforcer.InForce(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestAnAgentThatIsGoneIsReleasedByAPersonsWord(t *testing.T) {
	asksTheKernel(t)
	st, kept := inForceWith(t, "unix:///nowhere/tetragon.sock")
	if err := releaseOf(t, st); err == nil {
		t.Error("without --gone it was released, want that the agent is asked")
	}
	if err := releaseOf(t, st, "--gone"); err != nil {
		t.Fatal(err)
	}
	if g := inForceOf(t, st); g != nil || exists(kept) {
		t.Errorf("generation %+v is in force, and its file is there: %v; want neither", g, exists(kept))
	}
	if err := releaseOf(t, st, "--gone"); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestWhatIsNotGoneIsNotReleasedByAPersonsWord(t *testing.T) {
	agent := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	for address, why := range map[string]string{
		agent.Address():   "it answers",
		tetragon.Embedded: "the kernel tells",
	} {
		st, kept := inForceWith(t, address)
		err := releaseOf(t, st, "--gone")
		var there *enforcer.StillThereError
		if !errors.As(err, &there) || !strings.Contains(err.Error(), why) || !strings.Contains(explain(err), "without --gone") {
			t.Errorf("%s: error %v, want that it is not gone, since %s", address, err, why)
		}
		if inForceOf(t, st) == nil || !exists(kept) {
			t.Errorf("%s: it is in force no longer", address)
		}
	}
}

func TestAFileThatCannotBeRemovedIsNamedByItsDirectory(t *testing.T) {
	asksTheKernel(t)
	st, kept := inForceWith(t, "unix:///nowhere/tetragon.sock")
	if err := errors.Join(os.Remove(kept), os.MkdirAll(filepath.Join(kept, "full"), 0o755)); err != nil {
		t.Fatal(err)
	}
	err := releaseOf(t, st, "--gone")
	if err == nil || !strings.Contains(err.Error(), "policy directory "+filepath.Dir(kept)) {
		t.Errorf("error %v, want one that names the directory", err)
	}
	if g := inForceOf(t, st); g != nil {
		t.Errorf("generation %+v is in force, want none", g)
	}
}

func TestThereIsNoAgentToAskThatIsGone(t *testing.T) {
	st, _ := inForceWith(t, "unix:///nowhere/tetragon.sock")
	var usage usageError
	if err := releaseOf(t, st, "--gone", "--agent", "unix:///nowhere/other.sock"); !errors.As(err, &usage) {
		t.Errorf("error %v, want one of use", err)
	}
	if inForceOf(t, st) == nil {
		t.Error("it was released")
	}
}
