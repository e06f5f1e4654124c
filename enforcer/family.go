package enforcer

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// family is one program under paths that change: another at each start, or
// with each version.
type family struct {
	pattern string // the path with * for what changes
	why     string // why it changes
}

// form gives a regular expression, which is compiled when it is first asked for:
// most commands start and end without a path that could be of a family.
func form(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

var (
	// The AppImage runtime adds six random characters to the start of a name.
	appImage = form(`^(/.*)?/\.mount_([^/]*)[A-Za-z0-9]{6}(/.*)$`)
	unpacked = form(`^(/.*)?/appimage_extracted_[0-9a-f]{32}(/.*)$`)
	snap     = form(`^((?:/var/lib/snapd)?/snap/[^/]+)/x?[0-9]+(/.*)$`)
	// A hash of 32 characters stands before the name and version of a package.
	hashed = form(`^(/nix/store|/gnu/store)/[0-9a-z]{32}-([^/]+?)(-[0-9][^/]*)?(/.*)?$`)
	// Of Homebrew: a version may be one number.
	cellar    = form(`^(/.*/Cellar/[^/]+)/[^/]+(/.*)$`)
	versioned = form(`^(|.*?[^0-9.])v?[0-9]+(\.[0-9]+)+([-+_.~][^/]*)?$`)
	// What is named after the Python it is for, moves when that one does.
	forPython = form(`(^|-)py(thon)?[0-9]\.[0-9]+$`)
)

// familyOf tells whether a path is likely to change, and its family then.
// Programs that the system's packages put below /usr do not count as versioned:
// they stay where they are until the system itself is renewed.
//
// Few paths are, and each is looked at with what is cheap first.
func familyOf(file string) (family, bool) {
	if m := find(appImage, strings.Contains(file, ".mount_"), file); m != nil {
		return family{m[1] + "/.mount_" + m[2] + "*" + m[3], "an AppImage is mounted elsewhere at each start"}, true
	}
	if m := find(unpacked, strings.Contains(file, "/appimage_extracted_"), file); m != nil {
		return family{m[1] + "/appimage_extracted_*" + m[2], "an AppImage is unpacked elsewhere with each version"}, true
	}
	if m := find(snap, strings.HasPrefix(file, "/snap/") || strings.HasPrefix(file, "/var/lib/snapd/"), file); m != nil {
		return family{m[1] + "/*" + m[2], "a snap has a directory for each revision"}, true
	}
	if m := find(hashed, strings.HasPrefix(file, "/nix/") || strings.HasPrefix(file, "/gnu/"), file); m != nil {
		return family{m[1] + "/*-" + m[2] + "*" + m[4], "a store of packages has a directory for each build"}, true
	}
	if m := find(cellar, strings.Contains(file, "/Cellar/"), file); m != nil {
		return family{m[1] + "/*" + m[2], "its directory has the name of a version"}, true
	}
	if strings.HasPrefix(file, "/usr/") && !strings.HasPrefix(file, "/usr/local/") || !path.IsAbs(file) {
		return family{}, false
	}
	dir := path.Dir(file)
	if !strings.Contains(dir, ".") && !hasLongName(dir) {
		return family{}, false
	}
	return ofDirectories(file)
}

// ofDirectories looks at the names of a path's directories.
func ofDirectories(file string) (family, bool) {
	parts := strings.Split(file, "/")
	var why string
	for i, part := range parts[:len(parts)-1] {
		if before, is := cutHash(part); is {
			parts[i], why = before+"*", "its directory has the name of a build"
		} else if m := find(versioned, strings.Contains(part, "."), part); m != nil && find(forPython, true, part) == nil {
			parts[i], why = m[1]+"*", "its directory has the name of a version"
		}
	}
	return family{strings.Join(parts, "/"), why}, why != ""
}

// The digits of a commit of git, and of a SHA-256.
const (
	commitHash = 40
	buildHash  = 64
)

// hasLongName reports whether a name in a path could hold a hash.
func hasLongName(dir string) bool {
	for len(dir) >= commitHash {
		end := strings.IndexByte(dir, '/')
		if end < 0 || end >= commitHash {
			return true
		}
		dir = dir[end+1:]
	}
	return false
}

// cutHash takes off a name the hash with which it ends.
func cutHash(name string) (before string, is bool) {
	before = strings.TrimRight(name, "0123456789abcdef")
	digits := len(name) - len(before)
	return before, digits == commitHash || digits == buildHash
}

func find(form func() *regexp.Regexp, likely bool, text string) []string {
	if !likely {
		return nil
	}
	return form().FindStringSubmatch(text)
}

// Family is one program under changing paths, as `report -o json` prints it.
type Family struct {
	Pattern string   `json:"pattern" yaml:"pattern"` // with * for what changes
	Why     string   `json:"why" yaml:"why"`         // why it changes
	Verdict string   `json:"verdict" yaml:"verdict"` // network if one member's is, else unproven if one's is
	Members []Member `json:"members" yaml:"members"` // sorted by path, then scope
}

// Member is one path of a family.
type Member struct {
	Scope   string `json:"scope" yaml:"scope"`
	Path    string `json:"path" yaml:"path"`
	Verdict string `json:"verdict" yaml:"verdict"`
}

// join adds a row to its family, if it has one. Rows come sorted by path.
func join(families map[string]*Family, file string, row *Row) {
	f, ok := familyOf(file)
	if !ok {
		return
	}
	row.Family, _ = printable(f.pattern)
	one := families[f.pattern]
	if one == nil {
		one = &Family{Pattern: row.Family, Why: f.why, Verdict: Quiet}
		families[f.pattern] = one
	}
	one.Members = append(one.Members, Member{row.Scope, row.Path, row.Verdict})
	worst := []string{Network, Unproven, Quiet}
	if slices.Index(worst, row.Verdict) < slices.Index(worst, one.Verdict) {
		one.Verdict = row.Verdict
	}
}
