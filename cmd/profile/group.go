package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"profile/internal/cgroup"
)

// groupPrefix begins the names of commands' cgroups, and digits end them. Those
// of units end otherwise.
const groupPrefix = "profile-learn-"

func isGroupName(name string) bool {
	digits, ok := strings.CutPrefix(name, groupPrefix)
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// commandGroup is the cgroup of a command. It is locked for as long as this
// process lives, which tells it from one that a killed learner has left.
type commandGroup struct {
	cgroup.Group
	held *os.File // its directory
}

// makeGroup makes a cgroup below that of this process.
func makeGroup() (*commandGroup, error) {
	parent, err := ownGroup()
	if err != nil {
		return nil, err
	}
	for {
		dir, err := os.MkdirTemp(parent.Dir, groupPrefix)
		if err != nil {
			return nil, fmt.Errorf("make a cgroup for the command: %w", err)
		}
		g, err := holdGroup(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken for one that was left, before it was locked
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(dir))
		}
		return g, nil
	}
}

// holdGroup locks a cgroup that was made.
func holdGroup(dir string) (*commandGroup, error) {
	held, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the command's cgroup: %w", err)
	}
	if err = unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		err = fmt.Errorf("lock the command's cgroup: %w", err)
	}
	var group cgroup.Group
	if err == nil {
		group, err = cgroup.Find(dir)
	}
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return &commandGroup{group, held}, nil
}

// ownGroup is the cgroup of this process. One that has controllers enabled
// takes no processes in its children's place; then it is the root.
func ownGroup() (cgroup.Group, error) {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return cgroup.Group{}, fmt.Errorf("find the own cgroup: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			if g, err := cgroup.Find(path); err == nil {
				return g, nil
			}
		}
	}
	return cgroup.Root()
}

// remove removes the cgroup and those below that the command has made. What it
// left running there is moved to the cgroup above.
func (g *commandGroup) remove() error {
	defer g.held.Close()
	above := filepath.Join(filepath.Dir(g.Dir), "cgroup.procs")
	var err error
	for range 100 {
		groups := groupsBelow(g.Dir)
		for _, dir := range groups {
			pids, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for _, pid := range strings.Fields(string(pids)) {
				_ = os.WriteFile(above, []byte(pid), 0) // it may have ended
			}
		}
		if err = removeGroups(groups); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("remove the command's cgroup: %w", err)
}

// groupsBelow are a cgroup and those below, each before the one that it is in.
func groupsBelow(dir string) []string {
	var groups []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return nil // what has gone meanwhile
	})
	slices.Reverse(groups)
	return groups
}

func removeGroups(groups []string) error {
	var errs []error
	for _, dir := range groups {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// clearGroups removes the cgroups that killed learners have left beside where
// one of this process would be, if what they ran has ended. A command that runs
// on keeps its own.
func clearGroups() {
	parent, err := ownGroup()
	if err != nil {
		return
	}
	clearGroupsIn(parent.Dir)
}

func clearGroupsIn(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if entry.IsDir() && isGroupName(entry.Name()) {
			clearGroup(filepath.Join(dir, entry.Name()))
		}
	}
}

// clearGroup removes a cgroup, unless its learner lives or something runs in it.
func clearGroup(dir string) {
	held, err := os.Open(dir)
	if err != nil {
		return
	}
	defer held.Close()
	if unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if err == nil && slices.Contains(strings.Split(string(events), "\n"), "populated 0") {
		_ = removeGroups(groupsBelow(dir)) // something may have come into it
	}
}
