package enforcer

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"profile/internal/regular"
	"profile/store"
)

// name resolves what a person named: what to include, to exclude, and the
// directories whose executables join.
func (p *planner) name(ctx context.Context, tx *store.Tx) error {
	p.included, p.excluded = map[string]bool{}, map[string]bool{}
	p.inDirs, p.named = map[string]bool{}, map[string]string{}
	for _, file := range p.o.Exclude {
		if p.o.Remote {
			p.excluded[file] = true
			continue
		}
		abs, err := filepath.Abs(file)
		if err != nil {
			return fmt.Errorf("exclude %q: %w", file, err)
		}
		p.excluded[abs], p.excluded[resolveName(abs)] = true, true
		if _, err := os.Lstat(abs); errors.Is(err, fs.ErrNotExist) {
			// Such as a pattern: who gave it must not take it for lifted.
			if learned, err := p.remembers(tx, abs); err != nil {
				return err
			} else if !learned {
				p.warn("exclude %q: it keeps nothing out, since there is no such file, and none was learned", file)
			}
		}
	}
	for _, file := range p.o.Include {
		if err := p.include(tx, file); err != nil {
			return err
		}
	}
	if p.o.Remote && len(p.o.Dirs) > 0 {
		return fmt.Errorf("%w: the agent is on another host, whose directories cannot be read from here", ErrUsage)
	}
	return p.walk(ctx)
}

// remembers reports whether a path was learned, or is listed.
func (p *planner) remembers(tx *store.Tx, file string) (bool, error) {
	rows, err := tx.Evidence(file)
	return len(rows) > 0 || p.listed[file], err
}

func (p *planner) include(tx *store.Tx, file string) error {
	if p.o.Remote {
		if !filepath.IsAbs(file) || file != filepath.Clean(file) {
			return fmt.Errorf("%w: include %q: on another host a path must be absolute and resolved", ErrUsage, file)
		}
		p.included[file] = true
		return nil
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("include %q: %w", file, err)
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		// What was learned or listed may be gone for now, as in an upgrade.
		if learned, err := p.remembers(tx, abs); err != nil {
			return err
		} else if !learned {
			return fmt.Errorf("%w: include %q: there is no such file, and none was learned", ErrUsage, file)
		}
		p.included[abs] = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("include %q: %w", file, err)
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return fmt.Errorf("include %q: %w", file, err)
	}
	if info.IsDir() {
		return fmt.Errorf("%w: include %q: it is a directory; --dir takes those", ErrUsage, file)
	}
	why, err := notProgram(resolved)
	if err != nil {
		return fmt.Errorf("include %q: %w", file, err)
	}
	if why != "" {
		p.named[resolved] = why
		return nil
	}
	p.included[resolved] = p.included[resolved] || file == resolved
	return nil
}

// walk finds what lies below the directories. A symlink is not followed: its
// target joins if it lies below one of them, under its own name.
func (p *planner) walk(ctx context.Context) error {
	var roots []string
	for _, dir := range p.o.Dirs {
		abs, err := filepath.Abs(dir)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err == nil {
			var info os.FileInfo
			if info, err = os.Stat(abs); err == nil && !info.IsDir() {
				err = unix.ENOTDIR
			}
		}
		if err != nil {
			return fmt.Errorf("%w: directory %q: %w", ErrUsage, dir, err)
		}
		roots = append(roots, abs)
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				err = p.found(file, entry, roots)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				p.warn("left out: %v", err)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read directory %q: %w", root, err)
		}
	}
	return nil
}

// found takes in one thing that lies below a directory.
func (p *planner) found(file string, entry fs.DirEntry, roots []string) error {
	if entry.Type()&fs.ModeSymlink != 0 {
		return p.foundLink(file, roots)
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if !executable(info) {
		return nil
	}
	why, err := notProgram(file)
	if err != nil {
		return err
	}
	if why != "" {
		p.named[file] = why
	} else {
		p.inDirs[file] = true
	}
	return nil
}

func (p *planner) foundLink(file string, roots []string) error {
	target, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(roots, func(root string) bool { return contains(root, target) }) {
		return nil
	}
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		p.named[file] = fmt.Sprintf("a symlink to the directory %q, which lies outside", target)
	case executable(info):
		p.named[file] = fmt.Sprintf("a symlink to %q, which lies outside: --include that if it is meant", target)
	}
	return nil
}

func executable(info fs.FileInfo) bool {
	return info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// notProgram says why the kernel would not run the file itself, "" if it would.
func notProgram(file string) (string, error) {
	head, err := readHead(file)
	if err != nil {
		return "", err
	}
	if line := interpreterOf(head); line != nil {
		return fmt.Sprintf("a script: what runs, and would be killed, is its interpreter %q", line[0]), nil
	}
	if !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return "neither a program nor a script: the kernel does not run it by itself", nil
	}
	return "", nil
}

// readHead reads the beginning of a file, as much as the kernel reads of a #!
// line (BINPRM_BUF_SIZE). What is no regular file has none.
func readHead(file string) ([]byte, error) {
	f, err := regular.Open(file)
	if errors.Is(err, regular.ErrOther) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return head[:n], nil
}

// interpreterOf gives the words of a script's #! line, at least one, the first
// perhaps empty; nil if it is no script.
func interpreterOf(head []byte) []string {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return nil
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if words := strings.Fields(string(line)); len(words) > 0 {
		return words
	}
	return []string{""}
}
