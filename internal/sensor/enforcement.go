package sensor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"profile/internal/cgroup"
	"profile/internal/sensor/bpf"
)

// enforcement is an enforcing policy that is pinned. It belongs to no process:
// it is read from its pins whenever it is asked about.
type enforcement struct {
	meta
	slot  uint32
	dir   string // "" if it is pinned where this process does not see it
	mode  bpf.SensorMode
	err   error // why it does not act, if it does not
	stats []stat
	// failed counts sockets that could not be judged.
	failed uint64
	metaID ebpf.MapID // of the description; 0 if it cannot be read
}

// meta is what the pins themselves do not say, kept beside them as JSON.
type meta struct {
	Name     string            `json:"name"`
	Pins     string            `json:"pins"` // the name of the directory of pins
	Cgroup   string            `json:"cgroup"`
	CgroupID uint64            `json:"cgroup_id"`
	Level    int               `json:"level"`
	HostOnly bool              `json:"host_only"`
	Families []int32           `json:"families"`
	Op       bpf.SensorMatchOp `json:"op"`
	// Programs are those that must be attached for the policy to act.
	Programs []string `json:"programs"`
}

// stat counts one path's attempts.
type stat struct {
	path  string
	tally bpf.SensorTally
}

var enforceMaps = []string{"lists", "prefixes", "scopes", "walks", "spares", "verdicts", "tallies", "exec_walk", "kprobe_walk"}

const (
	pinMeta    = "meta"
	metaName   = "profile_meta" // of its map
	pinList    = "list"
	pinTallies = "tallies"
	pinLink    = "link_" // and the program's name

	programCgroup = "enforce_socket"
)

// programs are those of an enforcing policy, in the order in which they are
// attached: exec and fork first, so that the socket hooks find what a process
// was when it was started.
func (h hooks) programs() []string {
	all := append([]string{"enforce_exec", "enforce_fork"}, h.enforce...)
	if h.cgroup {
		all = append(all, programCgroup)
	}
	return all
}

// lockPins opens the shared maps under the lock that every change takes. Where
// their pins were removed behind its back the directory has new ones, so that
// what else is in it can be told and removed.
func lockPins(name string, create bool) (dir string, shared *sharedMaps, unlock func() error, err error) {
	root, lock, err := lockRoot(create)
	if err != nil {
		return "", nil, nil, err
	}
	dir = filepath.Join(root, name)
	if create {
		if err := checkLasting(filepath.Dir(root)); err != nil {
			lock.Close()
			return "", nil, nil, errors.Join(err, sweep(name))
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			lock.Close()
			return "", nil, nil, fmt.Errorf("make the directory of pins: %w", err)
		}
	}
	_, missing := os.Stat(dir)
	shared, err = openShared(dir, missing == nil)
	if err != nil {
		lock.Close()
		return "", nil, nil, err
	}
	return dir, shared, func() error { shared.close(); return lock.Close() }, nil
}

// loadEnforcement loads, attaches and pins an enforcing policy. It acts when
// this returns; on an error nothing of it is left.
func loadEnforcement(p *Policy, h hooks, name string, names *listNames) (err error) {
	group, err := cgroup.Find(p.Cgroup)
	if err != nil {
		return err
	}
	dir, shared, unlock, err := lockPins(name, true)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, unlock())
		if err != nil {
			err = errors.Join(err, sweep(name))
		}
	}()
	slot, err := freeSlot(dir, shared)
	if err != nil {
		return err
	}
	e := &enforcement{slot: slot, dir: slotDir(dir, slot), meta: meta{
		Name: p.Name, Pins: name, Cgroup: p.Cgroup, CgroupID: group.ID, Level: group.Level, HostOnly: p.HostOnly,
		Families: p.Families, Op: p.Op, Programs: h.programs()}}
	if err := os.Mkdir(e.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of a policy: %w", err)
	}
	if err := e.load(p, h, group, shared, names); err != nil {
		return errors.Join(err, e.remove(shared))
	}
	return nil
}

