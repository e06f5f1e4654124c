package sensor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	tapi "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/cgroup"
	"profile/internal/cgroup/cgrouptest"
	"profile/internal/tetragon"
)

func TestDetachedBehindItsBackIsListedAsAnError(t *testing.T) {
	needKernel(t)
	if h, err := probe(); err != nil || !h.cgroup {
		t.Logf("only links to cgroups can be detached, and this kernel's hook is %s: %v", h.name, err)
		return
	}
	g := cgrouptest.Make(t)
	cfg := Config{Name: "sensor-test-detached", Node: "node"}
	a := serve(t, cfg)
	name := "profile-enforce-test"
	load(t, a, enforcingPolicy(name, "enforce", g, "/nowhere"))
	if err := exec.Command("bpftool", "link", "detach", "pinned",
		filepath.Join(pinRoot(), cfg.Name, "0", pinLink+programCgroup)).Run(); err != nil {
		t.Fatal(err)
	}
	st, err := a.Policy(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if st.GetState() != tapi.TracingPolicyState_TP_STATE_ERROR || !strings.Contains(st.GetError(), "detached") {
		t.Errorf("listed as %s, %q; want an error", st.GetState(), st.GetError())
	}
}

// A unit that is restarted has its cgroup made anew, under another id. Where no
// hook is attached to the cgroup, as with fmod_ret, nothing is detached by that.
func TestCgroupThatIsMadeAnewIsListedAsAnError(t *testing.T) {
	needKernel(t)
	h, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	h.cgroup = false
	above := cgrouptest.Make(t)
	dir := filepath.Join(above.Dir, "unit")
	t.Cleanup(func() { os.Remove(dir) })
	name := "profile-enforce-test"
	a := serve(t, Config{Name: "sensor-test-anew", Node: "node", probe: func() (hooks, error) { return h, nil }})
	state := func() (tapi.TracingPolicyState, string) {
		st, err := a.Policy(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return st.GetState(), st.GetError()
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	load(t, a, enforcingPolicy(name, "enforce", cgroup.Group{Path: above.Path + "/unit"}, "/nowhere"))
	if got, why := state(); got != tapi.TracingPolicyState_TP_STATE_ENABLED {
		t.Fatalf("listed as %s, %q; want it enabled", got, why)
	}
	for _, step := range []struct {
		what string
		do   func(string) error
		says string
	}{
		{"removed", os.Remove, "was removed"},
		{"made anew", func(dir string) error { return os.Mkdir(dir, 0o755) }, "was made anew"},
	} {
		if err := step.do(dir); err != nil {
			t.Fatal(err)
		}
		if got, why := state(); got != tapi.TracingPolicyState_TP_STATE_ERROR || !strings.Contains(why, step.says) {
			t.Errorf("its cgroup %s: listed as %s, %q; want an error that says %q", step.what, got, why, step.says)
		}
	}
}

// What a crash left half pinned is listed, and can be deleted by that name.
func TestHalfPinnedPolicyCanBeDeleted(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	cfg := Config{Name: "sensor-test-half", Node: "node"}
	a := serve(t, cfg)
	load(t, a, enforcingPolicy("profile-enforce-test", "enforce", g, "/nowhere"))
	if err := os.Remove(filepath.Join(pinRoot(), cfg.Name, "0", pinMeta)); err != nil {
		t.Fatal(err)
	}
	all, err := a.Policies(t.Context(), tetragon.EnforcePrefix)
	if err != nil || len(all) != 1 || all[0].GetState() != tapi.TracingPolicyState_TP_STATE_ERROR {
		t.Fatalf("listed as %v (%v), want one in error", all, err)
	}
	if err := a.Delete(t.Context(), all[0].GetName()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(pinRoot(), cfg.Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pins stayed: %v", err)
	}
}

// What was removed behind its back is forgotten: a learner takes its sockets
// for evidence again. What a killed loader left takes up its place and no more.
func TestRemovedBehindItsBackIsForgotten(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	cfg := Config{Name: "sensor-test-removed", Node: "node"}
	a := serve(t, cfg)
	if err := a.Add(t.Context(), enforcingPolicy("profile-enforce-test", "enforce", g, python(t))); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(pinRoot(), cfg.Name)
	if err := os.RemoveAll(filepath.Join(dir, "0")); err != nil {
		t.Fatal(err)
	}
	upTo := collect(t, a)
	if err := a.Add(t.Context(), auditPolicy("profile-learn-test", g)); err != nil {
		t.Fatal(err)
	}
	if err := run(t, g, python(t), "-c", openSocket); err != nil {
		t.Errorf("a program that is no longer listed: %v", err)
	}
	told := sockets(upTo(exited(python(t))))
	if len(told) != 1 || label(told[0], tetragon.LabelListed) != nil {
		t.Errorf("told %v, want one socket that is not listed", told)
	}
	// While the observer still holds the directory: the last to leave takes it,
	// and the mount, away.
	if err := os.MkdirAll(filepath.Join(dir, "0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Delete(t.Context(), "profile-learn-test"); err != nil {
		t.Fatal(err)
	}

	load(t, a, enforcingPolicy("profile-enforce-test2", "enforce", g, python(t)))
	if err := run(t, g, python(t), "-c", openSocket); !killed(err) {
		t.Errorf("beside what a killed loader left: %v, want a kill", err)
	}
	left, err := a.Policies(t.Context(), tetragon.BrokenPrefix)
	if err != nil || len(left) != 1 {
		t.Fatalf("listed as broken: %v (%v), want one", left, err)
	}
	if err := a.Delete(t.Context(), left[0].GetName()); err != nil {
		t.Error(err)
	}
}
