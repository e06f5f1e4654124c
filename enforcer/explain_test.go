package enforcer

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// identities differ from machine to machine.
var identity = regexp.MustCompile(`inode \d+, [^,]+, changed [0-9TZ:-]+`)

// explained is what Explain tells, without what differs from run to run.
func (s *scene) explained(name string, o ExplainOptions) (string, error) {
	s.t.Helper()
	db := database(s.t, func(tx *store.Tx) error { return putAll(tx, s.sessions, s.generations, s.rows...) })
	var text strings.Builder
	err := db.View(context.Background(), func(tx *store.Tx) error {
		story, err := Explain(context.Background(), tx, name, o)
		for _, chapter := range story {
			text.WriteString(chapter.Title + "\n")
			for _, line := range chapter.Lines {
				text.WriteString("  " + line + "\n")
			}
		}
		return err
	})
	plain := strings.ReplaceAll(text.String(), s.dir, "/DIR")
	return identity.ReplaceAllString(plain, "inode N, SIZE, changed TIME"), err
}

// asIs gives a tally the identity of the file that is there.
func (s *scene) asIs(file string, t store.Tally) store.Tally {
	id, err := identify(file)
	if err != nil {
		s.t.Fatal(err)
	}
	t.File = id
	return t
}

// add gives a path evidence of a session.
func (s *scene) add(scope, file, session string, t store.Tally) *store.Evidence {
	s.rows = append(s.rows, keyed(scope, file, row(session, t)))
	return &s.rows[len(s.rows)-1]
}

func named(t store.Tally, names ...string) store.Tally {
	for _, name := range names {
		t.Entries = append(t.Entries, store.Entry{Name: name, Runs: t.Seen / uint64(len(names))})
	}
	return t
}

