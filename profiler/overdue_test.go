package profiler_test

import (
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/profiler"
)

// A window is proven to its last canary that came back whole: what goes on when
// one does not has crossed unwatched time once another window opens.
func TestACanaryThatDoesNotComeBackEndsTheWindow(t *testing.T) {
	needKernel(t)
	t.Parallel() // it waits for two canaries
	var deaf atomic.Bool
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0", Real: true, Send: func(ev *api.GetEventsResponse) []*api.GetEventsResponse {
		if deaf.Load() && strings.Contains(ev.GetProcessExit().GetProcess().GetBinary(), "profile-canary-learn") {
			return nil
		}
		return []*api.GetEventsResponse{ev}
	}})
	group, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	o := options(t, fake.Local(t), s, group)
	tool := copied(t, "/bin/sleep")
	o.Only = []string{tool}
	l := start(t, o)
	goesOn := exec.Command(tool, "600")
	if err := goesOn.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = goesOn.Process.Kill(); _ = goesOn.Wait() })
	deaf.Store(true)
	time.Sleep(2*profiler.CanaryEvery + time.Second) // one was sent, and not waited for any longer
	deaf.Store(false)
	for deadline := time.Now().Add(time.Minute); len(onlySession(t, s).Windows) < 2 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	session := l.end(t)
	if len(session.Windows) != 2 {
		t.Fatalf("windows %v, want another after the first", session.Windows)
	}
	if unwatched := session.Windows[1].From.Sub(session.Windows[0].To); unwatched < profiler.CanaryEvery {
		t.Errorf("only %s were not watched", unwatched)
	}
	row := readRows(t, s)[tool]
	if len(row.Files) != 1 || row.Files[0].Seen != 1 || row.Files[0].Crossed != 1 {
		t.Errorf("%+v, want one run, which has crossed unwatched time", row)
	}
}
