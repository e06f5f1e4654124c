package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// unseen lists the policies that were pinned under the name and are not among
// those that were found there: pinned where this process does not see it, they
// act, and nothing here can take them off. The kernel lists every description,
// and has each for as long as it is pinned.
func unseen(pins string, found []ebpf.MapID) ([]*enforcement, error) {
	var all []*enforcement
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the maps of the kernel: %w", err)
		}
		id = next
		if slices.Contains(found, id) {
			continue
		}
		e, err := describedBy(id)
		if err != nil {
			return nil, err
		}
		if e != nil && e.Pins == pins {
			all = append(all, e)
		}
	}
}

// describedBy reads a policy's description, nil if the map is none, or gone.
func describedBy(id ebpf.MapID) (*enforcement, error) {
	m, err := ebpf.NewMapFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open map %d of the kernel: %w", id, err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return nil, fmt.Errorf("ask for map %d of the kernel: %w", id, err)
	}
	if info.Name != metaName || m.Type() != ebpf.Array || m.ValueSize() != maxMeta {
		return nil, nil
	}
	e := &enforcement{metaID: id}
	if err := e.decodeMeta(m); err != nil {
		return nil, nil // not one that tells whose it is
	}
	return e, nil
}

// whoSees says where pins of a name are that are not to be seen from here.
func whoSees(pins string) string {
	const hidden = "it is in the kernel still, pinned where this process does not see it; "
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		for _, root := range []string{systemDir, ownDir} {
			here, there := filepath.Join(root, pins), filepath.Join("/proc", entry.Name(), "root", root, pins)
			if isBPFFS(there) && !sameDevice(here, there) {
				return fmt.Sprintf(hidden+"process %s does: nsenter --mount --target %s", entry.Name(), entry.Name())
			}
		}
	}
	return hidden + "nor does any other: another bpffs is mounted over it, or its mount namespace has no processes"
}

func sameDevice(a, b string) bool {
	var one, other unix.Stat_t
	return unix.Stat(a, &one) == nil && unix.Stat(b, &other) == nil && one.Dev == other.Dev
}
