package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"profile/internal/cgroup"
	"profile/internal/tetragon"
)

// programs are the sensor's programs in the kernel, by id.
func programs() (map[ebpf.ProgramID]*ebpf.Program, error) {
	all := map[ebpf.ProgramID]*ebpf.Program{}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, unix.ENOENT) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // it has gone
		}
		info, err := p.Info()
		if err == nil && (strings.HasPrefix(info.Name, "observe_") || strings.HasPrefix(info.Name, "enforce_")) {
			all[id] = p
			continue
		}
		p.Close()
	}
}

// cost gives the nanoseconds of one run of each program that was loaded since
// before, over what do makes them do.
func cost(before map[ebpf.ProgramID]*ebpf.Program, do func() error) (map[string]float64, error) {
	now, err := programs()
	if err != nil {
		return nil, err
	}
	begun := map[ebpf.ProgramID]*ebpf.ProgramStats{}
	for id, p := range now {
		if before[id] != nil {
			continue
		}
		if begun[id], err = p.Stats(); err != nil {
			return nil, err
		}
	}
	if err := do(); err != nil {
		return nil, err
	}
	ns := map[string]float64{}
	runs := map[string]uint64{}
	for id, first := range begun {
		last, err := now[id].Stats()
		if err != nil {
			return nil, err
		}
		info, err := now[id].Info()
		if err != nil {
			return nil, err
		}
		// Another sensor may have come meanwhile: ours has run the most.
		if n := last.RunCount - first.RunCount; n > runs[info.Name] {
			runs[info.Name] = n
			ns[info.Name] = float64(last.Runtime-first.Runtime) / float64(n)
		}
	}
	for _, p := range now {
		p.Close()
	}
	return ns, nil
}

// measureKernel asks the kernel what each program of the sensor takes, with
// lists and paths of several lengths.
func measureKernel(b *bench) error {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return err
	}
	defer stats.Close()
	return b.inGroup(func(g cgroup.Group) error {
		if err := b.costOfLearning(g); err != nil {
			return err
		}
		return b.withSensor(func(a *tetragon.Agent) error { return b.costOfEnforcing(g, a) })
	})
}

func (b *bench) exercise(g cgroup.Group, program string) error {
	_, err := b.loads(g, []string{b.load, "vfork", "40", "25", program}, []string{b.load, "socket", "20", "1000"})
	return err
}

func (b *bench) costOfLearning(g cgroup.Group) error {
	before, err := programs()
	if err != nil {
		return err
	}
	l, err := b.learn(g, filepath.Join(b.dir, "cost.db"))
	if err != nil {
		return err
	}
	ns, err := cost(before, func() error { return b.exercise(g, b.mote) })
	if err := errors.Join(err, l.stop()); err != nil {
		return err
	}
	for _, name := range []string{"observe_fork", "observe_exec", "observe_exit", "observe_socket"} {
		if v, ok := ns[name]; ok {
			b.add(row{Name: "in the kernel, " + name, Ours: v, Unit: "ns/run"})
		}
	}
	return nil
}

// costOfEnforcing must be flat over the length of the list.
func (b *bench) costOfEnforcing(g cgroup.Group, a *tetragon.Agent) error {
	// A path of 250 bytes takes one directory.
	long := filepath.Join(b.dir, strings.Repeat("d", 249-len(b.dir)-len("/mote/"))+"-mote")
	if err := copyFile(b.mote, long); err != nil {
		return err
	}
	var fewest float64
	for _, n := range []int{10, 1000, 100_000} {
		for _, program := range []string{b.mote, long} {
			ns, err := b.costOfList(g, a, n, program)
			if err != nil {
				return err
			}
			r := row{Name: fmt.Sprintf("in the kernel, an exec of a path of %d bytes with %d listed", len(program), n), Ours: ns["enforce_exec"], Unit: "ns/run"}
			if program == b.mote && n == 10 {
				fewest = r.Ours
			} else if program == b.mote {
				r.Floor, r.Ratio = some(fewest), some(r.Ours/fewest)
			}
			b.add(r)
			if program == b.mote {
				b.add(row{Name: fmt.Sprintf("in the kernel, a socket with %d listed", n), Ours: ns["enforce_socket"], Unit: "ns/run"})
			}
		}
	}
	return nil
}

func (b *bench) costOfList(g cgroup.Group, a *tetragon.Agent, n int, program string) (map[string]float64, error) {
	before, err := programs()
	if err != nil {
		return nil, err
	}
	var ns map[string]float64
	err = enforce(b.ctx, a, g, unlistedPaths(n), func() (err error) {
		ns, err = cost(before, func() error { return b.exercise(g, program) })
		return err
	})
	return ns, err
}
