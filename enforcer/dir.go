package enforcer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"profile/internal/tetragon"
	"profile/store"
)

// A Tetragon loads every regular file of its policy directory, whatever its
// name, one directory deep, in the order of the names, as it starts and only
// then; it does not start if it cannot read or load one, or one has the name of
// a policy that it has (read in its source, v1.1 to v1.7). Hence a file is
// complete when it appears, is made in the directory above, can be read by
// whoever the agent runs as, and has the name of no policy that is to be loaded
// over gRPC.

// keptMode is the mode of a file in the directory.
const keptMode = 0o644

// CheckDir resolves an agent's policy directory. It refuses one that others
// than root and this user can write or replace: they would decide what is killed.
// Of the directories above it the nearest is looked at, through which each file
// goes.
func CheckDir(dir string) (string, error) {
	resolved, err := filepath.EvalSymlinks(dir)
	if err == nil {
		resolved, err = filepath.Abs(resolved)
	}
	if err != nil {
		return "", fmt.Errorf("policy directory: %w", err)
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return "", fmt.Errorf("policy directory: %w", err)
	}
	above, err := os.Stat(filepath.Dir(resolved))
	if err != nil {
		return "", fmt.Errorf("policy directory: %w", err)
	}
	switch {
	case !info.IsDir():
		return "", fmt.Errorf("policy directory %q: %w", dir, unix.ENOTDIR)
	case !owned(info) || info.Mode().Perm()&0o022 != 0:
		return "", fmt.Errorf("policy directory %q (%s): others could write it, and decide what is killed", dir, info.Mode())
	case !owned(above) || above.Mode().Perm()&0o022 != 0 && above.Mode()&fs.ModeSticky == 0:
		return "", fmt.Errorf("policy directory %q: others could write the one above it (%s), and decide what is killed", dir, above.Mode())
	}
	return resolved, nil
}

// owned reports whether a file is root's, or this user's.
func owned(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && (owner.Uid == 0 || int(owner.Uid) == os.Geteuid())
}

// checkDir refuses a directory that the agent cannot have.
func (a *applier) checkDir() (err error) {
	switch {
	case a.Dir == "":
		return nil
	case a.Agent.IsSensor():
		return fmt.Errorf("%w: the embedded sensor reads no policy directory: what is in force stays by itself", ErrUsage)
	case !OnThisHost(a.Agent):
		return fmt.Errorf("%w: the agent is on another host, and so is its policy directory", ErrUsage)
	}
	a.Dir, err = CheckDir(a.Dir)
	return err
}

func policyFile(dir, policy string) string { return filepath.Join(dir, policy+".yaml") }

// keep writes the policies into the directory, each in one step.
func (a *applier) keep() error {
	if a.gen.Dir == "" {
		return nil
	}
	a.kept = true
	for _, p := range a.policies {
		text, err := p.Marshal()
		if err != nil {
			return err
		}
		// What is half written in the directory itself would keep the agent
		// from starting.
		err = renameio.WriteFile(policyFile(a.gen.Dir, p.Metadata.Name), text, keptMode,
			renameio.WithTempDir(filepath.Dir(a.gen.Dir)), renameio.WithStaticPermissions(keptMode))
		if errors.Is(err, unix.EXDEV) {
			err = fmt.Errorf("%w: the directory above must be of the same file system", err)
		}
		if err != nil {
			return fmt.Errorf("keep policy %s in the policy directory: %w", p.Metadata.Name, err)
		}
	}
	return nil
}

// unkeep removes what keep wrote.
func (a *applier) unkeep() error {
	if !a.kept {
		return nil
	}
	var errs []error
	for _, name := range a.gen.Policies {
		if err := os.Remove(policyFile(a.gen.Dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// filesOf lists the policies of a database that lie in a policy directory.
func filesOf(s *store.Store, dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the policy directory: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), ".yaml"); ok && strings.HasPrefix(name, policyPrefix(s)) {
			names = append(names, name)
		}
	}
	return names, nil
}

// clearDirs removes from every policy directory that a generation was kept in
// what is not of the one that stays; nil is none.
func clearDirs(ctx context.Context, s *store.Store, stays *store.Generation) error {
	dirs := map[string]bool{}
	err := s.View(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		all, err := tx.GenerationStates()
		for _, g := range all {
			dirs[g.Dir] = true
		}
		return err
	})
	delete(dirs, "")
	errs := []error{err}
	for dir := range dirs {
		names, err := filesOf(s, dir)
		errs = append(errs, err)
		for _, name := range names {
			if stays == nil || stays.Dir != dir || !slices.Contains(stays.Policies, name) {
				errs = append(errs, os.Remove(policyFile(dir, name)))
			}
		}
	}
	return errors.Join(errs...)
}

// compareDir says how a generation's policy directory differs from what was
// kept in it.
func compareDir(s *store.Store, g store.Generation) error {
	if g.Dir == "" {
		return nil
	}
	names, err := filesOf(s, g.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.Contains(g.Policies, name) {
			return fmt.Errorf("%s is of another generation, and would be loaded too", policyFile(g.Dir, name))
		}
	}
	var listed []string
	for _, name := range g.Policies {
		paths, err := readKept(g, name)
		if err != nil {
			return fmt.Errorf("%s: %w", policyFile(g.Dir, name), err)
		}
		listed = append(listed, paths...)
	}
	if !slices.Equal(listed, g.Paths) {
		return fmt.Errorf("its files in %s list %d executables, not the %d that were loaded", g.Dir, len(listed), len(g.Paths))
	}
	return nil
}

// readKept reads one policy from the directory and gives what it lists, its
// canary left out.
func readKept(g store.Generation, name string) ([]string, error) {
	text, err := os.ReadFile(policyFile(g.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it is gone")
	}
	if err != nil {
		return nil, err
	}
	p, err := tetragon.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("the agent would not start: %w", err)
	}
	errDiffers := errors.New("it was changed since it was written")
	if len(p.Spec.KProbes) != 1 || len(p.Spec.KProbes[0].Selectors) != 1 || len(p.Spec.KProbes[0].Selectors[0].MatchBinaries) != 1 {
		return nil, errDiffers
	}
	paths := p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values
	want, err := Policy(name, g.Stage, g.Cgroup, g.Families, paths, false)
	if err != nil || !reflect.DeepEqual(p, want) {
		return nil, errDiffers
	}
	return slices.DeleteFunc(slices.Clone(paths), func(file string) bool { return filepath.Base(file) == canaryName(name) }), nil
}
