package sensor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

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
	dir   string
	mode  bpf.SensorMode
	err   error // why it does not act, if it does not
	stats []stat
	// failed counts sockets that could not be judged.
	failed uint64
}

// meta is what the pins themselves do not say, kept beside them as JSON.
type meta struct {
	Name     string  `json:"name"`
	Cgroup   string  `json:"cgroup"`
	CgroupID uint64  `json:"cgroup_id"`
	Level    int     `json:"level"`
	HostOnly bool    `json:"host_only"`
	Families []int32 `json:"families"`
	// Programs are those that must be attached for the policy to act.
	Programs []string `json:"programs"`
}

// stat counts one path's attempts.
type stat struct {
	path  string
	tally bpf.SensorTally
}

var enforceMaps = []string{"lists", "scopes", "walks", "verdicts", "tallies", "exec_walk"}

const (
	pinMeta    = "meta"
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

// lockPins opens the shared maps under the lock that every change takes.
func lockPins(name string, create bool) (dir string, shared *sharedMaps, unlock func() error, err error) {
	root, lock, err := lockRoot(create)
	if err != nil {
		return "", nil, nil, err
	}
	dir = filepath.Join(root, name)
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			lock.Close()
			return "", nil, nil, fmt.Errorf("make the directory of pins: %w", err)
		}
	}
	shared, err = openShared(dir, create)
	if err != nil {
		lock.Close()
		return "", nil, nil, err
	}
	return dir, shared, func() error { shared.close(); return lock.Close() }, nil
}

// loadEnforcement loads, attaches and pins an enforcing policy. It acts when
// this returns; on an error nothing of it is left.
func loadEnforcement(p *Policy, h hooks, name string) (err error) {
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
		Name: p.Name, Cgroup: p.Cgroup, CgroupID: group.ID, Level: group.Level, HostOnly: p.HostOnly,
		Families: p.Families, Programs: h.programs()}}
	if err := os.Mkdir(e.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of a policy: %w", err)
	}
	if err := e.load(p, h, group, shared); err != nil {
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
func (e *enforcement) load(p *Policy, h hooks, group cgroup.Group, shared *sharedMaps) error {
	if err := e.pinMeta(); err != nil {
		return err
	}
	spec, err := bpf.LoadSensor()
	if err != nil {
		return fmt.Errorf("read the sensor's object: %w", err)
	}
	list, err := e.makeList(spec, p.Paths)
	if err != nil {
		return err
	}
	defer list.Close()
	subset(spec, e.Programs, enforceMaps)
	if err := e.setConstants(spec, p, h, group); err != nil {
		return err
	}
	spec.Maps["tallies"].MaxEntries = uint32(len(p.Paths)) + 1
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared.replacements("lists", "scopes")})
	if err != nil {
		return fmt.Errorf("load the enforcing programs: %w", err)
	}
	defer coll.Close()
	if err := coll.Maps["tallies"].Pin(filepath.Join(e.dir, pinTallies)); err != nil {
		return fmt.Errorf("pin the counts: %w", err)
	}
	if err := shared.maps["lists"].Put(e.slot, list); err != nil {
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
		"slot": e.slot, "host_only": p.HostOnly, "can_kill": h.kill, "errors_index": uint32(len(p.Paths)),
	} {
		if err := setVariable(spec, name, value); err != nil {
			return err
		}
	}
	return nil
}

// makeList makes and pins the map from paths to their counts.
func (e *enforcement) makeList(spec *ebpf.CollectionSpec, paths []string) (*ebpf.Map, error) {
	inner := spec.Maps["lists"].InnerMap.Copy()
	inner.MaxEntries = uint32(len(paths))
	inner.Contents = nil
	list, err := ebpf.NewMap(inner)
	if err != nil {
		return nil, fmt.Errorf("make a list of %d paths: %w", len(paths), err)
	}
	keys, values := make([][maxPath + 1]byte, len(paths)), make([]uint32, len(paths))
	for i, p := range paths {
		copy(keys[i][:], p)
		values[i] = uint32(i)
	}
	_, err = list.BatchUpdate(keys, values, nil)
	if err == nil {
		err = list.Pin(filepath.Join(e.dir, pinList))
	}
	if err != nil {
		list.Close()
		return nil, fmt.Errorf("fill a list of %d paths: %w", len(paths), err)
	}
	return list, nil
}

// attach attaches the programs in their order. Each link is let go of once it
// is pinned: what acts is what is pinned, and nothing else.
func (e *enforcement) attach(coll *ebpf.Collection, group cgroup.Group) error {
	for _, name := range e.Programs {
		var l link.Link
		var err error
		if name == programCgroup {
			l, err = attachCgroup(group.Dir, coll.Programs[name])
		} else {
			l, err = link.AttachTracing(link.TracingOptions{Program: coll.Programs[name]})
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
	s := bpf.SensorScope{Cgroup: e.CgroupID, Level: uint32(e.Level), Mode: uint32(mode), HostOnly: host}
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
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "profile_meta", Type: ebpf.Array, KeySize: 4, ValueSize: maxMeta, MaxEntries: 1})
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
	e.mode = bpf.SensorMode(s.Mode)
	if err := e.readStats(); err != nil {
		return err
	}
	return e.checkLinks()
}

func (e *enforcement) readMeta() error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(e.dir, pinMeta), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("open the description: %w", err)
	}
	defer m.Close()
	var raw []byte
	if err := m.Lookup(uint32(0), &raw); err != nil {
		return fmt.Errorf("read the description: %w", err)
	}
	if err := json.Unmarshal(bytes.TrimRight(raw, "\x00"), &e.meta); err != nil {
		return fmt.Errorf("read the description: %w", err)
	}
	return nil
}

func (e *enforcement) readStats() error {
	list, err := ebpf.LoadPinnedMap(filepath.Join(e.dir, pinList), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("open the list: %w", err)
	}
	defer list.Close()
	counts, err := ebpf.LoadPinnedMap(filepath.Join(e.dir, pinTallies), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("open the counts: %w", err)
	}
	defer counts.Close()
	tallies := make([]bpf.SensorTally, counts.MaxEntries())
	for i := range tallies {
		if err := counts.Lookup(uint32(i), &tallies[i]); err != nil {
			return fmt.Errorf("read the counts: %w", err)
		}
	}
	e.failed = tallies[len(tallies)-1].Kills
	e.stats = nil
	var key [maxPath + 1]byte
	var index uint32
	it := list.Iterate()
	for it.Next(&key, &index) {
		if int(index) < len(tallies) {
			e.stats = append(e.stats, stat{string(bytes.TrimRight(key[:], "\x00")), tallies[index]})
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the list: %w", err)
	}
	return nil
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
