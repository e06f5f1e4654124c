// Package cgroup names cgroups of the cgroup2 hierarchy: where it is mounted,
// and which group a person's argument means. It creates, changes and removes
// nothing, moves no process, and knows nothing of the version 1 controllers.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// ErrNoCgroup2 is returned where no cgroup2 hierarchy is mounted whole: not at
// all, or only the part of it that a cgroup namespace shows.
var ErrNoCgroup2 = errors.New("no cgroup2 hierarchy is mounted")

// Group is one cgroup of the cgroup2 hierarchy.
type Group struct {
	Path  string // absolute in the hierarchy, "/" for its root
	Dir   string // its directory in the file system, symlinks resolved
	ID    uint64 // as bpf_get_current_cgroup_id gives it: the inode of Dir
	Level int    // depth below the root, which is 0
}

// Root finds the root of the cgroup2 hierarchy, whose mount point differs from
// machine to machine. Errors match ErrNoCgroup2.
func Root() (Group, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return Group{}, fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	part := ""
	for _, m := range mounts {
		if strings.HasPrefix(m.Root, "/..") && isCgroup2(m.Mountpoint) {
			part = m.Mountpoint // the whole, as a namespace further down sees it
			continue
		}
		if m.Root != "/" || !isCgroup2(m.Mountpoint) {
			continue // a subtree bound elsewhere, or covered by another mount
		}
		// The kernel gives every group but the true root this file. A
		// namespace's root has it: "/" would then not be the machine.
		if _, err := os.Lstat(filepath.Join(m.Mountpoint, "cgroup.events")); err == nil {
			part = m.Mountpoint
			continue
		}
		return group("/", m.Mountpoint)
	}
	if part != "" {
		return Group{}, fmt.Errorf("%w whole: %q is seen from a cgroup namespace that is a part of it; "+
			"run outside the container, or enter the host's namespace (nsenter --target=1 --cgroup)", ErrNoCgroup2, part)
	}
	return Group{}, fmt.Errorf("%w; mount one: mount -t cgroup2 none DIR", ErrNoCgroup2)
}

// Find returns the cgroup that arg means: a directory of the mounted cgroup2
// tree, absolute or relative, through symlinks too; else a path in the
// hierarchy, as /proc/PID/cgroup shows it, with or without its leading slash.
// The error for a group that is not there matches fs.ErrNotExist.
func Find(arg string) (Group, error) {
	if arg == "" {
		return Group{}, errors.New("the cgroup's name is empty")
	}
	root, err := Root()
	if err != nil {
		return Group{}, err
	}
	dir, dirErr := filepath.EvalSymlinks(arg)
	if dirErr == nil && isCgroup2(dir) {
		return findDir(arg, dir, root)
	}
	path := filepath.Clean("/" + arg)
	g, err := group(path, filepath.Join(root.Dir, path))
	switch {
	case err == nil:
		return g, nil
	case dirErr == nil:
		return Group{}, fmt.Errorf("%q is not a directory of the cgroup2 tree, which is mounted at %q, "+
			"and there is no cgroup of that path: %w", arg, root.Dir, fs.ErrNotExist)
	case errors.Is(err, fs.ErrNotExist):
		return Group{}, fmt.Errorf("cgroup %q does not exist; cgroups are the directories below %q: %w",
			arg, root.Dir, fs.ErrNotExist)
	}
	return Group{}, err
}

// findDir finds the hierarchy's path of a directory, which may lie in another
// mount of the tree than root, or in one of a subtree.
func findDir(arg, dir string, root Group) (Group, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Group{}, fmt.Errorf("cgroup %q: %w", arg, err)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return Group{}, fmt.Errorf("find the mount of cgroup %q: %w", arg, err)
	}
	want, err := group(arg, dir)
	if err != nil {
		return Group{}, err
	}
	for _, m := range mounts {
		rel, err := filepath.Rel(m.Mountpoint, dir)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		path := filepath.Join(m.Root, rel)
		if g, err := group(path, filepath.Join(root.Dir, path)); err == nil && g.ID == want.ID {
			return g, nil
		}
	}
	return Group{}, fmt.Errorf("cgroup %q is not below %q, where the cgroup2 tree is mounted", arg, root.Dir)
}

func group(path, dir string) (Group, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Group{}, fmt.Errorf("cgroup %q: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return Group{}, fmt.Errorf("cgroup %q: %w", path, err)
	}
	if !isCgroup2(dir) {
		return Group{}, fmt.Errorf("cgroup %q: %q is not a directory of a cgroup2 tree", path, dir)
	}
	return Group{Path: path, Dir: dir, ID: st.Ino, Level: level(path)}, nil
}

func level(path string) int {
	if path == "/" {
		return 0
	}
	return strings.Count(path, "/")
}

func isCgroup2(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return false
	}
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}
