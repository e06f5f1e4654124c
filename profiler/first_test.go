package profiler_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/profiler"
)

// Of an agent of another host the window opens with the first event, on a busy
// node before the counter can be read to the number. What is lost meanwhile is
// not taken for what the counter held before.
func TestALossBeforeTheFirstReadingIsAGap(t *testing.T) {
	t.Parallel() // it waits as long as a Tetragon may hold an event back
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	agent := fake.Remote(t)
	// Another's policy, so that the node tells of programs from the beginning.
	if err := agent.Add(t.Context(), profiler.ProcessPolicy("20260102t030405z-fedcba")); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, agent: fake}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		lost := false
		for pid := uint32(1000); ; pid++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if told := fake.Publish(n.run(pid, "/usr/bin/busy", true)...); told && !lost && len(fake.Loaded()) == 3 {
				fake.Lose(7)
				lost = true
			}
		}
	}()
	l := start(t, profiler.Options{Agent: agent, Store: newStore(t), Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	n.forks(7, 8)
	time.Sleep(2 * time.Second)
	close(stop)
	<-done
	time.Sleep(idle)
	session := l.end(t)
	if len(session.Gaps) != 1 || session.Gaps[0].Count != 7 || !strings.Contains(session.Gaps[0].Cause, "posted more events than came") {
		t.Errorf("gaps %s, want 7 lost", gapsOf(t, session))
	}
}
