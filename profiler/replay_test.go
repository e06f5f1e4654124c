package profiler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// replayed learns from an agent of another host that tells no forks, while do
// publishes a recording.
func replayed(t *testing.T, version string, do func(*playback)) (*store.Store, *store.Session) {
	t.Helper()
	return replayedBy(t, version, (*agenttest.Agent).Remote, do)
}

// replayedBy is that with a connection of its own: through an address of this
// host the window opens only once something was told.
func replayedBy(t *testing.T, version string, connect func(*agenttest.Agent, testing.TB) *tetragon.Agent, do func(*playback)) (*store.Store, *store.Session) {
	t.Helper()
	return replayInto(t, agenttest.Options{Version: version, Refuse: func(p *tetragon.Policy) error {
		if hasCall(p, tetragon.CallFork) || len(p.Spec.TracePoints) > 0 {
			return errors.New("no forks")
		}
		return nil
	}}, connect, do)
}

func replayInto(t *testing.T, o agenttest.Options, connect func(*agenttest.Agent, testing.TB) *tetragon.Agent, do func(*playback)) (*store.Store, *store.Session) {
	t.Helper()
	fake := agenttest.Start(t, o)
	agent := connect(fake, t)
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	opened := make(chan struct{})
	type result struct {
		session *store.Session
		err     error
	}
	done := make(chan result, 1)
	told := make(chan uint64, 1)
	go func() {
		session, err := Learn(ctx, Options{
			Agent: agent, Store: s, Group: root, CanaryDir: t.TempDir(),
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Opened: func(time.Time) { close(opened) },
			Progress: func(p Progress) {
				select {
				case told <- p.Events:
				default:
				}
			}})
		done <- result{session, err}
	}()
	if agent.OnThisHost() {
		for !slices.ContainsFunc(fake.Loaded(), func(name string) bool { return strings.HasSuffix(name, tetragon.SocketsSuffix) }) {
			time.Sleep(10 * time.Millisecond)
		}
		do(&playback{fake, t, told})
	}
	select {
	case <-opened:
		if !agent.OnThisHost() {
			do(&playback{fake, t, told})
		}
	case r := <-done:
		t.Fatal(r.err)
	}
	settle(t, told)
	stop()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return s, r.session
}

// settle waits until a learner, which is asked each second, takes in no more
// events: however slow the machine, what was published has come then.
func settle(t *testing.T, told <-chan uint64) {
	t.Helper()
	last, same := uint64(0), 0
	for range 60 {
		select {
		case n := <-told:
			if n != last {
				last, same = n, 0
			} else if same++; same == 2 {
				return
			}
		case <-time.After(time.Minute):
			t.Fatal("the learner says nothing any more")
		}
	}
	t.Fatal("events come without an end")
}

// playback is what a test plays events back with.
type playback struct {
	*agenttest.Agent
	t    *testing.T
	told <-chan uint64
}

func (p *playback) publish(events []*api.GetEventsResponse) {
	p.t.Helper()
	if !p.Publish(events...) {
		p.t.Fatal("no audit policy is loaded")
	}
	time.Sleep(200 * time.Millisecond)
}

// A hook that was taken, and of which nothing came, counts no forks.
func TestARecordingWithoutForksDoesNotCountThem(t *testing.T) {
	t.Parallel()
	s, session := replayInto(t, agenttest.Options{Version: "v1.7.0"}, (*agenttest.Agent).Remote,
		func(p *playback) { p.publish(decode(t, "workstation.jsonl")) })
	if len(session.Gaps) != 1 || session.Gaps[0].Cause != "forks cannot be counted" {
		t.Errorf("gaps %+v, want the one that forks cannot be counted", session.Gaps)
	}
	for path, row := range verdicts(t, s, false) {
		if row.Verdict == enforcer.Quiet {
			t.Errorf("%q is quiet", path)
		}
	}
}

