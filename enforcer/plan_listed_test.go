package enforcer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"profile/store"
)

func attempted(r store.Evidence, stage string, n uint64) store.Evidence {
	r.Attempts = append(r.Attempts, store.Attempt{Family: "inet", Type: "stream", Stage: stage, Count: n, First: at(1), Last: at(2)})
	return r
}

func TestPlanKeepsWhatIsListed(t *testing.T) {
	s := newScene(t)
	killed := s.learned("killed", runs(3))
	s.rows[0] = attempted(s.rows[0], store.StageEnforce, 2)
	outside := s.learned("outside", used(runs(1), "inet", "stream"))
	short := s.learned("short", store.Tally{Seen: 1})
	guarded := s.learned("guarded", runs(1))
	fresh := s.learned("fresh", runs(1))
	g := s.loaded(store.StageEnforce, guarded, killed, outside, short, "/usr/bin/not-learned")
	g.Files = map[string]store.FileID{killed: oldFile}
	s.o.Protect = []string{guarded}
	plan := s.mustPlan(fresh, guarded, killed, outside, short, "/usr/bin/not-learned")
	if plan.Loaded != 1 || !cmp.Equal(plan.Added, []string{fresh}) || len(plan.Removed) != 0 {
		t.Errorf("against generation %d: added %v, removed %v; want 1, %s, none", plan.Loaded, plan.Added, plan.Removed, fresh)
	}
	if plan.Files[killed] != oldFile {
		t.Errorf("known by %v, want what it was listed by, %v", plan.Files[killed], oldFile)
	}
	warned := strings.Join(plan.Warnings, "\n")
	for _, says := range []string{outside + `" opened network sockets where it is not listed (inet stream)`, guarded + `" is protected`} {
		if !strings.Contains(warned, says) {
			t.Errorf("warnings %q, want one that says %q", warned, says)
		}
	}
	s.o.Exclude = []string{outside, "/usr/bin/not-learned"}
	plan = s.mustPlan(fresh, guarded, killed, short)
	mustHold(t, plan, outside, "excluded")
	if diff := cmp.Diff([]string{outside, "/usr/bin/not-learned"}, plan.Removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	for _, w := range plan.Warnings {
		if strings.Contains(w, "keeps nothing out") {
			t.Errorf("warned %q of what was learned or is listed", w)
		}
	}
}

// A pattern, or a slip, must not be taken for a listing that was lifted.
func TestPlanWarnsOfAnExclusionThatKeepsNothingOut(t *testing.T) {
	s := newScene(t)
	tool := s.learned("tool", runs(3))
	s.o.Exclude = []string{filepath.Join(s.dir, "*"), filepath.Join(s.dir, "tool2")}
	warned := strings.Join(s.mustPlan(tool).Warnings, "\n")
	for _, file := range s.o.Exclude {
		if says := fmt.Sprintf("exclude %q: it keeps nothing out", file); !strings.Contains(warned, says) {
			t.Errorf("warnings %q, want one that says %s", warned, says)
		}
	}
}

func TestPlanHoldsWouldBeKillsFromPromotion(t *testing.T) {
	for _, c := range []struct {
		name   string
		seen   uint64 // by a learner
		kernel uint64
		says   string
	}{
		{"seen by a learner", 2, 0, "would have been killed 2 times in monitor"},
		{"counted by the kernel", 0, 1, "would have been killed once in monitor"},
		{"both", 2, 3, "would have been killed 3 times in monitor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			file := s.learned("tool", runs(1))
			if c.seen > 0 {
				s.rows[0] = attempted(s.rows[0], store.StageMonitor, c.seen)
			}
			s.loaded(store.StageMonitor, file).Kills = []store.Kill{{Path: file, Would: c.kernel}}
			mustHold(t, s.mustPlan(), file, c.says)
			s.o.Stage = store.StageMonitor
			s.mustPlan(file)
			s.o.Stage, s.o.Include = store.StageEnforce, []string{file}
			s.mustPlan(file)

			// What was held must not slip in with the next enforce.
			s.generations[0].State = store.StateReplaced
			s.o.Include = nil
			next := s.loaded(store.StageEnforce, "/usr/bin/other")
			mustHold(t, s.mustPlan("/usr/bin/other"), file, c.says)
			// What a person let through stays.
			next.Paths = []string{file}
			s.mustPlan(file)
		})
	}
}

