package profiler

import (
	"testing"
	"time"
)

// What is told late, or in another order than it happened, counts by when it
// happened.
func TestWhatIsToldLate(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*world)
		want count
	}{
		{"a loss that is told after a later one", func(w *world) {
			w.f.Lost(w.now, w.now.Add(10*time.Second), "later", 1)
			w.f.Lost(w.now, w.now.Add(time.Second), "earlier", 1)
			w.pass(2 * time.Second)
			w.runs(10, "/bin/a")
		}, count{Seen: 1, Complete: 1}},
		{"an exec from before the window", func(w *world) {
			w.pass(-time.Second)
			w.exec(10, "/bin/a")
			w.pass(2 * time.Second)
			w.exit(10)
		}, count{Unseen: 1}},
		{"the executable of a run that crossed unwatched time", func(w *world) {
			w.image(10, "/bin/link")
			w.f.Overdue()
			w.canary()
			w.probe(10, "/bin/a")
			w.exit(10)
		}, count{Seen: 1, Crossed: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t).open()
			c.do(w)
			w.canary()
			w.want("/bin/a", c.want)
		})
	}
}

func TestAProcessOfADaemonThatEndsIsNoLongerListed(t *testing.T) {
	w := newWorld(t)
	w.before(10, "/bin/a")
	w.fork(10, 11)
	w.open()
	w.want("/bin/a", count{Unseen: 1, Alive: 2})
	w.exit(11)
	w.want("/bin/a", count{Unseen: 1, Alive: 1})
}

func TestACanaryWhoseEndWasLostHasNotComeBack(t *testing.T) {
	w := newWorld(t)
	w.canary("exit")
	pid := w.next - 2
	delete(w.live, pid)
	w.exec(pid, "/bin/a") // another process has its pid
	if _, open := w.f.Opened(); open {
		t.Error("it opened the window")
	}
}

func TestAnAnswerThatComesAfterTheWindowProvesNothing(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Verify = true }).open()
	w.runs(10, "/bin/a")
	w.canary() // asks
	w.f.Overdue()
	w.f.Verified()
	w.want("/bin/a", count{Seen: 1})
}