func slotDir(dir string, slot uint32) string {
	return filepath.Join(dir, strconv.Itoa(int(slot)))
}

// freeSlot finds a slot of which there is no directory: a loader that was
// killed may have left one before it set the slot's mode.
func freeSlot(dir string, shared *sharedMaps) (uint32, error) {
	for i := range uint32(maxPolicies) {
		if _, err := os.Stat(slotDir(dir, i)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return i, shared.clear(i)
	}
	return 0, fmt.Errorf("%d policies are loaded, which is as many as there can be: delete one", maxPolicies)
}

// load takes the steps in the order in which no observer can be misled: the
// list, then its scope, then the number that makes observers ask anew, then
// the hooks.
func (e *enforcement) load(p *Policy, h hooks, group cgroup.Group, shared *sharedMaps, names *listNames) error {
	if err := e.pinMeta(); err != nil {
		return err
	}
	spec, err := loadObject()
	if err != nil {
		return err
	}
	list, err := e.makeList(spec, p)
	if err != nil {
		return err
	}
	defer list.Close()
	if err := names.keep(list, p.Paths); err != nil {
		return err
	}
	subset(spec, e.Programs, enforceMaps)
	if err := e.setConstants(spec, p, h, group); err != nil {
		return err
	}
	spec.Maps["tallies"].MaxEntries = uint32(len(p.Paths)) + extraTallies
	coll, err := loadCollection(spec, shared.replacements("lists", "prefixes", "scopes"))
	if err != nil {
		return fmt.Errorf("load the enforcing programs: %w", err)
	}
	defer coll.Close()
	if err := coll.Maps["tallies"].Pin(filepath.Join(e.dir, pinTallies)); err != nil {
		return fmt.Errorf("pin the counts: %w", err)
	}
	if err := shared.maps[outerOf(p.Op)].Put(e.slot, list); err != nil {
		return fmt.Errorf("put the list in its place: %w", err)
	}
	mode := bpf.SensorModeMODE_ENFORCE
	if p.Monitor {
		mode = bpf.SensorModeMODE_MONITOR
	}
	if err := e.setMode(shared, mode); err != nil {
		return err
	}
	return e.attach(coll, group)
}

func (e *enforcement) setConstants(spec *ebpf.CollectionSpec, p *Policy, h hooks, group cgroup.Group) error {
	if err := setScope(spec, group, p.Families); err != nil {
		return err
	}
	for name, value := range map[string]any{
		"slot": e.slot, "host_only": p.HostOnly, "can_kill": h.kill, "op": uint32(p.Op),
		"others_index": uint32(len(p.Paths)), "errors_index": uint32(len(p.Paths)) + 1,
	} {
		if err := setVariable(spec, name, value); err != nil {
			return err
		}
	}
	return nil
}

// extraTallies follow those of the paths: of what is listed by not being in the
// list, and of what could not be judged.
const extraTallies = 2

// outerOf names the map that holds the lists of such policies.
func outerOf(op bpf.SensorMatchOp) string {
	if op == bpf.SensorMatchOpOP_PREFIX || op == bpf.SensorMatchOpOP_NOT_PREFIX {
		return "prefixes"
	}
	return "lists"
}

// makeList makes and pins the map from paths, or prefixes, to their counts.
func (e *enforcement) makeList(spec *ebpf.CollectionSpec, p *Policy) (*ebpf.Map, error) {
	inner := spec.Maps[outerOf(p.Op)].InnerMap.Copy()
	inner.MaxEntries = uint32(len(p.Paths))
	inner.Contents = nil
	list, err := ebpf.NewMap(inner)
	if err != nil {
		return nil, fmt.Errorf("make a list of %d paths: %w", len(p.Paths), err)
	}
	if err = fillList(list, p); err == nil {
		err = list.Pin(filepath.Join(e.dir, pinList))
	}
	if err != nil {
		list.Close()
		return nil, fmt.Errorf("fill a list of %d paths: %w", len(p.Paths), err)
	}
	return list, nil
}

func fillList(list *ebpf.Map, p *Policy) error {
	values := make([]uint32, len(p.Paths))
	for i := range values {
		values[i] = uint32(i)
	}
	if outerOf(p.Op) == "prefixes" {
		keys := make([]prefixKey, len(p.Paths))
		for i, path := range p.Paths {
			keys[i].Bits = uint32(len(path)) * 8
			copy(keys[i].Text[:], path)
		}
		_, err := list.BatchUpdate(keys, values, nil)
		return err
	}
	keys := make([][maxPath + 1]byte, len(p.Paths))
	for i, path := range p.Paths {
		copy(keys[i][:], path)
	}
	_, err := list.BatchUpdate(keys, values, nil)
	return err
}

// prefixKey is the key of a prefix, as bpf/policy.h has it.
type prefixKey struct {
	Bits uint32
	Text [maxPath + 1]byte
}

// attach attaches the programs in their order. Each link is let go of once it
// is pinned: what acts is what is pinned, and nothing else.
func (e *enforcement) attach(coll *ebpf.Collection, group cgroup.Group) error {
	for _, name := range e.Programs {
		var l link.Link
		var err error
		if name == programCgroup {
			l, err = attachCgroup(group.Dir, ebpf.AttachCGroupInetSockCreate, coll.Programs[name])
		} else {
			l, err = attachProgram(coll.Programs[name])
		}
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		err = l.Pin(filepath.Join(e.dir, pinLink+name))
		if err := errors.Join(err, l.Close()); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	return nil
}

// setMode says whom the policy is about and what it does, in one step for
// every program that reads it.
func (e *enforcement) setMode(shared *sharedMaps, mode bpf.SensorMode) error {
	host := uint32(0)
	if e.HostOnly {
		host = 1
	}
	s := bpf.SensorScope{Cgroup: e.CgroupID, Level: uint32(e.Level), Mode: uint32(mode), HostOnly: host, Op: uint32(e.Op)}
	if err := shared.maps["scopes"].Put(e.slot, s); err != nil {
		return fmt.Errorf("set the mode of policy %s: %w", e.Name, err)
	}
	return shared.raise()
}

func (e *enforcement) pinMeta() error {
	raw, err := json.Marshal(e.meta)
	if err != nil {
		return err
	}
	if len(raw) > maxMeta {
		return fmt.Errorf("the description of policy %s is %d bytes, more than %d", e.Name, len(raw), maxMeta)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: metaName, Type: ebpf.Array, KeySize: 4, ValueSize: maxMeta, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make the description of policy %s: %w", e.Name, err)
	}
	defer m.Close()
	value := make([]byte, maxMeta)
	copy(value, raw)
	if err := m.Put(uint32(0), value); err != nil {
		return fmt.Errorf("write the description of policy %s: %w", e.Name, err)
	}
	if err := m.Pin(filepath.Join(e.dir, pinMeta)); err != nil {
		return fmt.Errorf("pin the description of policy %s: %w", e.Name, err)
	}
	return nil
}

// remove detaches and unpins. It goes on after an error, so that as much as
// can be is gone, and works on what is only half there.
func (e *enforcement) remove(shared *sharedMaps) error {
	errs := []error{e.detach()}
	errs = append(errs, shared.clear(e.slot), os.RemoveAll(e.dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove policy %s: %w", e.Name, err)
	}
	return nil
}

// detach removes the hooks, whichever are pinned.
func (e *enforcement) detach() error {
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	var errs []error
	for _, entry := range slices.Backward(entries) {
		if !strings.HasPrefix(entry.Name(), pinLink) {
			continue
		}
		path := filepath.Join(e.dir, entry.Name())
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			// It can still be unpinned with the directory.
			errs = append(errs, fmt.Errorf("open %s: %w", path, err))
			continue
		}
		// Unpinned first, then closed: the last reference is ours, and the
		// hook is gone when Close returns.
		errs = append(errs, l.Unpin(), l.Close())
	}
	return errors.Join(errs...)
}
