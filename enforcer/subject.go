package enforcer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"profile/store"
)

// subject is what a person asked to have explained.
type subject struct {
	paths []string // of executables, resolved; more than one for a script
	told  []string // how they were found, in plain words
}

// findSubject finds out what a name stands for: a process by its number, a
// script, or an executable by its path, a symlink to it or its bare name.
func findSubject(tx *store.Tx, name string) (subject, error) {
	if pid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return ofProcess(pid)
	}
	file := name
	if !strings.Contains(name, "/") {
		if found, err := exec.LookPath(name); err == nil {
			file = found
		}
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return subject{}, fmt.Errorf("find %q: %w", name, err)
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		// Gone, and not forgotten, or no path of a file, as of one in memory.
		for _, path := range []string{abs, name} {
			if rows, err := tx.Evidence(path); err != nil || len(rows) > 0 {
				return subject{paths: []string{path}}, err
			}
		}
		return ofName(tx, name, abs)
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return subject{}, fmt.Errorf("look at %q: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return subject{}, fmt.Errorf("%w: %q is no file that could be run", ErrUsage, name)
	}
	head, err := readHead(resolved)
	if err != nil {
		return subject{}, fmt.Errorf("look at %q: %w", name, err)
	}
	if interpreter := interpreterOf(head); interpreter != nil {
		return ofScript(tx, abs, resolved, interpreter)
	}
	s := subject{paths: []string{resolved}}
	if resolved == abs {
		return s, nil
	}
	s.told = append(s.told, fmt.Sprintf("%q is a symlink; what the kernel runs is %q", abs, resolved))
	rows, err := tx.Evidence(abs)
	if len(rows) > 0 { // what is a symlink here may be a file in a container
		s.paths = append(s.paths, abs)
	}
	return s, err
}

func ofProcess(pid uint64) (subject, error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	exe, err := os.Readlink(dir + "/exe")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(dir); err == nil {
			return subject{}, fmt.Errorf("%w: process %d is a thread of the kernel, which runs no file", ErrUsage, pid)
		}
		return subject{}, fmt.Errorf("%w: there is no process %d", ErrUsage, pid)
	case err != nil:
		return subject{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	path, deleted := strings.CutSuffix(exe, " (deleted)")
	s := subject{paths: []string{path}, told: []string{fmt.Sprintf("process %d runs %q", pid, path)}}
	if deleted {
		s.told[0] += ", as it was when it started: the file has been deleted or replaced since"
	}
	if own, err := os.Readlink("/proc/self/ns/pid"); err == nil {
		if its, err := os.Readlink(dir + "/ns/pid"); err == nil && its != own {
			s.told = append(s.told, "it runs in another pid namespace, as in a container: evidence of the host is not about it")
		}
	}
	return s, nil
}

// startedAs finds the executables that were started under one of the names, as
// their entries have it, and whether any of them as a script.
func startedAs(tx *store.Tx, names ...string) (paths []string, script bool, err error) {
	for rows, err := range tx.Executables() {
		if err != nil {
			return nil, false, err
		}
		for _, row := range rows {
			for _, t := range row.Files {
				i := slices.IndexFunc(t.Entries, func(e store.Entry) bool { return slices.Contains(names, e.Name) })
				if i >= 0 {
					paths, script = append(paths, row.Key.Path), script || t.Entries[i].Script
				}
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), script, nil
}

// ofName finds what was started under a name that is no file's any more: a
// symlink's, or a script's.
func ofName(tx *store.Tx, name, abs string) (subject, error) {
	paths, script, err := startedAs(tx, abs, name)
	switch {
	case err != nil:
		return subject{}, err
	case len(paths) == 0:
		return subject{}, fmt.Errorf("%w: there is no file %q, and none was learned", ErrUsage, name)
	case script:
		return subject{paths, []string{fmt.Sprintf("%q is not there any more; it was a script: what the kernel ran is its interpreter", abs)}}, nil
	}
	return subject{paths, []string{fmt.Sprintf("%q is not there any more; it is a name under which this was started", abs)}}, nil
}

// ofScript finds the executables that were seen to run a script, or else the
// one that its first line asks for.
func ofScript(tx *store.Tx, name, resolved string, interpreter []string) (subject, error) {
	var s subject
	var err error
	if s.paths, _, err = startedAs(tx, name, resolved); err != nil {
		return s, err
	}
	s.told = []string{fmt.Sprintf("%q is a script: what the kernel runs, and would kill, is its interpreter", name)}
	if len(s.paths) > 0 {
		return s, nil
	}
	s.told = append(s.told, "it was not seen to run; its first line asks for "+strconv.Quote(strings.Join(interpreter, " ")))
	program := interpreter[0]
	if len(interpreter) > 1 && filepath.Base(program) == "env" {
		if found, err := exec.LookPath(interpreter[1]); err == nil {
			program = found
		}
	}
	s.paths = []string{resolveName(program)}
	return s, nil
}
