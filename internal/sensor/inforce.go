package sensor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"profile/internal/cgroup"
	"profile/internal/sensor/bpf"
)

// enforcements reads what is pinned. What is only half there is listed too,
// with the error.
func enforcements(dir string, shared *sharedMaps) ([]*enforcement, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	var all []*enforcement
	for _, entry := range entries {
		n, err := strconv.ParseUint(entry.Name(), 10, 32)
		if err != nil || !entry.IsDir() || n >= maxPolicies {
			continue
		}
		e := &enforcement{slot: uint32(n), dir: filepath.Join(dir, entry.Name())}
		e.err = e.read(shared)
		all = append(all, e)
	}
	return all, nil
}

func (e *enforcement) read(shared *sharedMaps) error {
	if err := e.readMeta(); err != nil {
		return err
	}
	var s bpf.SensorScope
	if err := shared.maps["scopes"].Lookup(e.slot, &s); err != nil {
		return fmt.Errorf("read the mode: %w", err)
	}
	if e.mode = bpf.SensorMode(s.Mode); e.mode == bpf.SensorModeMODE_NONE {
		return errors.New("its mode is gone, and whether it acts cannot be told")
	}
	if err := e.checkLinks(); err != nil {
		return err
	}
	return e.checkCgroup()
}

func (e *enforcement) readMeta() error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(e.dir, pinMeta), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("open the description: %w", err)
	}
	defer m.Close()
	if e.metaID, err = idOf(m); err != nil {
		return err
	}
	return e.decodeMeta(m)
}

func (e *enforcement) decodeMeta(m *ebpf.Map) error {
	var raw []byte
	if err := m.Lookup(uint32(0), &raw); err != nil {
		return fmt.Errorf("read the description: %w", err)
	}
	if err := json.Unmarshal(bytes.TrimRight(raw, "\x00"), &e.meta); err != nil {
		return fmt.Errorf("read the description: %w", err)
	}
	return nil
}

// readStats reads the counts of those paths that have any.
func (e *enforcement) readStats(names *listNames) error {
	tallies, err := e.readTallies()
	if err != nil {
		return fmt.Errorf("read the counts: %w", err)
	}
	n := len(tallies)
	if n < extraTallies {
		return errors.New("read the counts: they are cut short")
	}
	e.failed = tallies[n-1].Kills
	e.stats = nil
	// What is listed by not being in the list is counted together.
	if others := tallies[n-extraTallies]; others.Kills+others.Would > 0 {
		e.stats = append(e.stats, stat{"", others})
	}
	for i, t := range tallies[:n-extraTallies] {
		if t.Kills+t.Would == 0 {
			continue
		}
		paths, err := names.of(e)
		if err != nil {
			return fmt.Errorf("read the list: %w", err)
		}
		if i < len(paths) {
			e.stats = append(e.stats, stat{paths[i], t})
		}
	}
	return nil
}

// readTallies reads all counts in one step.
func (e *enforcement) readTallies() ([]bpf.SensorTally, error) {
	// A descriptor that can only be read cannot be mapped.
	counts, err := ebpf.LoadPinnedMap(filepath.Join(e.dir, pinTallies), nil)
	if err != nil {
		return nil, err
	}
	defer counts.Close()
	tallies := make([]bpf.SensorTally, counts.MaxEntries())
	size := len(tallies) * int(unsafe.Sizeof(bpf.SensorTally{}))
	if size == 0 {
		return nil, nil
	}
	memory, err := unix.Mmap(counts.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&tallies[0])), size), memory)
	return tallies, unix.Munmap(memory)
}

// listNames remembers the paths of lists, by the index of their counts: a list
// does not change, and to read 20,000 paths takes 10 ms.
type listNames struct {
	byID map[ebpf.MapID][]string
}

// of gives the paths of a policy's list.
func (l *listNames) of(e *enforcement) ([]string, error) {
	list, err := ebpf.LoadPinnedMap(filepath.Join(e.dir, pinList), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer list.Close()
	id, err := idOf(list)
	if err != nil {
		return nil, err
	}
	if paths, ok := l.byID[id]; ok {
		return paths, nil
	}
	paths := make([]string, list.MaxEntries())
	set := func(text []byte, index uint32) {
		if int64(index) < int64(len(paths)) {
			text, _, _ = bytes.Cut(text, []byte{0})
			paths[index] = string(text)
		}
	}
	if outerOf(e.Op) == "prefixes" {
		err = readList(list, func(key *prefixKey, index uint32) { set(key.Text[:], index) })
	} else {
		err = readList(list, func(key *[maxPath + 1]byte, index uint32) { set(key[:], index) })
	}
	if err != nil {
		return nil, err
	}
	l.put(id, paths)
	return paths, nil
}

// keep remembers the paths of a list that was just filled.
func (l *listNames) keep(list *ebpf.Map, paths []string) error {
	id, err := idOf(list)
	if err == nil {
		l.put(id, paths)
	}
	return err
}

func (l *listNames) put(id ebpf.MapID, paths []string) {
	if l.byID == nil || len(l.byID) >= maxPolicies {
		l.byID = map[ebpf.MapID][]string{}
	}
	l.byID[id] = paths
}

func idOf(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("ask for a map: %w", err)
	}
	id, _ := info.ID()
	return id, nil
}

// listChunk is how many paths are read in one step.
const listChunk = 4096

// readList gives each entry of a list.
func readList[K any](list *ebpf.Map, give func(*K, uint32)) error {
	keys, values := make([]K, listChunk), make([]uint32, listChunk)
	var at ebpf.MapBatchCursor
	for {
		n, err := list.BatchLookup(&at, keys, values, nil)
		for i := range n {
			give(&keys[i], values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// checkLinks finds out whether the hooks are still there. A link whose cgroup
// was removed, or that was detached, is pinned still and does nothing.
func (e *enforcement) checkLinks() error {
	for _, name := range e.Programs {
		l, err := link.LoadPinnedLink(filepath.Join(e.dir, pinLink+name), nil)
		if err != nil {
			return fmt.Errorf("the hook %s is gone: %w", name, err)
		}
		info, err := l.Info()
		l.Close()
		if err != nil {
			return fmt.Errorf("ask the hook %s: %w", name, err)
		}
		if cg := info.Cgroup(); cg != nil && cg.CgroupId == 0 {
			return fmt.Errorf("the hook %s was detached, or cgroup %q was removed", name, e.Cgroup)
		}
	}
	return nil
}

// checkCgroup finds out whether the cgroup is the one that the hooks know by its
// id: one that is removed and made anew, as a unit's is that is restarted, has
// another, and nothing in it is acted on. Where the tree is not to be seen whole
// this cannot be told.
func (e *enforcement) checkCgroup() error {
	if e.Level == 0 {
		return nil
	}
	group, err := cgroup.Find(e.Cgroup)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cgroup %q was removed", e.Cgroup)
	case err == nil && group.ID != e.CgroupID:
		return fmt.Errorf("cgroup %q was made anew since, and what runs in it is not acted on", e.Cgroup)
	}
	return nil
}

// times turns the boot times of a tally into wall-clock times.
func (t *stat) times() (kill, would time.Time) {
	c := &clock{}
	if t.tally.LastKill != 0 {
		kill = c.wall(t.tally.LastKill).UTC()
	}
	if t.tally.LastWould != 0 {
		would = c.wall(t.tally.LastWould).UTC()
	}
	return kill, would
}