func TestPlanHoldsFromPromotionWhatMayHaveBeenTheUnheard(t *testing.T) {
	s := newScene(t)
	file := s.learned("tool", runs(1))
	other := s.learned("other", runs(1)) // was not monitored
	s.loaded(store.StageMonitor, file).Kills = []store.Kill{{Would: 3}}
	mustHold(t, s.mustPlan(other), file, "may be what would have been killed in monitor (×3)")
	s.o.Stage = store.StageMonitor
	s.mustPlan(other, file)
	s.o.Stage, s.o.Include = store.StageEnforce, []string{file}
	s.mustPlan(other, file)

	// It does not slip in with the next enforce, but monitored again it may.
	s.generations[0].State = store.StateReplaced
	s.o.Include = nil
	s.loaded(store.StageEnforce, other)
	mustHold(t, s.mustPlan(other), file, "may be what would have been killed")
	s.generations[1].State = store.StateReplaced
	s.loaded(store.StageMonitor, other, file)
	s.mustPlan(other, file)
}

func TestPlanDoesNotLiftListingsByTheCgroup(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Cgroup = "/a"
	file := s.learned("tool", runs(1))
	s.loaded(store.StageEnforce, file).Cgroup = "/a"
	s.o.Cgroup = "/b"
	if _, err := s.plan(); err == nil || !strings.Contains(err.Error(), "release it first") {
		t.Errorf("in another cgroup: error %v, want one that says to release", err)
	}
	s.o.Cgroup = "/"
	var coverage *CoverageError
	if _, err := s.plan(); !errors.As(err, &coverage) {
		t.Errorf("in a wider one: error %v, want a *CoverageError", err)
	}
	whole := watched("w", 10, 20)
	s.sessions = append(s.sessions, whole)
	if _, err := s.plan(); err == nil || !strings.Contains(err.Error(), "learned only in cgroup /a") {
		t.Errorf("in a wider one that a session covers: error %v, want one that says why it would not be listed", err)
	}
	s.o.Exclude = []string{file}
	s.mustPlan()
	s.o.Exclude, s.o.Wider = nil, true
	s.mustPlan(file)
}

func TestPlanIncludes(t *testing.T) {
	s := newScene(t)
	tool := program(t, s.dir, "real/tool")
	sshd := program(t, s.dir, "sshd")
	script := write(t, s.dir, "script", "#! /usr/bin/env python3\n", 0o755)
	text := write(t, s.dir, "text", "hello", 0o755)
	symlink(t, tool, filepath.Join(s.dir, "link"))
	symlink(t, sshd, filepath.Join(s.dir, "sshlink"))
	missing := filepath.Join(s.dir, "missing")

	s.o.Include = []string{filepath.Join(s.dir, "link")}
	s.mustPlan(tool)
	s.o.Include = []string{sshd}
	s.mustPlan(sshd)
	s.o.Include = []string{s.dir + "/./sshd"}
	mustHold(t, s.mustPlan(), sshd, "--include needs its full resolved path")
	s.o.Include = []string{filepath.Join(s.dir, "sshlink")}
	mustHold(t, s.mustPlan(), sshd, "--include needs its full resolved path")
	s.o.Include = []string{filepath.Join(s.dir, "sshlink"), sshd}
	s.mustPlan(sshd)
	s.o.Include = []string{script}
	mustHold(t, s.mustPlan(), script, `a script: what runs, and would be killed, is its interpreter "/usr/bin/env"`)
	s.o.Include = []string{text}
	mustHold(t, s.mustPlan(), text, "neither a program nor a script")

	for _, bad := range []string{s.dir, missing} {
		s.o.Include = []string{bad}
		if _, err := s.plan(); !errors.Is(err, ErrUsage) {
			t.Errorf("--include %s: error %v, want ErrUsage", bad, err)
		}
	}
	s.rows = append(s.rows, keyed("host", missing, row("a", used(runs(1), "inet", "stream"))))
	s.o.Include = []string{missing}
	s.mustPlan(missing)

	t.Chdir(s.dir)
	s.o.Include = []string{"real/../link"}
	s.mustPlan(tool)
	s.o.Exclude = []string{"link"}
	mustHold(t, s.mustPlan(), tool, "excluded")
}

