package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"profile/internal/cgroup"
)

// rig is a database, a cgroup and an actor of a test's own.
type rig struct {
	t                 *testing.T
	cgroup, dir, tool string
	db, pins          string
}

func newRig(t *testing.T) *rig {
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir()}
	r.db, r.tool = filepath.Join(r.dir, "profile.db"), filepath.Join(r.dir, "tool")
	r.pins = pinsOf(r.db)
	raw, err := os.ReadFile(filepath.Join(built, "actor"))
	if err == nil {
		err = writeProgram(r.tool, raw)
	}
	if err == nil {
		r.cgroup, err = os.MkdirTemp(root.Dir, "profile-test-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.WriteFile(filepath.Join(r.cgroup, "cgroup.kill"), []byte("1"), 0)
		r.profile("release", "--yes").Run()
		for range 200 {
			if err := os.Remove(r.cgroup); err == nil || errors.Is(err, fs.ErrNotExist) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return r
}

func (r *rig) profile(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(built, "profile"), append([]string{"--db", r.db}, args...)...)
}

// must runs profile to its end, and gives what it prints.
func (r *rig) must(args ...string) string {
	r.t.Helper()
	cmd := r.profile(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("%q: %v: %s", args, err, &stderr)
	}
	return stdout.String()
}

// inside runs the tool in the cgroup.
func (r *rig) inside(args ...string) error {
	dir, err := os.Open(r.cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd := exec.Command(r.tool, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd.Run()
}

func (r *rig) seen() int {
	r.t.Helper()
	if _, err := os.Stat(r.db); errors.Is(err, fs.ErrNotExist) {
		return 0 // the first learner was killed before it made one
	}
	var doc reportDoc
	if err := json.Unmarshal([]byte(r.must("report", "-o", "json")), &doc); err != nil {
		r.t.Fatal(err)
	}
	for _, row := range doc.Executables {
		if row.Path == r.tool {
			return row.Runs.Seen
		}
	}
	return 0
}

func (r *rig) noPins() {
	r.t.Helper()
	if left, err := os.ReadDir(r.pins); !errors.Is(err, fs.ErrNotExist) {
		r.t.Errorf("%s is there still: %v %v", r.pins, left, err)
	}
}

// span is when a run began, before its exec, and when it had ended.
type span struct{ from, to time.Time }

// load runs the tool again and again until stopped, and tells of each run.
type load struct {
	mu    sync.Mutex
	runs  []span
	ended chan struct{}
	quit  chan struct{}
}

func (r *rig) startLoad() *load {
	l := &load{ended: make(chan struct{}), quit: make(chan struct{})}
	go func() {
		defer close(l.ended)
		for {
			select {
			case <-l.quit:
				return
			default:
			}
			from := time.Now()
			if err := r.inside(); err != nil {
				r.t.Errorf("run the tool: %v", err)
				return
			}
			l.mu.Lock()
			l.runs = append(l.runs, span{from, time.Now()})
			l.mu.Unlock()
		}
	}()
	return l
}

func (l *load) stop() { close(l.quit); <-l.ended }

// count counts the runs that began after one time and had ended before another.
func (l *load) count(from, to time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.runs {
		if s.from.After(from) && s.to.Before(to) {
			n++
		}
	}
	return n
}

// Twenty learners, or as many as make soak asks for, are killed, each at some
// moment, while programs start all the time. The database opens each time, and
// no more is missing than what was seen in the last flush interval, for which a
// flush is given half as much again, and twice what the disk took to keep a
// byte meanwhile: a flush waits for it twice.
func TestKilledLearnerLosesASecondAtMost(t *testing.T) {
	const rigs = 4
	kills := many(t, "PROFILE_KILLS", 20)
	before := loaded(t)
	disk := startDisk(t)
	t.Run("group", func(t *testing.T) {
		for n := range rigs {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				for i := range (kills + n) / rigs {
					// Every other one long after its window has opened.
					r.killLearner(disk, time.Duration(i%2)*2*time.Second+rand.N(2500*time.Millisecond))
				}
				r.must("learn", "--cgroup", r.cgroup, "--for", "200ms")
				r.noPins()
			})
		}
	})
	assertSame(t, before, loaded)
}

func (r *rig) killLearner(disk *disk, after time.Duration) {
	r.t.Helper()
	lost := 1500 * time.Millisecond
	seen := r.seen()
	l := r.startLoad()
	defer l.stop()
	cmd := r.profile("learn", "--cgroup", r.cgroup)
	stderr := &opened{}
	cmd.Stderr = stderr
	started := time.Now()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	time.Sleep(after)
	killed := time.Now()
	cmd.Process.Kill()
	cmd.Wait()
	dead := time.Now()
	slowest := disk.slowest(killed.Add(-2 * lost))
	lost += 2 * slowest
	got := r.seen() - seen
	least := 0
	if at := stderr.at(); !at.IsZero() {
		least = l.count(at, killed.Add(-lost))
	}
	// What was running at either end may have been seen or not.
	most := l.count(started.Add(-lost), dead) + 1
	r.t.Logf("killed after %s: %d runs seen, of %d to %d; the disk took %s", killed.Sub(started).Round(time.Millisecond), got, least, most, slowest)
	if got < least || got > most {
		r.t.Errorf("killed after %s: %d runs seen, want %d to %d; it said %q", killed.Sub(started), got, least, most, stderr)
	}
}

// opened is the stderr of a learner, and notes when its window was open.
type opened struct {
	mu   sync.Mutex
	text strings.Builder
	when time.Time
}

func (o *opened) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if o.when.IsZero() && strings.Contains(o.text.String(), "watching since") {
		o.when = time.Now()
	}
	return len(p), nil
}

func (o *opened) at() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.when
}

func (o *opened) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Killed at any moment, enforce leaves no gap: what was listed before dies all
// the time. The next one, or release, takes off what is left.
func TestKilledEnforceLeavesNoGap(t *testing.T) {
	before := loaded(t)
	t.Run("group", func(t *testing.T) {
		r := newRig(t)
		enforce := []string{"enforce", "--cgroup", r.cgroup, "--include", r.tool, "--yes"}
		r.must(enforce...)
		for range 3 {
			for range 3 {
				cmd := r.profile(enforce...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(rand.N(500 * time.Millisecond))
				cmd.Process.Kill()
				cmd.Wait()
				if err := r.inside("socket", "inet/stream"); err == nil || err.Error() != "signal: killed" {
					t.Errorf("the tool after a killed enforce: %v, want it killed", err)
				}
			}
			r.must(enforce...)
			r.must("status")
		}
		cmd := r.profile(enforce...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(500 * time.Millisecond))
		cmd.Process.Kill()
		cmd.Wait()
		r.must("release", "--yes")
		r.noPins()
		if err := r.inside("socket", "inet/stream"); err != nil {
			t.Errorf("the tool after release: %v", err)
		}
	})
	assertSame(t, before, loaded)
}
