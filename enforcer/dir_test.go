package enforcer_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/store"
)

// keptSite has an agent that acts on this kernel and has a policy directory.
func keptSite(t *testing.T) (*site, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tetragon.tp.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := realSite(t, agenttest.Options{PolicyDir: dir})
	s.dir = dir
	return s, dir
}

// files names what lies in a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

func (s *site) restart(t *testing.T) {
	t.Helper()
	s.fake.Restart(t, 0)
	s.agent = s.fake.Local(t)
}

func TestWhatIsKeptInThePolicyDirectoryIsLoadedByARestartedAgent(t *testing.T) {
	s, dir := keptSite(t)
	more := s.manyPaths()
	for _, step := range []struct {
		stage string
		paths []string
	}{
		{store.StageMonitor, more},
		{store.StageEnforce, more}, // promoted: the same files
		{store.StageEnforce, more[1:3]},
		{store.StageMonitor, more[1:3]},
	} {
		g := s.mustApply(t, step.stage, step.paths)
		if got := files(t, dir); strings.Join(got, " ") != strings.Join(g.Policies, " ") {
			t.Fatalf("the directory has %q, want %q", got, g.Policies)
		}
		info, err := os.Stat(filepath.Join(dir, g.Policies[0]+".yaml"))
		if err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%v, error %v; want a file that every agent can read", info.Mode(), err)
		}
		s.restart(t)
		s.agent.MaxPolicy = 4 << 10
		if status, err := s.status(t); err != nil || status.Stage != step.stage || status.Generation != g.N {
			t.Fatalf("status %+v, error %v; want generation %d to %s", status, err, g.N, step.stage)
		}
	}
	if _, err := enforcer.Release(t.Context(), s.agent, s.store); err != nil {
		t.Fatal(err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("release left %q", left)
	}
	s.restart(t)
	if left := s.listed(t); len(left) != 0 {
		t.Errorf("a restarted agent has %q", left)
	}
}

func TestAGenerationWithoutADirectoryLeavesNoneBehind(t *testing.T) {
	s, dir := keptSite(t)
	s.mustApply(t, store.StageEnforce, []string{"/nowhere/a"})
	s.dir = ""
	s.mustApply(t, store.StageEnforce, []string{"/nowhere/a"})
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

func TestAGenerationThatFailsIsNotKept(t *testing.T) {
	s, dir := keptSite(t)
	old := s.mustApply(t, store.StageMonitor, []string{"/nowhere/a"})
	parent := filepath.Dir(dir)
	for _, stage := range []string{store.StageEnforce, store.StageMonitor} { // a promotion, and one of its own
		// Directories are where the files would be written.
		promoted := filepath.Join(dir, old.Policies[0]+".yaml")
		third := strings.Replace(promoted, "-g1", "-g3", 1)
		if err := errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o755), os.Mkdir(promoted, 0o755), os.Mkdir(third, 0o755)); err != nil {
			t.Fatal(err)
		}
		var failed *enforcer.FailedError
		if _, err := s.apply(t, stage, []string{"/nowhere/a"}); !errors.As(err, &failed) || failed.InForce != old.N || !strings.Contains(err.Error(), "policy directory") {
			t.Errorf("%s: error %v, want a *FailedError that says it could not be kept", stage, err)
		}
		if err := errors.Join(os.RemoveAll(dir), os.Rename(dir+".away", dir)); err != nil {
			t.Fatal(err)
		}
		if status, err := s.status(t); err != nil || status.Stage != store.StageMonitor || status.Generation != old.N {
			t.Errorf("%s: status %+v, error %v; want generation %d in monitor", stage, status, err, old.N)
		}
	}
	if left, err := filepath.Glob(filepath.Join(parent, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left %q beside the directory, error %v", left, err)
	}
}

func TestAStatusTellsHowThePolicyDirectoryDiffers(t *testing.T) {
	s, dir := keptSite(t)
	g := s.mustApply(t, store.StageEnforce, []string{"/nowhere/a", "/nowhere/b"})
	file := filepath.Join(dir, g.Policies[0]+".yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func() error
		says   string // "" if it is the same
	}{
		{"as it was", func() error { return nil }, ""},
		{"other white space", func() error { return os.WriteFile(file, append([]byte("\n"), text...), 0o644) }, ""},
		{"gone", func() error { return os.Remove(file) }, "it is gone"},
		{"malformed", func() error { return os.WriteFile(file, []byte("kprobes: ["), 0o644) }, "the agent would not start"},
		{"another mode", func() error {
			return os.WriteFile(file, []byte(strings.Replace(string(text), "value: enforce", "value: monitor", 1)), 0o644)
		}, "it was changed"},
		{"another hook", func() error {
			return os.WriteFile(file, []byte(strings.Replace(string(text), "security_socket_create", "tcp_connect", 1)), 0o644)
		}, "it was changed"},
		{"a path less", func() error {
			return os.WriteFile(file, []byte(strings.Replace(string(text), "                - /nowhere/b\n", "", 1)), 0o644)
		}, "list 1 executables, not the 2"},
		{"an old one", func() error {
			old := strings.Replace(file, "-g1", "-g0", 1)
			t.Cleanup(func() { os.Remove(old) })
			return os.WriteFile(old, text, 0o644)
		}, "of another generation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.change(); err != nil {
				t.Fatal(err)
			}
			_, err := s.status(t)
			var drift *enforcer.DriftError
			if c.says == "" && err != nil || c.says != "" && (!errors.As(err, &drift) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAPolicyDirectoryIsRefused(t *testing.T) {
	temp := t.TempDir()
	open, file := filepath.Join(temp, "open"), filepath.Join(temp, "file")
	// Whoever can write the one above could put another in its place, or in that
	// of a file on its way there.
	within := filepath.Join(open, "dir")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Mkdir(within, 0o755), os.Chmod(open, 0o777), os.WriteFile(file, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	// Of a directory as /tmp is, nobody can.
	sticky := filepath.Join(temp, "sticky", "dir")
	if err := errors.Join(os.MkdirAll(sticky, 0o755), os.Chmod(filepath.Dir(sticky), 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	if _, err := enforcer.CheckDir(sticky); err != nil {
		t.Error(err)
	}
	for dir, says := range map[string]string{
		open: "others could write it", within: "others could write the one above it", file: "not a directory", filepath.Join(temp, "none"): "no such file", "": "",
	} {
		if _, err := enforcer.CheckDir(dir); dir != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: error %v, want one that says %q", dir, err, says)
		}
	}
	away := awaySite(t, agenttest.Options{})
	away.dir = temp
	if _, err := away.apply(t, store.StageEnforce, []string{"/nowhere/a"}); !errors.Is(err, enforcer.ErrUsage) || !strings.Contains(err.Error(), "another host") {
		t.Errorf("an agent of another host: %v", err)
	}
	sensor := &site{fake: agenttest.Start(t, agenttest.Options{}), store: newStore(t), group: away.group, dir: temp}
	sensor.agent = sensor.fake.Local(t)
	if _, err := sensor.apply(t, store.StageEnforce, []string{"/nowhere/a"}); !errors.Is(err, enforcer.ErrUsage) || !strings.Contains(err.Error(), "no policy directory") {
		t.Errorf("the sensor: %v", err)
	}
	if len(away.listed(t))+len(sensor.listed(t)) != 0 {
		t.Error("something was loaded")
	}
}
