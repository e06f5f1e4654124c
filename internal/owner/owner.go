// Package owner tells which packages of the machine a file belongs to. It reads
// what the package manager keeps, and changes nothing.
//
// What must not be in it: what the answer is used for.
package owner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Package is a package of the machine.
type Package struct {
	Name    string
	Version string // "" where it is not known
	Manager string // "dpkg" or "rpm"
}

// Of returns the packages that own a path, which must be absolute and
// resolved, sorted by name: more than one where they share a file, none if no
// package does. Where there is no database of packages, or it cannot be read,
// that is an error. Root is where the machine's files are, "/" for this one.
func Of(ctx context.Context, root, path string) ([]Package, error) {
	if strings.ContainsRune(path, '\n') {
		return nil, nil // no list has a word for it
	}
	owners, dpkg, err := fromDpkg(root, path)
	if len(owners) > 0 || err != nil {
		return owners, err
	}
	owners, rpm, err := fromRPM(ctx, root, path)
	if err == nil && !dpkg && !rpm {
		return nil, errors.New("neither dpkg nor rpm has a database here")
	}
	return owners, err
}

// spellings are the names under which a package may have a path: where /bin is
// a symlink to /usr/bin, its list may still say /bin, and a diversion either.
func spellings(root, path string) []string {
	short, long := strings.TrimPrefix(path, "/usr"), path
	top, _, below := strings.Cut(strings.TrimPrefix(short, "/"), "/")
	if to, _ := os.Readlink(filepath.Join(root, top)); !below || strings.TrimPrefix(to, "/") != "usr/"+top {
		return []string{path}
	}
	if short == path {
		long = "/usr" + path
	}
	return []string{long, short}
}
