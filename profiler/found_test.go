package profiler

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestWhatWasFoundRunningIsUnseen(t *testing.T) {
	w := newWorld(t).open()
	early := begun.Add(-time.Hour).UnixNano()
	for pid, path := range map[uint32]string{10: "/bin/idle", 11: "/bin/execs", 12: "/bin/forks", 13: "/bin/gone", 14: "/bin/told", 15: "/bin/opens", 17: "/bin/both"} {
		if pid == 14 {
			w.before(pid, path)
		}
		w.f.Found(pid, path, early)
	}
	w.f.Found(16, "/bin/new", w.now.UnixNano()) // its fork is told of
	w.want("/bin/idle", count{Unseen: 1, Alive: 1})
	w.want("/bin/told", count{Unseen: 1, Alive: 1})
	w.want("/bin/new", count{})

	w.exec(11, "/bin/next")
	w.exit(11)
	w.fork(12, 20)
	w.exit(12)
	w.runs(13, "/bin/other")
	w.socket(15, 2, 1)
	w.fork(17, 21)
	w.exit(21)
	w.runs(17, "/bin/next")
	w.canary()
	w.want("/bin/execs", count{Unseen: 1})
	w.want("/bin/both", count{Unseen: 1})
	w.want("/bin/next", count{Seen: 2, Complete: 2, Clean: 2})
	w.want("/bin/forks", count{Unseen: 1, Alive: 1})
	w.want("/bin/gone", count{Unseen: 1})
	w.want("/bin/other", count{Seen: 1, Complete: 1, Clean: 1})
	w.want("/bin/opens", count{Unseen: 1, Alive: 1, Network: 1})
	if gaps := w.session().Gaps; len(gaps) > 0 {
		t.Errorf("gaps %+v", gaps)
	}
	w.f.Sweep(func(pid uint32) bool { return pid != 10 })
	w.want("/bin/idle", count{Unseen: 1})
}

func TestRunningProcessesOfThisHost(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	before := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	all, err := host{}.running()
	if err != nil {
		t.Fatal(err)
	}
	want, err := filepath.EvalSymlinks(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	const tick = 20 * time.Millisecond
	for _, one := range all {
		if int(one.pid) != cmd.Process.Pid {
			continue
		}
		started := time.Unix(0, one.started)
		if one.path != want || started.Before(before.Add(-tick)) || started.After(after.Add(tick)) {
			t.Errorf("%+v started at %s, want %s between %s and %s", one, started, want, before, after)
		}
		return
	}
	t.Errorf("%d processes, and not %d", len(all), cmd.Process.Pid)
}