func TestPlanForAnotherHostTakesPathsAsTheyAre(t *testing.T) {
	s := newScene(t)
	s.o.Remote = true
	gone := filepath.Join(s.dir, "gone")
	s.rows = append(s.rows, keyed("host", gone, row("a", runs(1))))
	s.o.Include = []string{"/only/there"}
	s.mustPlan("/only/there", gone)
	s.o.Include = []string{"relative"}
	if _, err := s.plan(); !errors.Is(err, ErrUsage) {
		t.Errorf("error %v, want ErrUsage", err)
	}
	s.o.Include, s.o.Dirs = nil, []string{s.dir}
	if _, err := s.plan(); !errors.Is(err, ErrUsage) {
		t.Errorf("error %v, want ErrUsage", err)
	}
}

func TestPlanTakesTheExecutablesOfADirectory(t *testing.T) {
	s := newScene(t)
	s.sessions = nil
	tools := filepath.Join(s.dir, "tools")
	curl, jq := program(t, tools, "curl"), program(t, tools, "deep/jq")
	python := program(t, tools, "python3") // --dir lifts what --include would
	odd := program(t, tools, "a 'b'\n\"c\"")
	sshd := program(t, tools, "sshd")
	foreign := program(t, tools, "\xff")
	script := write(t, tools, "run", "#!/bin/sh\nexec curl\n", 0o755)
	noProgram := write(t, tools, "notes", "hello", 0o755)
	write(t, tools, "library.so", elfHead, 0o644)
	write(t, tools, "README", "hello", 0o644)
	write(t, tools, "empty", "", 0o644)
	if err := unix.Mkfifo(filepath.Join(tools, "fifo"), 0o777); err != nil {
		t.Fatal(err)
	}
	outside := program(t, s.dir, "outside/wget")
	write(t, s.dir, "outside/data", "x", 0o644)
	for name, target := range map[string]string{"inside": curl, "wget": outside, "elsewhere": filepath.Dir(outside), "dangling": "/nowhere/at/all", "data": s.dir + "/outside/data"} {
		symlink(t, target, filepath.Join(tools, name))
	}
	symlink(t, tools, filepath.Join(s.dir, "by-link"))

	s.o.Dirs = []string{filepath.Join(s.dir, "by-link")}
	plan := s.mustPlan(odd, curl, jq, python)
	mustHold(t, plan, sshd, "protected")
	mustHold(t, plan, foreign, "not UTF-8")
	mustHold(t, plan, script, `a script: what runs, and would be killed, is its interpreter "/bin/sh"`)
	mustHold(t, plan, noProgram, "neither a program nor a script")
	mustHold(t, plan, filepath.Join(tools, "wget"), `a symlink to "`+outside+`", which lies outside`)
	mustHold(t, plan, filepath.Join(tools, "elsewhere"), "a symlink to the directory")
	if len(plan.Held) != 6 || len(plan.Warnings) != 0 {
		t.Errorf("held %v, warnings %v; want those six and none", plan.Held, plan.Warnings)
	}
	s.o.Exclude = []string{jq}
	s.mustPlan(odd, curl, python)
	s.o.Dirs = append(s.o.Dirs, filepath.Dir(outside))
	s.o.Exclude = nil
	s.mustPlan(outside, odd, curl, jq, python)
	for _, bad := range []string{curl, filepath.Join(s.dir, "none")} {
		s.o.Dirs = []string{bad}
		if _, err := s.plan(); !errors.Is(err, ErrUsage) {
			t.Errorf("--dir %s: error %v, want ErrUsage", bad, err)
		}
	}
}

