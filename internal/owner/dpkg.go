package owner

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// fromDpkg reads the lists of files that dpkg keeps, one for each package;
// known is false if there are none.
func fromDpkg(root, path string) (packages []Package, known bool, err error) {
	dir := filepath.Join(root, "var/lib/dpkg")
	lists, err := filepath.Glob(filepath.Join(dir, "info", "*.list"))
	if err != nil || len(lists) == 0 {
		return nil, false, err
	}
	owners, err := listing(root, dir, lists, path)
	if err != nil {
		return nil, true, err
	}
	for _, name := range owners {
		version, err := dpkgVersion(filepath.Join(dir, "status"), name)
		if err != nil {
			return nil, true, err
		}
		packages = append(packages, Package{Name: name, Version: version, Manager: "dpkg"})
	}
	return packages, true, nil
}

// listing returns the names of the packages that own a path by their lists,
// sorted.
func listing(root, dir string, lists []string, path string) ([]string, error) {
	names := spellings(root, path)
	d, err := diverted(filepath.Join(dir, "diversions"), names)
	if err != nil {
		return nil, err
	}
	if d.from != "" {
		names = spellings(root, d.from)
	}
	var owners []string
	for _, list := range lists {
		name := strings.TrimSuffix(filepath.Base(list), ".list")
		name, _, _ = strings.Cut(name, ":") // of its architecture
		if d.excludes(name) || slices.Contains(owners, name) {
			continue
		}
		has, err := listHas(list, names)
		if err != nil {
			return nil, err
		}
		if has {
			owners = append(owners, name)
		}
	}
	slices.Sort(owners)
	return owners, nil
}

func listHas(list string, names []string) (bool, error) {
	text, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // removed meanwhile
	}
	if err != nil {
		return false, err
	}
	text = append([]byte("\n"), text...)
	return slices.ContainsFunc(names, func(name string) bool { return bytes.Contains(text, []byte("\n"+name+"\n")) }), nil
}

// diversion says whose a path is that dpkg-divert(1) knows: packages go on
// listing a file under the name from which it was diverted.
type diversion struct {
	by   string // the package that diverted; ":" if the administrator did
	from string // the name in the lists, if the path is where a file was diverted to
	has  bool
}

// excludes reports whether the package, whatever it lists, does not own the
// file: what was diverted away is every package's but the one that did, and
// what is in its place that one's alone.
func (d diversion) excludes(name string) bool {
	if !d.has {
		return false
	}
	return (name == d.by) == (d.from != "")
}

// diverted finds the diversion that a path, in any of its spellings, is of. A
// diversion is three lines: from, to, by whom.
func diverted(file string, names []string) (diversion, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diversion{}, err
	}
	lines := strings.Split(string(text), "\n")
	for ; len(lines) >= 3; lines = lines[3:] {
		from, to, by := lines[0], lines[1], lines[2]
		switch {
		case slices.Contains(names, to):
			return diversion{by: by, from: from, has: true}, nil
		case slices.Contains(names, from):
			return diversion{by: by, has: true}, nil
		}
	}
	return diversion{}, nil
}

func dpkgVersion(status, name string) (string, error) {
	f, err := os.Open(status)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	inside := false
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "Package: "):
			inside = line == "Package: "+name
		case inside && strings.HasPrefix(line, "Version: "):
			return strings.TrimPrefix(line, "Version: "), nil
		}
	}
	return "", lines.Err()
}
