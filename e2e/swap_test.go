package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// While one generation takes the other's place, $PROFILE_SWAPS times, a listed
// program opens sockets without a pause, in ever new processes and in the
// children of one that is older than all but the first generation. None gets
// through.
func TestNothingGetsThroughWhileGenerationsSwap(t *testing.T) {
	swaps := many(t, "PROFILE_SWAPS", 20)
	before := loaded(t)
	t.Run("swap", func(t *testing.T) { swap(t, swaps) })
	assertSame(t, before, loaded)
}

func swap(t *testing.T, swaps int) {
	s := newSite(t)
	port, srv := s.serve()
	tool, extra := filepath.Join(s.dir, "tool"), filepath.Join(s.dir, "extra")
	s.copies("sidedoor", tool)
	s.copies("actor", extra)
	s.learn(func() {
		if status, out := s.run(tool, []string{tool}); status != 0 {
			t.Errorf("tool ends with %v: %s", status, out)
		}
	})
	s.profile("enforce", "--cgroup", s.group.Name(), "--yes", "--include", extra)

	var openers sync.WaitGroup
	var stop atomic.Bool
	var launched int
	openers.Go(func() {
		for ; !stop.Load(); launched++ {
			status, out := s.run(tool, []string{tool, "call", "inet/stream"})
			if status.Signal() != syscall.SIGKILL {
				t.Errorf("launch %d of the listed program ends with status %x: %s", launched, int(status), out)
				return
			}
		}
	})
	var bred bytes.Buffer
	breeder := s.start(tool, []string{tool, "breed", port}, &bred)
	for n := range swaps {
		change := "--exclude"
		if n%2 == 1 {
			change = "--include"
		}
		s.profile("enforce", "--cgroup", s.group.Name(), "--yes", change, extra)
		if t.Failed() {
			break
		}
	}
	stop.Store(true)
	openers.Wait()
	if err := breeder.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("the breeder has ended: %v", err)
	}
	if err := breeder.Wait(); err != nil {
		t.Fatalf("the breeder: %v: %s", err, bred.String())
	}
	children, err := strconv.Atoi(strings.TrimSpace(bred.String()))
	if err != nil {
		t.Fatal(err)
	}
	if n := srv.count(); n != 0 {
		t.Errorf("%d connections got through", n)
	}
	if launched < swaps || children < swaps {
		t.Errorf("%d launches and %d children in %d swaps: too few to say anything", launched, children, swaps)
	}

	// For a moment two generations act and count; they are asked one after the
	// other, and in between the loop goes on.
	kills, killed := 0, launched+children
	var doc statusDoc
	s.read(&doc, "status", "-o", "json")
	for _, row := range doc.Kills {
		if row.Path == tool {
			kills = row.Count
		}
	}
	t.Logf("%d swaps, %d launches, %d children, %d kills counted", swaps, launched, children, kills)
	if off := max(kills-killed, killed-kills); off > killed/50 {
		t.Errorf("status counts %d kills of %d", kills, killed)
	}
	if _, err := os.Stat(pinsOf(s.db)); err != nil {
		t.Error(err)
	}
}
