// Package e2e drives the built binary as a user would, against real processes
// on a real kernel. Each script has a cgroup of its own, to which learning and
// enforcing are confined, and must leave nothing behind in the kernel. What a
// unit test can show does not belong here.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"profile/internal/cgroup"
)

// built is the directory of the programs under test: profile, and for each
// directory here with a source the program of its name.
var built string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			fmt.Fprintln(os.Stderr, "e2e needs root")
			return 1
		}
		fmt.Fprintln(os.Stderr, "SKIP: every test of e2e: they load eBPF programs, which takes root")
		return 0
	}
	if signal.Ignored(unix.SIGHUP) {
		// As by nohup: the programs would inherit that, and wait for it in vain.
		signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	}
	// A machine without compilers is given the programs, which a run on another
	// has built into a directory that was empty: see vm/run.sh.
	if built = os.Getenv("PROFILE_E2E_BUILT"); built == "" {
		var err error
		if built, err = os.MkdirTemp("", "profile-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(built)
	}
	if _, err := os.Stat(filepath.Join(built, "profile")); err == nil {
		return m.Run()
	}
	for _, cmd := range [][]string{
		{"go", "build", "-o", filepath.Join(built, "profile"), "profile/cmd/profile"},
		{"go", "build", "-o", filepath.Join(built, "gopher"), "profile/e2e/gopher"},
		{"gcc", "-O1", "-static", "-pthread", "-o", filepath.Join(built, "actor"), "actor/actor.c"},
		{"gcc", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-o", filepath.Join(built, "mote"), "mote/mote.c"},
		{"gcc", "-O1", "-static", "-pthread", "-o", filepath.Join(built, "sidedoor"), "sidedoor/sidedoor.c"},
		{"gcc", "-m32", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie", "-o", filepath.Join(built, "mote32"), "mote32/mote32.c"},
	} {
		c := exec.Command(cmd[0], cmd[1:]...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build for e2e: %v: %s\n", err, out)
			return 1
		}
	}
	return m.Run()
}

func TestScripts(t *testing.T) {
	refuseStop(t)
	params := testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition:           condition,
		Setup:               setup,
		Cmds:                commands,
	}
	agent, err := against()
	if err != nil {
		t.Fatal(err)
	}
	if agent != nil {
		params.Dir, params.Files = "", agent.scripts(t)
		within = slowly
	}
	what := loaded
	if agent != nil && agent.tetragon {
		what = agent.policies // what else it has in the kernel comes and goes as it likes
	}
	before := what(t)
	t.Run("group", func(t *testing.T) { testscript.Run(t, params) })
	assertSame(t, before, what)
}

// refuseStop refuses testscript's own command of that name: it ends a script,
// which has then passed, and looks like the end of a learner.
func refuseStop(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains("\n"+string(text), "\nstop") {
			t.Fatalf("%s says stop, which ends the script: say learned", name)
		}
	}
}

// setup gives a script its cgroup, $CG, its database, $DB, the directory of what
// is in force for that, $PINS, and the programs on its PATH.
func setup(env *testscript.Env) error {
	root, err := cgroup.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(root.Dir, "profile-test-")
	if err != nil {
		return err
	}
	s := &script{cgroup: dir, env: env}
	env.Values[key{}] = s
	env.Defer(s.end)
	env.Setenv("CG", dir)
	env.Setenv("CGPATH", "/"+filepath.Base(dir))
	env.Setenv("DB", filepath.Join(env.WorkDir, "profile.db"))
	env.Setenv("PINS", pinsOf(env.Getenv("DB")))
	env.Setenv("BUILT", built)
	if agent, _ := against(); agent != nil {
		env.Setenv("AGENTADDRESS", agent.address)
	}
	env.Setenv("PATH", built+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return nil
}
