// Package owner tells which packages of the machine a file belongs to. It reads
// what the package manager keeps, and changes nothing.
//
// What must not be in it: what the answer is used for.
package owner

import (
	"context"
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
// package does or no package manager is known here. Root is where the machine's
// files are, "/" for this one.
func Of(ctx context.Context, root, path string) ([]Package, error) {
	if strings.ContainsRune(path, '\n') {
		return nil, nil // no list has a word for it
	}
	owners, err := fromDpkg(root, path)
	if len(owners) > 0 || err != nil {
		return owners, err
	}
	return fromRPM(ctx, root, path)
}

// spellings are the names under which a package may have a path: where /bin is
// a symlink to /usr/bin, its list may still say /bin.
func spellings(root, path string) []string {
	short, ok := strings.CutPrefix(path, "/usr")
	if !ok {
		return []string{path}
	}
	top, _, below := strings.Cut(strings.TrimPrefix(short, "/"), "/")
	if to, _ := os.Readlink(filepath.Join(root, top)); !below || strings.TrimPrefix(to, "/") != "usr/"+top {
		return []string{path}
	}
	return []string{path, short}
}