// stories are the golden cases: each makes its scene and says what is asked.
var stories = map[string]func(s *scene) (name string, o ExplainOptions){
	"quiet": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "quiet")
		s.sessions = append(s.sessions, watched("b", 20, 30))
		s.sessions[0].Awake, s.sessions[1].Awake = 10*time.Hour, 90*time.Minute
		s.add("host", file, "a", s.asIs(file, named(runs(4), file)))
		s.add("host", file, "b", s.asIs(file, named(runs(2), file, "/usr/local/bin/quiet")))
		return file, ExplainOptions{}
	},
	"network": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "fetch")
		t := s.asIs(file, named(runs(6), file))
		t.Network = []store.Use{
			{Family: "inet", Type: "dgram", Runs: 6, First: at(1), Last: at(2), Reach: store.ReachLoopback, Destinations: nil},
			{Family: "inet", Type: "stream", Runs: 5, First: at(1), Last: at(1), Reach: store.ReachOut | store.ReachListen,
				Destinations: []string{"192.0.2.7:443", "[2001:db8::1]:80"}, Inherited: 1}}
		s.add("host", file, "a", t)
		link := filepath.Join(s.dir, "link")
		symlink(s.t, file, link)
		return link, ExplainOptions{}
	},
	"narrowed": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "fetch")
		t := s.asIs(file, named(runs(6), file))
		t.Network = []store.Use{{Family: "inet", Type: "stream", Runs: 2, First: at(1), Last: at(1), Reach: store.ReachLoopback}}
		s.sessions[0].Agent, s.sessions[0].Hook = "unix:///run/tetragon.sock", "kprobe/security_socket_create"
		s.sessions[0].Handed, s.sessions[0].NoSendHook = false, true
		s.sessions[0].Narrowed = []store.Narrowed{{Path: file, From: at(1)}}
		s.add("host", file, "a", t)
		return file, ExplainOptions{}
	},
	"start-not-seen": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "daemon")
		s.add("host", file, "a", s.asIs(file, store.Tally{UnseenCount: 1}))
		return file, ExplainOptions{}
	},
	"still-going": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "daemon")
		s.add("host", file, "a", s.asIs(file, going(runs(1), 9.5)))
		return file, ExplainOptions{Thresholds: Thresholds{MinRuns: 3}, Given: true}
	},
	"gap": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		s.sessions = []store.Session{withGap(watched("a", 0, 10), lost, lostAny), watched("b", 10, 20)}
		s.add("host", file, "a", s.asIs(file, runs(2)))
		s.add("host", file, "b", s.asIs(file, runs(2)))
		return file, ExplainOptions{}
	},
	"script": func(s *scene) (string, ExplainOptions) {
		shell := program(s.t, s.dir, "shell")
		script := write(s.t, s.dir, "job.sh", "#!"+shell+"\ntrue\n", 0o755)
		t := s.asIs(shell, named(runs(4), script))
		t.Entries[0].Script = true
		s.add("host", shell, "a", t)
		return script, ExplainOptions{}
	},
	"script-gone": func(s *scene) (string, ExplainOptions) {
		shell, script := program(s.t, s.dir, "shell"), filepath.Join(s.dir, "job.sh")
		t := s.asIs(shell, named(runs(4), script))
		t.Entries[0].Script = true
		s.add("host", shell, "a", t)
		return script, ExplainOptions{}
	},
	"symlink-gone": func(s *scene) (string, ExplainOptions) {
		tool, link := program(s.t, s.dir, "tool"), filepath.Join(s.dir, "link")
		s.add("host", tool, "a", s.asIs(tool, named(runs(4), link)))
		return link, ExplainOptions{}
	},
	"script-not-seen": func(s *scene) (string, ExplainOptions) {
		shell := program(s.t, s.dir, "shell")
		return write(s.t, s.dir, "job.sh", "#! "+shell+" -e\ntrue\n", 0o755), ExplainOptions{}
	},
	"replaced": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		s.sessions = append(s.sessions, watched("b", 10, 20))
		s.add("host", file, "a", of(oldFile, 1, 2, used(runs(3), "inet", "stream")))
		s.add("host", file, "b", of(newFile, 11, 12, runs(5)))
		return file, ExplainOptions{}
	},
	"gone": func(s *scene) (string, ExplainOptions) {
		file := filepath.Join(s.dir, "gone")
		s.add("host", file, "a", of(oldFile, 1, 2, runs(3)))
		return file, ExplainOptions{}
	},
	"attempts": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "turned")
		g := s.loaded(store.StageEnforce, file)
		g.Since, g.MinRuns, g.MinWatch = at(5), 2, 30*time.Minute
		g.Kills = []store.Kill{{Path: file, Kills: 3, LastKill: at(7)}}
		e := s.add("host", file, "a", s.asIs(file, runs(2)))
		e.Attempts = []store.Attempt{{Family: "inet", Type: "stream", Stage: store.StageMonitor, Count: 1, First: at(4), Last: at(4)}}
		return file, ExplainOptions{}
	},
	"containers": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		s.add("host", file, "a", s.asIs(file, runs(2)))
		s.add("nginx:1/web", file, "a", used(runs(1), "inet", "stream"))
		return file, ExplainOptions{}
	},
	"protected": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "sshd")
		s.add("host", file, "a", s.asIs(file, runs(2)))
		return file, ExplainOptions{}
	},
	"never-seen": func(s *scene) (string, ExplainOptions) {
		return program(s.t, s.dir, "new"), ExplainOptions{Thresholds: Thresholds{Since: at(3), AcceptGaps: true}, Given: true}
	},
	"family": func(s *scene) (string, ExplainOptions) {
		file, older := program(s.t, s.dir, "app-1.10/tool"), program(s.t, s.dir, "app-1.9/tool")
		s.add("host", file, "a", s.asIs(file, runs(2)))
		s.add("host", older, "a", s.asIs(older, used(runs(2), "inet", "stream")))
		return file, ExplainOptions{}
	},
	"rebooted": func(s *scene) (string, ExplainOptions) {
		file := program(s.t, s.dir, "tool")
		s.sessions[0].Ended, s.sessions[0].BootID = time.Time{}, "another"
		s.add("host", file, "a", s.asIs(file, going(runs(1), 3)))
		return file, ExplainOptions{}
	},
}

func TestExplainTellsTheStory(t *testing.T) { mustTell(t, stories) }

func mustTell(t *testing.T, stories map[string]func(s *scene) (name string, o ExplainOptions)) {
	t.Helper()
	for name, tell := range stories {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			asked, o := tell(s)
			got, err := s.explained(asked, o)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "explain", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExplainOfAProcess(t *testing.T) {
	s := newScene(t)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, s.dir, "sleeper", string(raw), 0o755)
	cmd := exec.Command(file, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	s.add("host", file, "a", s.asIs(file, runs(1)))
	pid := fmt.Sprint(cmd.Process.Pid)
	got, err := s.explained(pid, ExplainOptions{})
	if err != nil || !strings.Contains(got, "process "+pid+` runs "/DIR/sleeper"`) || !strings.Contains(got, "verdict: quiet") {
		t.Errorf("told %v:\n%s", err, got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	got, err = s.explained(pid, ExplainOptions{})
	if err != nil || !strings.Contains(got, "deleted or replaced since") || !strings.Contains(got, "not there any more") {
		t.Errorf("told of a deleted file: %v\n%s", err, got)
	}
}

func TestExplainRefusesWhatIsNoProgram(t *testing.T) {
	s := newScene(t)
	for _, name := range []string{filepath.Join(s.dir, "missing"), s.dir, "4194304", "2147483648"} {
		if got, err := s.explained(name, ExplainOptions{}); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: error %v, want ErrUsage; told %s", name, err, got)
		}
	}
}
