package profiler

import (
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
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

func TestAForkThatIsToldLateIsNotHeeded(t *testing.T) {
	w := newWorld(t).open()
	w.exec(20, "/bin/b")
	w.pass(time.Second)
	w.exec(11, "/bin/a")
	young := w.live[11]
	w.pass(-time.Second)
	w.fork(20, 11)
	w.live[11] = young
	w.pass(2 * time.Second)
	w.exit(11, 20)
	w.canary()
	w.want("/bin/a", count{Seen: 1, Complete: 1, Clean: 1})
	w.want("/bin/b", count{Seen: 1, Complete: 1, Clean: 1})
	if gaps := w.session().Gaps; len(gaps) > 0 {
		t.Errorf("gaps %v", gaps)
	}
}

func TestWhatEndedBeforeTheWindowHasNoRow(t *testing.T) {
	w := newWorld(t)
	w.before(10, "/bin/a")
	w.exit(10)
	w.open().flush()
	if len(w.rows) > 0 {
		t.Errorf("rows %v", w.rows)
	}
}

// An agent that tells of no forks is asked by the socket of a process that it
// does not know: a child of one that it knows, but only if that one's image is
// its own.
func TestAProcessWithAnExecOfItsOwnIsNoFork(t *testing.T) {
	for flags, want := range map[string]count{
		"execve":       {Seen: 1, Going: 1, Network: 1},
		"execve clone": {Seen: 1, Going: 1, Network: 1, Unseen: 1, Alive: 1},
	} {
		w := newWorld(t, func(c *Config) { c.Forks = false })
		w.canary("fork")
		w.exec(20, "/bin/a")
		parent, child := w.live[20], w.process(21, "/bin/a", flags)
		w.send(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessKprobe{ProcessKprobe: &api.ProcessKprobe{
			Process: child, Parent: parent, FunctionName: tetragon.CallSocketCreate, Args: ints(2, 1, 0, 0),
			Data: []*api.KprobeArgument{raw(tetragon.LabelPath, "/bin/a")}, PolicyName: testPolicy}}})
		if got := w.rowsOf("/bin/a"); got != want {
			t.Errorf("%s: got %+v, want %+v", flags, got, want)
		}
	}
}

// rowsOf adds up the tallies of a path, of whatever file.
func (w *world) rowsOf(path string) count {
	w.flush()
	var sum count
	for _, x := range w.rows[path].Files {
		sum.Seen += x.Seen
		sum.Going += x.Going.Clean
		sum.Unseen += x.UnseenCount
		sum.Alive += len(x.Unseen)
		for _, u := range x.Network {
			sum.Network += u.Runs
		}
	}
	return sum
}

func TestTheOldestAndTheNewestOfWhatGoesOn(t *testing.T) {
	w := newWorld(t).open()
	var times []time.Time
	for pid := range uint32(20) { // the fold goes through them in any order
		w.exec(10+pid, "/bin/a")
		times = append(times, w.now)
	}
	going := w.tally("/bin/a").Going
	first, last := times[0], times[len(times)-1]
	for _, got := range [][2]time.Time{{going.Oldest, first}, {going.OldestAny, first}, {going.Newest, last}, {going.NewestAny, last}} {
		if !got[0].Equal(got[1]) {
			t.Errorf("got %v, want %v; %+v", got[0], got[1], going)
		}
	}
}

// What may be a thread ends untold: that its number is another's is no loss.
func TestTheEndOfWhatMayBeAThreadIsNotLost(t *testing.T) {
	w := newWorld(t).open()
	w.exec(20, "/bin/b")
	w.f.forkOrThread(w.live[20], 30, w.now.UnixNano())
	w.fork(20, 30)
	w.exec(30, "/bin/a")
	w.exit(30)
	w.canary()
	if gaps := w.session().Gaps; len(gaps) > 0 {
		t.Errorf("gaps %v", gaps)
	}
	w.want("/bin/a", count{Seen: 1, Complete: 1, Clean: 1})
}
