package sensor

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"profile/internal/cgroup"
)

// cgroupPaths turns the kernel's id of a cgroup into its path. Only processes
// of other pid namespaces are asked for, so it stays small; it is bounded all
// the same.
type cgroupPaths struct {
	known map[uint64]string
}

const (
	maxCgroups    = 4096
	fileidKernfs  = 0xfe // FILEID_KERNFS of the kernel: the handle is the id
	handleIDBytes = 8
)

func newCgroupPaths() *cgroupPaths { return &cgroupPaths{known: map[uint64]string{}} }

// path is absolute in the hierarchy. A cgroup that has gone is named by its id.
func (c *cgroupPaths) path(id uint64) string {
	if p, ok := c.known[id]; ok {
		return p
	}
	p, err := openCgroup(id)
	if err != nil {
		p = "/cgroup-" + strconv.FormatUint(id, 10)
	}
	if len(c.known) >= maxCgroups {
		clear(c.known)
	}
	c.known[id] = p
	return p
}

func openCgroup(id uint64) (string, error) {
	root, err := cgroup.Root()
	if err != nil {
		return "", err
	}
	dir, err := os.Open(root.Dir)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	handle := unix.NewFileHandle(fileidKernfs, binary.NativeEndian.AppendUint64(nil, id)[:handleIDBytes])
	fd, err := unix.OpenByHandleAt(int(dir.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	path, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd)))
	if err != nil {
		return "", err
	}
	return "/" + strings.Trim(strings.TrimPrefix(path, root.Dir), "/"), nil
}
