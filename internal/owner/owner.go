// Package owner tells which package of the machine a file belongs to. It reads
// what the package manager keeps, and changes nothing.
//
// What must not be in it: what the answer is used for.
package owner

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Package is a package of the machine. The zero value is no package.
type Package struct {
	Name    string
	Version string // "" where it is not known
	Manager string // "dpkg" or "rpm"
}

// rpmWithin bounds how long rpm, which may wait for its lock, is waited for.
const rpmWithin = 5 * time.Second

// Of returns the package that owns a path, which must be absolute and
// resolved; the zero Package if none does or no package manager is known
// here. Root is where the machine's files are, "/" for this one; rpm is asked
// for this one alone.
func Of(ctx context.Context, root, path string) (Package, error) {
	p, err := fromDpkg(filepath.Join(root, "var/lib/dpkg"), path)
	if p.Name != "" || err != nil || root != "/" {
		return p, err
	}
	return fromRPM(ctx, path), nil
}

// fromDpkg reads the lists of files that dpkg keeps, one for each package.
func fromDpkg(dir, path string) (Package, error) {
	lists, err := filepath.Glob(filepath.Join(dir, "info", "*.list"))
	if err != nil {
		return Package{}, err
	}
	names := spellings(path)
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return Package{}, err
		}
		text = append([]byte("\n"), text...)
		for _, name := range names {
			if bytes.Contains(text, []byte("\n"+name+"\n")) {
				name := strings.TrimSuffix(filepath.Base(list), ".list")
				name, _, _ = strings.Cut(name, ":")
				version, err := dpkgVersion(filepath.Join(dir, "status"), name)
				return Package{Name: name, Version: version, Manager: "dpkg"}, err
			}
		}
	}
	return Package{}, nil
}

// spellings are the names under which a package may have a path: where /bin is
// a symlink to /usr/bin, its list may still say /bin.
func spellings(path string) []string {
	if strings.ContainsRune(path, '\n') {
		return nil
	}
	if short, ok := strings.CutPrefix(path, "/usr"); ok {
		return []string{path, short}
	}
	return []string{path, "/usr" + path}
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

// fromRPM asks rpm, whose database has had four formats. What it cannot say is
// not known.
func fromRPM(ctx context.Context, path string) Package {
	rpm, err := exec.LookPath("rpm")
	if err != nil {
		return Package{}
	}
	ctx, cancel := context.WithTimeout(ctx, rpmWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, rpm, "-qf", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\n", "--", path).Output()
	if err != nil {
		return Package{}
	}
	first, _, _ := strings.Cut(string(out), "\n")
	name, version, ok := strings.Cut(first, " ")
	if !ok {
		return Package{}
	}
	return Package{Name: name, Version: version, Manager: "rpm"}
}
