package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"profile/internal/cgroup/cgrouptest"
)

func TestOnlyGroupsThatKilledLearnersLeftAreCleared(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root: it makes cgroups")
	}
	parent := cgrouptest.Make(t)
	t.Cleanup(func() {
		groups := groupsBelow(parent.Dir)
		if err := removeGroups(groups[:len(groups)-1]); err != nil {
			t.Error(err)
		}
	})
	group := func(name string) *os.File {
		dir := filepath.Join(parent.Dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	group("profile-learn-1")
	group("profile-learn-2/made/by-it")
	if err := unix.Flock(int(group("profile-learn-3").Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	running := exec.Command("sleep", "60")
	running.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group("profile-learn-4/below").Fd()), Pdeathsig: syscall.SIGKILL}
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		running.Process.Kill()
		running.Wait()
	})
	group("profile-learn-daily.service") // a unit's, which has ended
	group("profile-learn-")
	clearGroupsIn(parent.Dir)
	for name, want := range map[string]bool{
		"profile-learn-1": false, "profile-learn-2": false, "profile-learn-3": true, "profile-learn-4/below": true,
		"profile-learn-daily.service": true, "profile-learn-": true,
	} {
		_, err := os.Stat(filepath.Join(parent.Dir, name))
		if there := !errors.Is(err, fs.ErrNotExist); there != want {
			t.Errorf("%s is there: %v, want %v", name, there, want)
		}
	}
}
