package profiler_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"profile/internal/cgroup/cgrouptest"
	"profile/internal/tetragon"
	"profile/profiler"
	"profile/store"
)

func TestLearnOnThisKernel(t *testing.T) {
	needKernel(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("session", func(t *testing.T) {
		agent, s, group := startSensor(t), newStore(t), cgrouptest.Make(t)
		l := start(t, options(t, agent, s, group))
		for range 20 {
			runIn(t, group, "/bin/true")
		}
		runIn(t, group, "getent", "hosts", "localhost")
		runIn(t, group, "sh", "-c", "(sleep 0.2 & exec true); exec env sh -c 'sleep 0.3'")
		session := l.end(t)

		if session.Ended.IsZero() || session.End != "stopped" || len(session.Windows) != 1 || len(session.Gaps) != 0 || session.NoSocketHook {
			t.Errorf("session %+v, want one window and no gap", session)
		}
		if w := session.Windows[0].To.Sub(session.Windows[0].From); session.Awake <= 0 || session.Awake > w+time.Second {
			t.Errorf("awake %v in %v", session.Awake, w)
		}
		rows := readRows(t, s)
		want := map[string][2]uint64{} // seen, and network runs
		for name, n := range map[string][2]uint64{"true": {21}, "getent": {1, 1}, "sh": {2}, "sleep": {2}, "env": {1}} {
			path, err := exec.LookPath(name)
			if err == nil {
				path, err = filepath.EvalSymlinks(path)
			}
			if err != nil {
				t.Fatal(err)
			}
			want[path] = n
		}
		for path, n := range want {
			row, ok := rows[path]
			if !ok || len(row.Files) != 1 {
				t.Errorf("%s: %d tallies, want 1", path, len(row.Files))
				continue
			}
			got := row.Files[0]
			if got.Seen != n[0] || got.Complete != n[0] || got.Clean != n[0] || got.UnseenCount != 0 || !got.File.Known() {
				t.Errorf("%s: %+v, want %d complete runs of a known file", path, got, n[0])
			}
			var network uint64
			for _, u := range got.Network {
				network = max(network, u.Runs)
			}
			if network != n[1] {
				t.Errorf("%s: network in %d runs, want %d", path, network, n[1])
			}
			delete(rows, path)
		}
		for path := range rows {
			t.Errorf("evidence of %s, which did not run in the group", path)
		}
		if left, err := agent.Policies(t.Context(), tetragon.LearnPrefix); err != nil || len(left) != 0 {
			t.Errorf("policies left: %v, error %v", left, err)
		}
	})
}

func TestLearnIsRefusedWhileAnotherLearns(t *testing.T) {
	needKernel(t)
	agent, s, group := startSensor(t), newStore(t), cgrouptest.Make(t)
	l := start(t, options(t, agent, s, group))
	_, err := profiler.Learn(t.Context(), options(t, agent, s, group))
	var held *store.HeldError
	if !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("error %v, want one that names this process", err)
	}
	l.end(t)
	if sessions := readSessions(t, s); len(sessions) != 1 {
		t.Errorf("%d sessions, want the one that learned", len(sessions))
	}
}

