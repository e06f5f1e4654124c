package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func init() {
	maps.Copy(commands, map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"name":     cmdName,
		"long":     cmdLong,
		"bind":     cmdBind,
		"settled":  cmdSettled,
		"each":     cmdEach,
		"gaps":     cmdGaps,
		"families": cmdFamilies,
		"reach":    cmdReach,
		"stall":    cmdStall,
		"resume":   cmdResume,
	})
}

// name VARIABLE TEXT sets $VARIABLE to a text in which \n, \" and \xHH stand
// for what they do in Go.
func cmdName(ts *testscript.TestScript, neg bool, args []string) {
	text, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	ts.Setenv(args[0], text)
}

// long VARIABLE N sets $VARIABLE to a path of N bytes below the script's
// directory, and makes the directories that lead there.
func cmdLong(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	path := ts.MkAbs(args[0])
	for ; n-len(path) > 200; path += "/" + strings.Repeat("d", 100) {
	}
	path += "/" + strings.Repeat("f", n-len(path)-1)
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Setenv(args[0], path)
}

// bind SOURCE TARGET mounts a file or a directory at another place as well,
// until the script ends.
func cmdBind(ts *testscript.TestScript, neg bool, args []string) {
	target := ts.MkAbs(args[1])
	ts.Check(unix.Mount(ts.MkAbs(args[0]), target, "", unix.MS_BIND, ""))
	ts.Defer(func() { ts.Check(unix.Unmount(target, unix.MNT_DETACH)) })
}

// settled PATH SEEN COMPLETE waits until the report says so: runs that ended
// are complete once a canary has come back.
func cmdSettled(ts *testscript.TestScript, neg bool, args []string) {
	want := args[1:]
	var row reportRow
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		row, _ = rowOf(ts, args[0])
		if slices.Equal(want, []string{strconv.Itoa(row.Runs.Seen), strconv.Itoa(row.Runs.Complete)}) {
			return
		}
	}
	ts.Fatalf("%s: runs seen and complete did not become %v: %+v", args[0], want, row)
}

// each GLOB N SEEN COMPLETE [FAMILY/TYPE=COUNT…]: the report has N rows whose
// path matches, and exactly this in each of them.
func cmdEach(ts *testscript.TestScript, neg bool, args []string) {
	n := 0
	for _, row := range report(ts).Executables {
		match, err := filepath.Match(ts.MkAbs(args[0]), row.Path)
		ts.Check(err)
		if !match {
			continue
		}
		n++
		got := []string{strconv.Itoa(row.Runs.Seen), strconv.Itoa(row.Runs.Complete)}
		for _, u := range row.Network {
			got = append(got, u.Family+"/"+u.Type+"="+strconv.Itoa(u.Count))
		}
		if !slices.Equal(got, args[2:]) {
			ts.Fatalf("%s: runs and network are %v, want %v", row.Path, got, args[2:])
		}
	}
	if got := strconv.Itoa(n); got != args[1] {
		ts.Fatalf("%s rows match %s, want %s", got, args[0], args[1])
	}
}

// families NAME…: each session watched exactly these.
func cmdFamilies(ts *testscript.TestScript, neg bool, args []string) {
	for _, s := range report(ts).Sessions {
		if !slices.Equal(s.Families, args) {
			ts.Fatalf("the session watched %q, want %q", s.Families, args)
		}
	}
}

// reach PATH FAMILY/TYPE [REACH…] [ADDRESS:PORT…] [inherited=N]: exactly this
// is what sockets of the kind were used for.
func cmdReach(ts *testscript.TestScript, neg bool, args []string) {
	for _, u := range mustRow(ts, args[0]).Network {
		if u.Family+"/"+u.Type != args[1] {
			continue
		}
		got := slices.Concat(u.Reach, u.Destinations)
		if u.Inherited > 0 {
			got = append(got, "inherited="+strconv.Itoa(u.Inherited))
		}
		if !slices.Equal(got, args[2:]) {
			ts.Fatalf("%s: %s were used for %q, want %q", args[0], args[1], got, args[2:])
		}
		return
	}
	ts.Fatalf("%s used no %s", args[0], args[1])
}

// stall stops the learner, the sensor in it included, until resume.
func cmdStall(ts *testscript.TestScript, neg bool, args []string) {
	of(ts).signal(ts, syscall.SIGSTOP)
}

// resume lets the learner go on, and waits until what was lost meanwhile is
// recorded.
func cmdResume(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv("RESUMED", time.Now().Format(time.RFC3339Nano))
	of(ts).signal(ts, syscall.SIGCONT)
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		for _, s := range report(ts).Sessions {
			if len(s.Gaps) > 0 {
				return
			}
		}
	}
	ts.Fatalf("no gap was recorded")
}

func (s *script) signal(ts *testscript.TestScript, sig syscall.Signal) {
	if s.learner == nil {
		ts.Fatalf("no learner is running")
	}
	ts.Check(s.learner.cmd.Process.Signal(sig))
}

// gaps 0: no session has one. gaps N PATH: there is one, which spans the time
// at which the learner was resumed and no more than that since the last canary.
// Of N observations that were made while it stood still, of the starts and ends
// of PATH, what is not in the report was lost and counted.
func cmdGaps(ts *testscript.TestScript, neg bool, args []string) {
	type gap struct {
		from, to time.Time
		count    int
	}
	var gaps []gap
	for _, s := range report(ts).Sessions {
		for _, g := range s.Gaps {
			gaps = append(gaps, gap{g.From, g.To, g.Count})
		}
	}
	if args[0] == "0" {
		if len(gaps) != 0 {
			ts.Fatalf("there are gaps: %+v", gaps)
		}
		return
	}
	if len(gaps) != 1 {
		ts.Fatalf("gaps are %+v, want one", gaps)
	}
	made, err := strconv.Atoi(args[0])
	ts.Check(err)
	told := mustRow(ts, args[1]).Runs
	// An end can have been told where its start was lost, and a canary may have
	// come by.
	const ends, canary = 3, 10
	lost := made - told.Seen - told.Complete
	if g := gaps[0]; g.count < lost-ends || g.count > lost+canary {
		ts.Fatalf("lost are %d of %d, and told %+v", g.count, made, told)
	}
	resumed, err := time.Parse(time.RFC3339Nano, ts.Getenv("RESUMED"))
	ts.Check(err)
	const between = 12 * time.Second // canaries, and what goes with a busy machine
	if g := gaps[0]; g.from.Before(resumed.Add(-between)) || g.from.After(resumed) || g.to.Before(resumed) || g.to.After(resumed.Add(within)) {
		ts.Fatalf("the gap is %+v, want it around %v", g, resumed)
	}
}
