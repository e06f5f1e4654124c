package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// stormers are more than the processors: what opens sockets is preempted in the
// middle of it, and a kernel that preempts everywhere then leaves a program of
// ours out for whoever opens one meanwhile on the same processor.
const stormers = 12

// While others open sockets without a pause, $PROFILE_STORM executables open
// one each: learning sees it, or says that it lost something. Then each of as
// many runs of a listed program is killed for its socket, and as many of one
// that is not listed are let through.
func TestNothingIsMissedInAStormOfSockets(t *testing.T) {
	runs := many(t, "PROFILE_STORM", 60)
	before := loaded(t)
	t.Run("storm", func(t *testing.T) {
		s := newSite(t)
		s.stormLearned(runs)
		if !t.Failed() {
			s.stormEnforced(runs)
		}
	})
	assertSame(t, before, loaded)
}

func (s *site) stormLearned(runs int) {
	file := filepath.Join(s.dir, "tool")
	s.copies("sidedoor", file)
	tools := make([]string, runs)
	for i := range tools { // links, since copies of a thousand take much room
		tools[i] = fmt.Sprintf("%s-%04d", file, i)
		must(s.t, os.Link(file, tools[i]))
	}
	s.learn(func() {
		s.storm(func() {
			for _, tool := range tools {
				if status, out := s.run(tool, []string{tool, "call", "inet/dgram"}); status != 0 {
					s.t.Errorf("%s ends with status %x: %s", tool, int(status), out)
				}
			}
		})
	})
	var doc reportDoc
	s.read(&doc, "report", "-o", "json")
	rows := map[string]reportRow{}
	for _, row := range doc.Executables {
		rows[row.Path] = row
	}
	missed, lost := 0, 0
	for _, session := range doc.Sessions {
		for _, gap := range session.Gaps {
			lost += gap.Count
		}
	}
	for _, tool := range tools {
		switch row, there := rows[tool]; {
		case there && row.Verdict == "network":
		case there && row.Verdict == "quiet":
			s.t.Errorf("%s opened a socket and is quiet: %+v", tool, row)
		default:
			missed++
		}
	}
	s.t.Logf("of %d executables %d were not seen to open their socket; lost, as recorded: %d", runs, missed, lost)
	if missed > lost {
		s.t.Errorf("%d were missed, and gaps tell of %d", missed, lost)
	}
}

func (s *site) stormEnforced(runs int) {
	victim, other := filepath.Join(s.dir, "victim"), filepath.Join(s.dir, "other")
	s.copies("sidedoor", victim)
	s.copies("sidedoor", other)
	s.profile("enforce", "--cgroup", s.group.Name(), "--yes", "--include", victim)
	s.storm(func() {
		for n := range runs {
			if status, out := s.run(victim, []string{victim, "call", "inet/dgram"}); status.Signal() != syscall.SIGKILL {
				s.t.Errorf("run %d of the listed program ends with status %x: %s", n, int(status), out)
			}
			if status, out := s.run(other, []string{other, "call", "inet/dgram"}); status != 0 {
				s.t.Errorf("run %d of one that is not listed ends with status %x: %s", n, int(status), out)
			}
		}
	})
	var doc statusDoc
	s.read(&doc, "status", "-o", "json")
	for _, row := range doc.Kills {
		if row.Path == victim && row.Count == runs {
			return
		}
	}
	s.t.Errorf("status does not count %d kills of %s: %+v", runs, victim, doc.Kills)
}

// storm runs fn while a program that is not listed opens sockets without a
// pause, in many processes.
func (s *site) storm(fn func()) {
	s.t.Helper()
	program := filepath.Join(s.dir, "stormer")
	s.copies("sidedoor", program)
	var said [stormers]bytes.Buffer
	var started [stormers]*exec.Cmd
	for i := range started {
		if started[i] = s.start(program, []string{program, "storm", "inet/dgram"}, &said[i]); started[i] == nil {
			return // what was started ends with the cgroup
		}
	}
	fn()
	for i, cmd := range started {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // how it ended is in ProcessState
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			s.t.Errorf("a stormer ended with status %x: %s", int(status), said[i].String())
		}
	}
}