func TestLearnEndsWhatWasKilled(t *testing.T) {
	needKernel(t)
	agent, s, group := startSensor(t), newStore(t), cgrouptest.Make(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	dead := store.Session{ID: "20260102t030405z-abcdef", Started: at, Windows: []store.Window{{From: at.Add(time.Second), To: at.Add(time.Minute)}}}
	unopened := store.Session{ID: "20260102t030406z-abcdef", Started: at}
	rebooted := store.Session{ID: "20260102t030407z-abcdef", Started: at, BootID: "of another boot"}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.PutSession(&dead), tx.PutSession(&unopened), tx.PutSession(&rebooted))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Add(t.Context(), profiler.AuditPolicy(dead.ID, agent, group)); err != nil {
		t.Fatal(err)
	}
	o := options(t, agent, s, group)
	o.For = time.Second
	if _, err := profiler.Learn(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	sessions := readSessions(t, s)
	if len(sessions) != 4 {
		t.Fatalf("%d sessions, want 4", len(sessions))
	}
	if got := sessions[2]; got.End != "ended by a reboot" || !got.Ended.Equal(at) {
		t.Errorf("session %s ended %v, %q; want by a reboot at %v", got.ID, got.Ended, got.End, at)
	}
	for i, ended := range []time.Time{at.Add(time.Minute), at} {
		if got := sessions[i]; got.End != "killed" || !got.Ended.Equal(ended) {
			t.Errorf("session %s ended %v, %q; want killed at %v", got.ID, got.Ended, got.End, ended)
		}
	}
	if got := sessions[3]; got.End != "its time was over" || got.Awake < 500*time.Millisecond {
		t.Errorf("session ended %q after %v awake, want its second", got.End, got.Awake)
	}
}

func TestLearnLeavesAloneWhatIsNotItsDatabases(t *testing.T) {
	needKernel(t)
	agent, s, group := startSensor(t), newStore(t), cgrouptest.Make(t)
	other := profiler.AuditPolicy("20260102t030405z-abcdef", agent, group)
	if err := agent.Add(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	o := options(t, agent, s, group)
	o.For = time.Second
	if _, err := profiler.Learn(t.Context(), o); err == nil || !strings.Contains(err.Error(), "one at a time") {
		t.Errorf("error %v: this sensor keeps one audit policy", err)
	}
	left, err := agent.Policies(t.Context(), tetragon.LearnPrefix)
	if err != nil || len(left) != 1 || left[0].GetName() != other.Metadata.Name {
		t.Errorf("policies %v, error %v: want the other database's alone", left, err)
	}
	sessions := readSessions(t, s)
	if len(sessions) != 1 || sessions[0].Ended.IsZero() || !strings.Contains(sessions[0].End, "one at a time") {
		t.Errorf("sessions %+v, want one that ended at once and says why", sessions)
	}
}

func TestLearnRefusesBeforeAnythingIsRecorded(t *testing.T) {
	needKernel(t)
	agent, s, group := startSensor(t), newStore(t), cgrouptest.Make(t)
	o := options(t, agent, s, group)
	o.Only = []string{"/usr/[bin"}
	if _, err := profiler.Learn(t.Context(), o); err == nil || !strings.Contains(err.Error(), "not a pattern") {
		t.Errorf("error %v, want one about the pattern", err)
	}
	o.Only, o.CanaryDir = nil, "/proc"
	if _, err := profiler.Learn(t.Context(), o); err == nil || !strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v, want one about the canary", err)
	}
	if sessions := readSessions(t, s); len(sessions) != 0 {
		t.Errorf("%d sessions, want none: nothing was attached", len(sessions))
	}
}

func TestLearnKeepsWhatCouldNotBeStored(t *testing.T) {
	needKernel(t)
	agent, s, group := startSensor(t), newStore(t), cgrouptest.Make(t)
	l := start(t, options(t, agent, s, group))
	if err := os.Rename(s.Path(), s.Path()+".away"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		runIn(t, group, "/bin/true")
	}
	time.Sleep(2500 * time.Millisecond) // a flush that fails, or two
	if err := os.Rename(s.Path()+".away", s.Path()); err != nil {
		t.Fatal(err)
	}
	rows := flushed(t, s, 5)
	if len(rows) != 1 {
		t.Fatalf("%d rows, want 1", len(rows))
	}
	for path, row := range rows {
		if row.Files[0].Seen != 5 {
			t.Errorf("%s: seen %d, want 5", path, row.Files[0].Seen)
		}
	}
	l.end(t)
}

func TestLearnFailsIfItsLastFlushDoes(t *testing.T) {
	needKernel(t)
	agent, s, group := startSensor(t), newStore(t), cgrouptest.Make(t)
	l := start(t, options(t, agent, s, group))
	if err := os.Remove(s.Path()); err != nil {
		t.Fatal(err)
	}
	l.stop()
	<-l.done
	if l.err == nil || !strings.Contains(l.err.Error(), "store the end of session") {
		t.Errorf("error %v, want one about the last flush", l.err)
	}
	if left, err := agent.Policies(t.Context(), tetragon.LearnPrefix); err != nil || len(left) != 0 {
		t.Errorf("policies left: %v, error %v", left, err)
	}
}

func TestLearnRecordsASessionWhoseAgentWentAway(t *testing.T) {
	needKernel(t)
	s, group := newStore(t), cgrouptest.Make(t)
	agent := startSensor(t)
	l := start(t, options(t, agent, s, group))
	runIn(t, group, "/bin/true")
	flushed(t, s, 1)
	if err := agent.Close(); err != nil {
		t.Fatal(err)
	}
	<-l.done
	if l.err == nil || !strings.Contains(l.err.Error(), "read events of agent") {
		t.Errorf("error %v, want one about the stream", l.err)
	}
	sessions := readSessions(t, s)
	if len(sessions) != 1 || sessions[0].Ended.IsZero() || !strings.Contains(sessions[0].End, "read events of agent") {
		t.Errorf("sessions %+v, want one that says why it ended", sessions)
	}
	seen := uint64(0)
	for _, row := range readRows(t, s) {
		seen += row.Files[0].Seen
		if row.Files[0].Complete != 0 {
			t.Errorf("%s is complete, and no canary came after it", row.Key.Path)
		}
	}
	if seen != 1 {
		t.Errorf("%d runs seen, want 1", seen)
	}
}

// flushed gives what is stored once it has so many runs, or after a minute.
func flushed(t *testing.T, s *store.Store, runs uint64) map[string]store.Evidence {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		rows, seen := readRows(t, s), uint64(0)
		for _, row := range rows {
			seen += row.Files[0].Seen
		}
		if seen >= runs || time.Now().After(deadline) {
			return rows
		}
	}
}
