package sensor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

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
	if len(tallies) < extraTallies {
		return errors.New("read the counts: they are cut short")
	}
	e.failed = tallies[len(tallies)-1].Kills
	// What is listed by not being in the list is counted together.
	e.stats = []stat{{"", tallies[len(tallies)-extraTallies]}}
	return e.readPaths(list, tallies)
}

func (e *enforcement) readPaths(list *ebpf.Map, tallies []bpf.SensorTally) error {
	var index uint32
	add := func(text []byte) {
		if int(index) < len(tallies)-extraTallies {
			e.stats = append(e.stats, stat{string(bytes.TrimRight(text, "\x00")), tallies[index]})
		}
	}
	it := list.Iterate()
	if outerOf(e.Op) == "prefixes" {
		for key := (prefixKey{}); it.Next(&key, &index); {
			add(key.Text[:])
		}
	} else {
		for key := ([maxPath + 1]byte{}); it.Next(&key, &index); {
			add(key[:])
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
