package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"

	"profile/enforcer"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

const planned = 20_000

// measurePlan compares making a plan and its policy with marshalling the same
// policy.
func measurePlan(b *bench) error {
	rows, err := b.quietFiles()
	if err != nil {
		return err
	}
	s, err := b.makeDatabase("plan.db", rows)
	if err != nil {
		return err
	}
	var policy *tetragon.Policy
	ours := timed(func() error {
		p, err := makePolicy(b.ctx, s)
		if err != nil {
			return err
		}
		if n := len(p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values); n != planned {
			return fmt.Errorf("the policy lists %d of %d", n, planned)
		}
		policy = p
		_, err = p.Marshal()
		return err
	})
	if _, err := ours(); err != nil {
		return err
	}
	floor := timed(func() error {
		_, err := yaml.Marshal(policy)
		return err
	})
	o, f, err := b.compare(rounds, ours, floor)
	b.addRatio("plan and policy for 20,000 quiet, against the YAML library's marshalling of it", "ms", o*1e3, f*1e3, some(2))
	return err
}

func makePolicy(ctx context.Context, s *store.Store) (*tetragon.Policy, error) {
	var plan *enforcer.Plan
	err := s.View(ctx, func(tx *store.Tx) (err error) {
		plan, err = enforcer.BuildPlan(ctx, tx, enforcer.PlanOptions{Stage: store.StageEnforce, Cgroup: "/"})
		return err
	})
	if err != nil {
		return nil, err
	}
	return enforcer.Policy("profile-enforce-bench", plan.Stage, plan.Cgroup, plan.Families, plan.Enforce, true)
}

// quietFiles makes executables and evidence that they are quiet.
func (b *bench) quietFiles() ([]*store.Evidence, error) {
	var rows []*store.Evidence
	for i := range planned {
		path := filepath.Join(b.dir, "quiet", fmt.Sprintf("package-%03d", i/100), fmt.Sprintf("tool-%06d", i))
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(path, []byte("#!"), 0o755); err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return nil, err
		}
		row := madeUp(i, path)
		row.Files[0].File = store.FileID{Dev: st.Dev, Ino: st.Ino, Size: st.Size, CtimeNS: st.Ctim.Nano()}
		row.Files[0].Network = nil
		row.Files[0].Entries = row.Files[0].Entries[:1]
		rows = append(rows, row)
	}
	return rows, nil
}

// measureApply applies one generation after the other, while a program that
// all of them list opens sockets.
func measureApply(b *bench) error {
	return b.inGroup(func(g cgroup.Group) error {
		return b.withSensor(func(a *tetragon.Agent) error {
			s, err := store.Create(filepath.Join(b.dir, "apply.db"))
			if err != nil {
				return err
			}
			listed := b.mote + "-listed"
			if err := copyFile(b.mote, listed); err != nil {
				return err
			}
			err = b.applyAgain(g, a, s, listed)
			_, released := enforcer.Release(context.WithoutCancel(b.ctx), a, s)
			return errors.Join(err, released)
		})
	})
}

func (b *bench) applyAgain(g cgroup.Group, a *tetragon.Agent, s *store.Store, listed string) error {
	paths := append([]string{listed}, unlistedPaths(planned-1)...)
	files := make(map[string]store.FileID, len(paths)) // a plan has them
	for i, path := range paths {
		files[path] = store.FileID{Dev: 64768, Ino: 1234567 + uint64(i), Size: 123456, CtimeNS: 1790000000123456789 + int64(i)}
	}
	apply := func(loaded uint64) (*store.Generation, error) {
		return enforcer.Apply(b.ctx, enforcer.ApplyOptions{Agent: a, Store: s, Group: g, Plan: &enforcer.Plan{
			Enforce: paths, Files: files, Stage: store.StageEnforce, Cgroup: g.Path, Families: a.Families, Loaded: loaded}})
	}
	gen, err := apply(0)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(b.ctx, b.load, "listed", listed)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.startIn(g, cmd); err != nil {
		return err
	}
	var took, used []float64
	for range rounds {
		begun, before := time.Now(), cpu(unix.RUSAGE_SELF)+cpu(unix.RUSAGE_CHILDREN)
		if gen, err = apply(gen.N); err != nil {
			break
		}
		took = append(took, time.Since(begun).Seconds())
		used = append(used, cpu(unix.RUSAGE_SELF)+cpu(unix.RUSAGE_CHILDREN)-before)
	}
	err = errors.Join(err, in.Close())
	text, readErr := io.ReadAll(out)
	if err := errors.Join(err, readErr, cmd.Wait()); err != nil {
		return err
	}
	n, err := readNumbers(string(text))
	if err != nil {
		return err
	}
	b.add(row{Name: "applying a 20,000-path generation", Ours: median(used) * 1e3, Unit: "ms CPU", Target: some(200)})
	b.add(row{Name: "the same, from the plan to tried and in force", Ours: median(took) * 1e3, Unit: "ms"})
	b.add(row{Name: fmt.Sprintf("the same, runs of a listed program that lived over %d changes", rounds), Ours: n[1], Unit: fmt.Sprintf("of %.0f", n[0]), Target: some(0)})
	return nil
}
