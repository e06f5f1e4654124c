package owner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// rpmWithin bounds how long rpm, which may wait for its lock, is waited for.
const rpmWithin = 5 * time.Second

// rpmDirs are where a machine's database of rpm may be. Asked without one, rpm
// takes what it is built for, which on Debian is a directory of the user's, and
// makes the database there if it is missing.
var rpmDirs = []string{"/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm"}

// rpmFormats are those that a database has had: the name of its file, and
// rpm's word for it. Told to use the format that is there, an rpm that was built
// without it says so, and uses none; told nothing, it makes an empty database
// of its own format, in which nothing owns anything.
var rpmFormats = []struct{ file, word string }{{"rpmdb.sqlite", "sqlite"}, {"Packages.db", "ndb"}, {"Packages", "bdb_ro"}}

// fromRPM asks rpm; known is false if it has no database here.
func fromRPM(ctx context.Context, root, path string) (owners []Package, known bool, err error) {
	db, format := rpmDatabase(root)
	if db == "" {
		return nil, false, nil
	}
	owners, err = askRPM(ctx, root, filepath.Dir(db), format, path)
	if err != nil {
		return nil, true, fmt.Errorf("ask rpm, which has its database in %s: %w", db, err)
	}
	return owners, true, nil
}

func askRPM(ctx context.Context, root, dir, format, path string) ([]Package, error) {
	ctx, cancel := context.WithTimeout(ctx, rpmWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, "rpm", "--root", root, "--dbpath", dir, "--define", "_db_backend "+format,
		"-qf", "--queryformat", "%{NAME} %{EVR}\n", "--", path)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second // what it has started may outlive it
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	var failed *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &failed) && isNobodys(path, string(out), said.String()):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %s", err, trouble(path, said.String()))
	}
	var owners []Package
	for line := range strings.Lines(string(out)) {
		if name, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			owners = append(owners, Package{Name: name, Version: version, Manager: "rpm"})
		}
	}
	slices.SortFunc(owners, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return slices.Compact(owners), nil
}

// isNobodys reports whether rpm has said that no package has the path. Of a file
// that is not there, it says that instead. It says the same of a database that
// it cannot read, where only what it says besides tells.
func isNobodys(path, out, errs string) bool {
	if trouble(path, errs) != "" {
		return false
	}
	return out == "file "+path+" is not owned by any package\n" || out == "" && strings.HasSuffix(errs, noFile(path))
}

// trouble is what rpm says of why it cannot tell, "" if it says nothing of the
// kind.
func trouble(path, errs string) string {
	for line := range strings.Lines(errs) {
		switch {
		case line == noFile(path):
		case !strings.HasPrefix(line, "warning: "),
			strings.Contains(line, "dummy database"), // it knows no such format
			strings.Contains(line, "/Basenames: "):   // the index of files of Berkeley DB's
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func noFile(path string) string { return "error: file " + path + ": No such file or directory\n" }

// rpmDatabase returns the file below root that is rpm's database, and its
// format; "" if there is none.
func rpmDatabase(root string) (db, format string) {
	for _, dir := range rpmDirs {
		for _, f := range rpmFormats {
			db := filepath.Join(dir, f.file)
			if info, err := os.Stat(filepath.Join(root, db)); err == nil && info.Mode().IsRegular() {
				return db, f.word
			}
		}
	}
	return "", ""
}
