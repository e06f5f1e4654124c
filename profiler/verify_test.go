package profiler

import (
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
)

func verifying(c *Config) { c.Verify = true }

// The answer holds for what was asked, and not for what came meanwhile.
func TestAnAnswerIsToTheFirstQuestion(t *testing.T) {
	w := newWorld(t, verifying).open()
	w.runs(10, "/bin/before")
	w.canary()
	asked := w.now
	w.pass(time.Second)
	w.runs(11, "/bin/after")
	w.canary()
	w.want("/bin/before", count{Seen: 1})
	w.f.Verified()
	if s := w.session(); !s.Windows[0].To.Equal(asked) {
		t.Errorf("proven to %v, want to when it was asked, %v", s.Windows[0].To, asked)
	}
	w.want("/bin/before", count{Seen: 1, Complete: 1, Clean: 1})
	w.want("/bin/after", count{Seen: 1})
	w.f.Verified() // nothing was asked
	w.want("/bin/after", count{Seen: 1})
	w.canary()
	w.f.Verified()
	w.want("/bin/after", count{Seen: 1, Complete: 1, Clean: 1})
}

// Where it is asked anew, the answer is to all that was asked.
func TestAnAnswerIsToBothQuestions(t *testing.T) {
	w := newWorld(t, far)
	w.socket(9, 2, 1, as{path: "/bin/net"})
	w.runs(10, "/bin/a")
	w.runs(11, "/bin/b")
	w.f.Ask()
	w.f.gap(w.now.UnixNano(), w.now.UnixNano(), "a loss", 1)
	w.runs(12, "/bin/a")
	w.runs(13, "/bin/c")
	w.f.AskAnew()
	at := w.now
	w.runs(14, "/bin/c")
	w.f.Verified()
	w.want("/bin/a", count{Seen: 2, Complete: 2, Clean: 1})
	w.want("/bin/b", count{Seen: 1, Complete: 1})
	w.want("/bin/c", count{Seen: 2, Complete: 1, Clean: 1})
	if to := w.session().Windows[0].To; to.Before(at) {
		t.Errorf("proven to %s, want to %s", to, at)
	}
	w.f.AskAnew() // nothing was waited for
	w.f.Verified()
	w.want("/bin/c", count{Seen: 2, Complete: 2, Clean: 2})
}

// A window that closes before the answer leaves what was asked about unproven:
// what began in it has crossed unwatched time once it opens again.
func TestAWindowThatClosesBeforeTheAnswer(t *testing.T) {
	w := newWorld(t, verifying).open()
	w.exec(10, "/bin/a")
	w.canary()
	w.f.Verified()
	w.exit(10)
	w.runs(11, "/bin/b") // wholly after what is proven
	w.canary()
	w.f.Overdue()
	w.want("/bin/a", count{Seen: 1})
	w.flush()
	w.canary()
	w.want("/bin/a", count{Seen: 1, Crossed: 1})
	w.want("/bin/b", count{Seen: 1})
	w.runs(12, "/bin/b")
	w.canary()
	w.f.Verified()
	w.want("/bin/b", count{Seen: 2, Complete: 1, Clean: 1})
}

// What ended after the last canary, before the stream did, is not complete.
func TestTheEndOfAStreamMakesNothingComplete(t *testing.T) {
	w := newWorld(t).open()
	w.runs(10, "/bin/a")
	w.f.Interrupt()
	w.canary()
	w.want("/bin/a", count{Seen: 1})
}

// An exec whose executable had not come when the stream ended is lost.
func TestTheEndOfAStreamEndsTheWaitForAnExecutable(t *testing.T) {
	w := newWorld(t).open()
	w.image(10, "/bin/a")
	w.f.Interrupt()
	w.canary()
	w.probe(10, "/bin/b") // of a later exec
	if got := w.count("/bin/b"); got.Seen+got.Unseen > 0 {
		t.Errorf("it was joined with an exec from before the stream ended: %+v", got)
	}
}

func TestThrottlingIsAGap(t *testing.T) {
	const start, stop = api.ThrottleType_THROTTLE_START, api.ThrottleType_THROTTLE_STOP
	w := newWorld(t).open()
	w.throttle("/a", start)
	began := w.now
	w.pass(time.Minute)
	w.throttle("/a", start) // is told again
	if gaps := w.session().Gaps; len(gaps) != 1 || !gaps[0].To.Equal(began) {
		t.Errorf("gaps %v, want one at the start", gaps)
	}
	w.pass(time.Minute)
	w.throttle("/a", stop)
	if gaps := w.session().Gaps; len(gaps) != 1 || !gaps[0].From.Equal(began) || !gaps[0].To.Equal(w.now) {
		t.Errorf("gaps %v, want one from the start to the stop", gaps)
	}
	w.throttle("/a", start)
	w.f.Interrupt()
	w.pass(time.Minute)
	w.canary()
	w.pass(time.Minute)
	w.throttle("/a", start) // by an agent that was restarted
	if gaps := w.session().Gaps; len(gaps) != 2 || !gaps[1].From.Equal(w.now) {
		t.Errorf("gaps %v, want another since now", gaps)
	}
	opened, _ := w.f.Opened()
	w.pass(time.Minute)
	w.throttle("/never-told", stop)
	if gaps := w.session().Gaps; !gaps[1].From.Equal(opened) {
		t.Errorf("gaps %v, want the whole window in one, since its start was not told", gaps)
	}
}