func TestPlanOfADirectoryLiftsAWouldBeKill(t *testing.T) {
	s := newScene(t)
	file := s.learned("tool", runs(1))
	s.loaded(store.StageMonitor, file).Kills = []store.Kill{{Path: file, Would: 1}}
	mustHold(t, s.mustPlan(), file, "would have been killed once")
	s.o.Dirs = []string{s.dir}
	s.mustPlan(file)
}

func TestPlanSaysWhatOfADirectoryCannotBeRead(t *testing.T) {
	s := newScene(t)
	a, b := filepath.Join(s.dir, "a"), filepath.Join(s.dir, "b")
	symlink(t, b, a) // a loop, which root cannot follow either
	symlink(t, a, b)
	s.o.Dirs = []string{s.dir}
	plan := s.mustPlan()
	if len(plan.Warnings) != 2 || !strings.Contains(plan.Warnings[0], "too many links") {
		t.Errorf("warnings %q, want two that say why", plan.Warnings)
	}
}

func TestPlanOfNothing(t *testing.T) {
	s := newScene(t)
	s.sessions = nil
	plan := s.mustPlan()
	if len(plan.Held) != 0 || len(plan.Warnings) != 0 {
		t.Errorf("held %v, warnings %v; want none", plan.Held, plan.Warnings)
	}
}

func TestPlanRefusesOptions(t *testing.T) {
	for _, change := range []func(*PlanOptions){
		func(o *PlanOptions) { o.Stage = "" },
		func(o *PlanOptions) { o.Cgroup = "a" },
		func(o *PlanOptions) { o.Only = []string{"["} },
		func(o *PlanOptions) { o.Protect = []string{"["} },
	} {
		s := newScene(t)
		change(&s.o)
		if _, err := s.plan(); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: error %v, want ErrUsage", s.o, err)
		}
	}
}

func TestPlanStopsWhenAsked(t *testing.T) {
	s := newScene(t)
	s.learned("tool", runs(1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	db := database(t, func(tx *store.Tx) error { return putAll(tx, s.sessions, nil, s.rows...) })
	err := db.View(context.Background(), func(tx *store.Tx) error {
		_, err := BuildPlan(ctx, tx, s.o)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestAListedFileThatWasReplacedStaysListedAndIsMarked(t *testing.T) {
	s := newScene(t)
	file, renewed := s.learned("tool", of(oldFile, 1, 2, runs(3))), program(t, s.dir, "renewed")
	now, err := identify(renewed)
	if err != nil {
		t.Fatal(err)
	}
	s.rows = append(s.rows, keyed("host", renewed, row("a", of(oldFile, 1, 2, runs(1)), of(now, 3, 4, runs(2)))))
	g := s.loaded(store.StageEnforce, renewed, file)
	g.Files = map[string]store.FileID{file: oldFile, renewed: oldFile}
	plan := s.mustPlan(renewed, file)
	if diff := cmp.Diff([]string{file}, plan.Replaced); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if plan.Files[renewed] != now || plan.Files[file] != oldFile {
		t.Errorf("known by %v; want what was learned anew to be known by its new file alone", plan.Files)
	}
	if diff := cmp.Diff([]string{renewed, file}, replacedSinceListed(g)); diff != "" {
		t.Errorf("replaced since it was listed (-want +got):\n%s", diff)
	}
}
