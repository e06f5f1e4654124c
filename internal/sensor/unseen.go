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
func unseen(pins string, found []ebpf.MapID) (all []*enforcement, err error) {
	_, err = after(0, func(id ebpf.MapID) error {
		if slices.Contains(found, id) {
			return nil
		}
		e, err := describedBy(id)
		if e != nil && e.Pins == pins {
			all = append(all, e)
		}
		return err
	})
	return all, err
}

// newcomers finds policies that come to be pinned where this process does not
// see them, at little cost: of the kernel's maps it looks at new ones alone.
type newcomers struct {
	kernel       machine
	before, last ebpf.MapID // as far as was looked the last time but one, and the last
}

// newcomers begins with those that come from now on.
func (m machine) newcomers() (*newcomers, error) {
	n := &newcomers{kernel: m}
	var err error
	n.last, err = after(0, func(ebpf.MapID) error { return nil })
	n.before = n.last
	return n, err
}

// look gives why there is one, nil if there is none. It looks at each map twice,
// since a description may be written after its map was made.
func (n *newcomers) look() (far, err error) {
	came := false
	last, err := after(n.before, func(id ebpf.MapID) error {
		e, err := describedBy(id)
		came = came || err == nil && e != nil && e.Pins == n.kernel.cfg.Name
		return nil // what cannot be looked at was not made by this program
	})
	if err != nil {
		return nil, err
	}
	n.before, n.last = n.last, last
	if !came {
		return nil, nil
	}
	_, all, err := n.kernel.all()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return fmt.Errorf("policy %s: %w", all[0].Name, all[0].err), nil
}

// after calls do for each map of the kernel that was made after another, and
// gives the last.
func after(id ebpf.MapID, do func(ebpf.MapID) error) (ebpf.MapID, error) {
	for {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return id, nil
		}
		if err != nil {
			return id, fmt.Errorf("list the maps of the kernel: %w", err)
		}
		id = next
		if err := do(id); err != nil {
			return id, err
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
