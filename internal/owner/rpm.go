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

// rpmFiles are the names of a database in each of its formats.
var rpmFiles = []string{"rpmdb.sqlite", "Packages.db", "Packages"}

// fromRPM asks rpm, whose database has had several formats.
func fromRPM(ctx context.Context, root, path string) ([]Package, error) {
	dir := rpmDir(root)
	rpm, err := exec.LookPath("rpm")
	if err != nil || dir == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, rpmWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, rpm, "--root", root, "--dbpath", dir, "-qf", "--queryformat", "%{NAME} %{EVR}\n", "--", path)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	var failed *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("ask rpm: %w", ctx.Err())
	case errors.As(err, &failed) && isNobodys(path, string(out), said.String()):
		return nil, nil
	case err != nil:
		first, _, _ := strings.Cut(said.String(), "\n")
		return nil, fmt.Errorf("ask rpm: %w: %s", err, first)
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
// that is not there, it says that instead, and nothing besides.
func isNobodys(path, out, errs string) bool {
	return out == "file "+path+" is not owned by any package\n" ||
		out == "" && errs == "error: file "+path+": No such file or directory\n"
}

// rpmDir returns where below root the database is, "" if there is none.
func rpmDir(root string) string {
	for _, dir := range rpmDirs {
		for _, file := range rpmFiles {
			if info, err := os.Stat(filepath.Join(root, dir, file)); err == nil && info.Mode().IsRegular() {
				return dir
			}
		}
	}
	return ""
}
