package enforcer

import (
	"encoding/json"
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