func TestRecordingsThroughTheAPIAreAsByFrom(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]string{"workstation": "v1.7.0", "tools-v1.3": "v1.3.0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := map[string]string{"workstation": "workstation.jsonl", "tools-v1.3": "tools-v1.3.jsonl.gz"}[name]
			s, session := replayed(t, version, func(p *playback) { p.publish(decode(t, file)) })
			if len(session.Gaps) != 1 || !strings.Contains(session.Gaps[0].Cause, "cannot be counted") || session.Gaps[0].Count != 0 {
				t.Errorf("gaps %+v, want the one that forks cannot be counted", session.Gaps)
			}
			readTruth(t, name+".truth.json").check(t, verdicts(t, s, false), verdicts(t, s, true))
		})
	}
}

// What is played back at a socket of this host was not seen on it: no canary
// comes back, and the rule for recordings applies.
func TestARecordingAtALocalAddressIsAsOneFromAnotherHost(t *testing.T) {
	t.Parallel()
	do := func(p *playback) { p.publish(decode(t, "workstation.jsonl")) }
	far, _ := replayed(t, "v1.7.0", do)
	near, session := replayedBy(t, "v1.7.0", (*agenttest.Agent).Local, do)
	if len(session.Windows) != 1 || session.BootID != "" {
		t.Errorf("windows %v of boot %q, want one of no boot that is known here", session.Windows, session.BootID)
	}
	for _, lenient := range []bool{false, true} {
		want, got := verdicts(t, far, lenient), verdicts(t, near, lenient)
		for path, row := range want {
			if got[path].Verdict != row.Verdict || got[path].Runs != row.Runs {
				t.Errorf("%q is %q with %v, want %q with %v", path, got[path].Verdict, got[path].Runs, row.Verdict, row.Runs)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d executables, want %d", len(got), len(want))
		}
	}
}

func TestALossyRecordingThroughTheAPIIsAGapWithSpanAndNumber(t *testing.T) {
	t.Parallel() // it waits as long as a Tetragon may hold events back
	const lost = 30009
	events := decode(t, "lossy-v1.7.jsonl.gz")
	stopped := time.Date(2026, 11, 24, 17, 31, 25, 0, time.UTC)
	n := 0
	for n < len(events) && events[n].GetTime().AsTime().Before(stopped) {
		n++
	}
	s, session := replayed(t, "v1.7.0", func(p *playback) {
		p.publish(events[:n])
		settle(t, p.told)
		time.Sleep(5 * pollEvery / 2) // no question is open meanwhile: the events are timed in the past
		p.Lose(lost)
		p.publish(events[n:])
	})
	var found uint64
	for _, g := range session.Gaps {
		found += g.Count
		if g.Count > 0 && g.To.Sub(g.From) <= 0 {
			t.Errorf("gap %+v has no span", g)
		}
	}
	// The recording passes by faster than it happened, so that the times of its
	// events tell only roughly which of them the counter had in it.
	if found < lost*8/10 || found > lost*11/10 {
		t.Errorf("gaps %+v, want %d lost; windows %v", session.Gaps, lost, session.Windows)
	}
	strict, lenient := verdicts(t, s, false), verdicts(t, s, true)
	for path, row := range strict {
		if row.Verdict == enforcer.Quiet {
			t.Errorf("%q is quiet", path)
		}
	}
	for _, path := range []string{"/tmp/x/late", "/tmp/x/both", "/usr/bin/flood"} {
		if strict[path].Verdict != enforcer.Network {
			t.Errorf("%q is %q, and its socket was seen", path, strict[path].Verdict)
		}
	}
	// That is what the flag risks.
	for _, path := range []string{"/usr/bin/curl", "/usr/bin/nc.openbsd", "/usr/bin/wget", "/usr/bin/getent", "/usr/bin/perl"} {
		row := lenient[path]
		if row.Verdict != enforcer.Quiet || !strings.Contains(strings.Join(row.Reasons, " "), fmt.Sprint(found)) {
			t.Errorf("%q is %q by accepted gaps (%q), want quiet, with the number of what was lost", path, row.Verdict, row.Reasons)
		}
	}
	if got := lenient["/tmp/x/span"].Verdict; got == enforcer.Quiet {
		t.Error("span is quiet, and its run crosses the gap")
	}
}
