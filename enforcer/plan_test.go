package enforcer

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/procfs"

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

func TestPlanEnforcesTheQuietAndTellsWhyItHoldsTheRest(t *testing.T) {
	s := newScene(t)
	quiet := s.learned("quiet", runs(1))
	net := s.learned("net", used(used(runs(1), "inet", "stream"), "inet6", "dgram"))
	short := s.learned("short", going(store.Tally{}, 9.5))
	plan := s.mustPlan(quiet)
	mustHold(t, plan, net, "network: inet stream, inet6 dgram")
	mustHold(t, plan, short, "unproven: still going; no complete run (needs 1)")
	if diff := cmp.Diff([]string{"inet", "inet6", "packet"}, plan.Families); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"vsock", "xdp", "smc"}, plan.Unwatched); diff != "" {
		t.Errorf("unwatched (-want +got):\n%s", diff)
	}
	id, err := identify(quiet)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Files[quiet] != id {
		t.Errorf("file %v, want %v", plan.Files[quiet], id)
	}
	if diff := cmp.Diff([]string{quiet}, plan.Added); diff != "" || plan.Loaded != 0 {
		t.Errorf("added (-want +got):\n%s\nagainst generation %d", diff, plan.Loaded)
	}
}

func TestPlanJSON(t *testing.T) {
	text, err := json.Marshal(&Plan{Enforce: []string{"/usr/bin/a"}, Held: []Held{{Path: "/usr/bin/\xff", Why: "unenforceable: its path is not UTF-8"}}, Warnings: []string{"w"},
		Thresholds: Thresholds{MinRuns: 2, MinWatch: time.Minute, AcceptGaps: true, Since: at(1)}, Wider: true})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"schema":1,"enforce":["/usr/bin/a"],"held":[{"path":"/usr/bin/\\xff","path_base64":"L3Vzci9iaW4v/w==","why":"unenforceable: its path is not UTF-8"}],` +
		`"warnings":["w"],"thresholds":{"min_runs":2,"min_watch_seconds":60,"accept_gaps":true,"since":"2026-03-01T01:00:00Z","wider":true}}`
	if string(text) != want {
		t.Errorf("%s\nwant %s", text, want)
	}
	if text, _ := json.Marshal(&Plan{}); !strings.HasPrefix(string(text), `{"schema":1,"enforce":[],"held":[],`) {
		t.Errorf("an empty plan: %s", text)
	}
}

func TestPlanHolds(t *testing.T) {
	entries := func(t store.Tally, names ...string) store.Tally {
		for _, n := range names {
			name, script := strings.CutPrefix(n, "script:")
			t.Entries = append(t.Entries, store.Entry{Name: name, Runs: 1, Script: script})
		}
		return t
	}
	for _, c := range []struct {
		name  string
		file  string
		tally store.Tally
		says  string // "" if it is to be enforced
		stays bool   // --include does not lift it
	}{
		{name: "a protected name", file: "sshd", tally: runs(1), says: "protected (matches sshd)"},
		{name: "a protected pattern of a person", file: "mine", tally: runs(1), says: "protected (matches **/mine)"},
		{name: "a known runtime", file: "python3.11", tally: runs(1), says: "a runtime (matches python[0-9]*)"},
		{name: "started through a script", file: "interp", tally: entries(runs(1), "script:/opt/run.sh"), says: "through the script /opt/run.sh"},
		{name: "started under several names", file: "multi", tally: entries(runs(1), "/usr/bin/gzip", "/usr/bin/gunzip"), says: "several names: gunzip, gzip"},
		{name: "one name in several directories", file: "one", tally: entries(runs(1), "/usr/bin/one", "/bin/one")},
		{name: "an open file is no name", file: "two", tally: entries(runs(1), "/usr/bin/two", "/proc/self/fd/7", "/dev/fd/3")},
		{name: "a path too long", file: strings.Repeat("d/", 100) + strings.Repeat("f", 100), tally: runs(1), says: "unenforceable: its path has", stays: true},
		{name: "a path that is not UTF-8", file: "\xff\xfe", tally: runs(1), says: "not UTF-8", stays: true},
		{name: "another file since it was learned", file: "replaced", tally: of(store.FileID{Dev: 1, Ino: 2, Size: 3, CtimeNS: 4}, 1, 2, runs(1)), says: "replaced since it was learned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			s.o.Protect = []string{"**/mine"}
			file := s.learned(c.file, c.tally)
			if c.says == "" {
				s.mustPlan(file)
				return
			}
			mustHold(t, s.mustPlan(), file, c.says)
			s.o.Include = []string{file}
			if c.stays {
				mustHold(t, s.mustPlan(), file, c.says)
				return
			}
			s.mustPlan(file)
			s.o.Exclude = []string{file}
			mustHold(t, s.mustPlan(), file, "excluded")
		})
	}
}

func TestPlanComparesTheFileThatWasLearned(t *testing.T) {
	s := newScene(t)
	file := s.learned("tool", store.Tally{})
	id, err := identify(file)
	if err != nil {
		t.Fatal(err)
	}
	id.Dev = 99 // as overlay and btrfs have it
	s.rows[0].Files = []store.Tally{of(id, 1, 2, runs(1))}
	s.mustPlan(file)
	later := id.CtimeNS
	for id.CtimeNS == later { // a clock may be coarse
		write(t, s.dir, "tool", elfHead+"changed", 0o755)
		now, err := identify(file)
		if err != nil {
			t.Fatal(err)
		}
		later = now.CtimeNS
	}
	mustHold(t, s.mustPlan(), file, "replaced since it was learned")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s.mustPlan(), file, "gone since it was learned")
	s.loaded(store.StageEnforce, file)
	s.mustPlan(file) // an upgrade does not lift a listing
}

func TestPlanHoldsEveryReason(t *testing.T) {
	s := newScene(t)
	file := s.learned("bash", of(oldFile, 1, 2, runs(1)))
	s.o.Protect = []string{file}
	plan := s.mustPlan()
	for _, says := range []string{"protected", "a runtime", "replaced since"} {
		mustHold(t, plan, file, says)
	}
}

func TestPlanHoldsWhatIsNotQuietInAContainer(t *testing.T) {
	s := newScene(t)
	file := s.learned("tool", runs(1))
	s.rows = append(s.rows, keyed("shop/web", file, row("a", used(runs(1), "inet", "stream"))))
	other := program(t, s.dir, "only")
	s.rows = append(s.rows, keyed("shop/web", other, row("a", runs(1))))
	plan := s.mustPlan()
	mustHold(t, plan, file, "not quiet in container shop/web: network: inet stream")
	mustHold(t, plan, other, "seen only in container shop/web")
	s.rows[1].Files = []store.Tally{runs(1)}
	s.mustPlan(file)
}

func TestPlanHoldsWhileAProcessLivesWhoseStartWasNotSeen(t *testing.T) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	proc, err := procfs.NewProc(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := proc.Stat()
	if err != nil {
		t.Fatal(err)
	}
	start, err := stat.StartTime()
	if err != nil {
		t.Fatal(err)
	}
	started := time.UnixMicro(int64(start * 1e6))
	unseen := func(session, boot string, started time.Time) *scene {
		s := newScene(t)
		s.sessions[0].BootID = boot
		file := s.learned("tool", runs(1))
		tally := runs(1)
		tally.UnseenCount, tally.Unseen = 1, []store.Process{{PID: uint32(cmd.Process.Pid), Start: started}}
		b := watched("b", 10, 20)
		b.BootID = boot
		s.sessions = append(s.sessions, b)
		s.rows = []store.Evidence{keyed("host", file, row("a", runs(1))), keyed("host", file, row("b", runs(1)))}
		for i := range s.rows {
			if s.rows[i].Session == session {
				s.rows[i].Files = []store.Tally{tally}
			}
		}
		return s
	}
	here := strings.TrimSpace(string(boot))
	s := unseen("b", here, started.Add(700*time.Millisecond))
	file := filepath.Join(s.dir, "tool")
	mustHold(t, s.mustPlan(), file, "start was not seen is alive")
	for _, s := range []*scene{
		unseen("b", "another boot", started),
		unseen("b", here, started.Add(-2*time.Second)),
		unseen("a", here, started), // a later session did not meet it
	} {
		s.mustPlan(filepath.Join(s.dir, "tool"))
	}
	s.o.Remote = true
	s.mustPlan(file)
	s.o.Remote = false
	cmd.Process.Kill()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) { // a zombie does not live
		if stat, err := proc.Stat(); err != nil || stat.State == "Z" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.mustPlan(file)
}

func TestPlanRefusesToEnforceMoreWidelyThanWasLearned(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Cgroup = "/a"
	file := s.learned("tool", runs(1))
	for _, c := range []struct {
		cgroup  string
		covered bool
	}{{"/", false}, {"/b", false}, {"/ab", false}, {"/a", true}, {"/a/b", true}} {
		s.o.Cgroup = c.cgroup
		plan, err := s.plan()
		var coverage *CoverageError
		if c.covered {
			if err != nil || len(plan.Enforce) != 1 {
				t.Errorf("in %s: %v, %v", c.cgroup, plan, err)
			}
		} else if !errors.As(err, &coverage) || !strings.Contains(err.Error(), "learned only in cgroup /a") {
			t.Errorf("in %s: error %v, want a *CoverageError that names cgroup /a", c.cgroup, err)
		}
	}
	s.o.Cgroup, s.o.Wider = "/", true
	s.mustPlan(file)
	s.o.Wider, s.o.Include = false, []string{"/bin/true"}
	plan := s.mustPlan(resolveName("/bin/true"))
	mustHold(t, plan, file, "learned only in cgroup /a")
}

// Each command that is learned has a cgroup of its own.
func TestARefusalNamesTwoOfManyPlaces(t *testing.T) {
	err := &CoverageError{Cgroup: "/", Learned: []string{"in cgroup /1", "in cgroup /2", "in cgroup /3", "in cgroup /4"}}
	want := "learned only in cgroup /1 and in cgroup /2 and in 2 other places: enforcing in the whole machine is wider than that"
	if got := err.Error(); got != want || len(err.Learned) != 4 {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPlanHoldsWhatRestsOnNarrowerSessions(t *testing.T) {
	s := newScene(t)
	narrow := watched("n", 10, 20)
	narrow.Cgroup = "/a"
	s.sessions = append(s.sessions, narrow)
	both := s.learned("both", runs(1))
	s.rows = append(s.rows, keyed("host", both, row("n", used(runs(1), "inet", "stream"))))
	only := program(t, s.dir, "only")
	s.rows = append(s.rows, keyed("host", only, row("n", runs(5))))
	few := s.learned("few", store.Tally{Seen: 1})
	s.rows = append(s.rows, keyed("host", few, row("n", runs(5))))
	plan := s.mustPlan()
	mustHold(t, plan, both, "network: inet stream")
	mustHold(t, plan, only, "learned only in cgroup /a")
	mustHold(t, plan, few, "learned only in cgroup /a")
	s.o.Wider = true
	s.mustPlan(few, only)
}

func TestPlanTakesARecordingForNoCoverage(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Agent = store.Recording
	file := s.learned("tool", runs(1))
	_, err := s.plan()
	var coverage *CoverageError
	if !errors.As(err, &coverage) || !strings.Contains(err.Error(), "learned only from a recording") {
		t.Errorf("error %v, want a *CoverageError that names the recording", err)
	}
	s.o.Wider = true
	s.mustPlan(file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.mustPlan(file) // it never was of this machine
}

func TestPlanHoldsWhatASessionWasNotAskedToWatch(t *testing.T) {
	s := newScene(t)
	s.sessions[0].Only = []string{"/elsewhere/**"}
	file := s.learned("tool", runs(1))
	mustHold(t, s.mustPlan(), file, "outside the --only")
	s.o.Only = []string{"/other/**"}
	if plan := s.mustPlan(); len(plan.Held) != 0 {
		t.Errorf("held %v: --only leaves it out", plan.Held)
	}
}

func TestPlanOnlyRestrictsWhatWasLearned(t *testing.T) {
	s := newScene(t)
	in, out := s.learned("in/tool", runs(1)), s.learned("out/tool", runs(1))
	s.o.Only = []string{s.dir + "/in/*"}
	s.mustPlan(in)
	s.o.Include = []string{out}
	s.mustPlan(in, out)
	s.o.Include = nil
	s.loaded(store.StageEnforce, out)
	s.mustPlan(in, out)
}

func TestPlanEnforcesTheFamiliesThatWereWatched(t *testing.T) {
	s := newScene(t)
	b := watched("b", 10, 20)
	b.Families = []string{"inet", "inet6", "vsock"}
	blind := watched("c", 20, 30)
	blind.Families, blind.NoSocketHook = nil, true
	s.sessions = append(s.sessions, b, blind)
	file := s.learned("tool", runs(1))
	want := func(families ...string) {
		t.Helper()
		plan, err := s.plan()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(families, plan.Families); diff != "" {
			t.Errorf("families (-want +got):\n%s", diff)
		}
	}
	want("inet", "inet6")
	s.o.AgentFamilies = []string{"inet", "packet"}
	want("inet")
	s.rows, s.o.Include = nil, []string{file}
	want("inet", "packet")
	s.o.AgentFamilies = nil
	want("inet", "inet6", "vsock") // what the last session watched
	s.sessions = nil
	want("inet", "inet6", "packet", "vsock") // what any Tetragon compares with by Equal
	s.loaded(store.StageEnforce, "/usr/bin/gone").Families = []string{"inet6"}
	want("inet6")
	s.o.AgentFamilies = []string{"packet"}
	if _, err := s.plan(); err == nil || !strings.Contains(err.Error(), "no socket family") {
		t.Errorf("error %v, want one that says there is no family", err)
	}
}
