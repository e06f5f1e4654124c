package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const (
	systemBPFFS = "/sys/fs/bpf"      // where systemd mounts one, shared by every mount namespace
	ownBPFFS    = "/run/profile/bpf" // mounted by us where the machine has none
	systemDir   = systemBPFFS + "/profile"
	ownDir      = ownBPFFS + "/profile" // the kernel has files of its own beside it
	bpfFSMagic  = unix.BPF_FS_MAGIC
)

func isBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == bpfFSMagic
}

// pinRoot is the directory that holds the pins of every database, "" if there
// is none. What lies in a bpffs of our own is used up there, also when the
// machine got one since. Else the system's is preferred.
func pinRoot() string {
	own := isBPFFS(ownBPFFS)
	if own {
		if _, err := os.Stat(ownDir); err == nil {
			return ownDir
		}
	}
	if isBPFFS(systemBPFFS) {
		return systemDir
	}
	if own {
		return ownDir
	}
	return ""
}

// makePinRoot is pinRoot, made or mounted if need be.
func makePinRoot() (string, error) {
	if !isBPFFS(systemBPFFS) {
		// Between a look at the mount and a directory made in it another process
		// could unmount it, and the directory would be made in the mount point.
		lock, err := lockAt(filepath.Dir(ownBPFFS), func() error {
			return os.MkdirAll(filepath.Dir(ownBPFFS), 0o711) // the socket of profile agent may be in it
		})
		if err != nil {
			return "", fmt.Errorf("make a mount point for a bpffs: %w; %s", err, mountYourself)
		}
		defer lock.Close()
		if !isBPFFS(ownBPFFS) {
			if err := mountOwn(); err != nil {
				return "", err
			}
		}
	}
	root := pinRoot()
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", fmt.Errorf("make the directory of pins: %w", err)
	}
	return root, nil
}

const mountYourself = "mount one at " + systemBPFFS + ": mount -t bpf bpf " + systemBPFFS

func mountOwn() error {
	if err := os.MkdirAll(ownBPFFS, 0o700); err != nil {
		return fmt.Errorf("make a mount point for a bpffs: %w; %s", err, mountYourself)
	}
	if err := unix.Mount("bpf", ownBPFFS, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a bpffs at %s: %w; %s", ownBPFFS, err, mountYourself)
	}
	return nil
}

// checkLasting refuses a bpffs that process 1 does not have, at whatever place:
// another root shows it elsewhere. What is in force in one that a container or a
// unit has for itself is seen by no command outside, and ends with its mount
// namespace, silently. Where it cannot be known what process 1 has, nothing is
// refused. For what ends with its process, as learning does, any will do.
func checkLasting(mountPoint string) error {
	var here unix.Stat_t
	if err := unix.Stat(mountPoint, &here); err != nil {
		return fmt.Errorf("look at the bpffs at %s: %w", mountPoint, err)
	}
	first, err := mountsOf(1)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out whether %s is a bpffs of the machine: %w", mountPoint, err)
	}
	if !slices.ContainsFunc(first, func(there *mountinfo.Info) bool {
		return there.FSType == "bpf" && unix.Mkdev(uint32(there.Major), uint32(there.Minor)) == here.Dev
	}) {
		return fmt.Errorf("the bpffs at %s would be this mount namespace's alone, and what is in force would end with that, unseen from outside; "+
			"outside of it %s (a container is given that with -v %s:%s)", mountPoint, mountYourself, systemBPFFS, systemBPFFS)
	}
	return nil
}

func mountsOf(pid int) ([]*mountinfo.Info, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mountinfo.GetMountsFromReader(f, nil)
}

// unmountOwn unmounts a bpffs of our own in which nothing is left. The mount
// point stays: a directory that is removed takes with it what is mounted there
// in other mount namespaces, and whatever is in force there.
func unmountOwn() error {
	lock, err := lockAt(filepath.Dir(ownBPFFS), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	mounted, err := mountinfo.Mounted(ownBPFFS)
	if err != nil || !mounted {
		return err
	}
	// Since the root was removed another process may have made it again, and
	// what it pinned would end with the mount.
	if _, err := os.Lstat(ownDir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Another process may have it open for a moment: it is left to that one.
	if err := unix.Unmount(ownBPFFS, 0); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil
		}
		return fmt.Errorf("unmount %s: %w", ownBPFFS, err)
	}
	return nil
}
