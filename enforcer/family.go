package enforcer

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// family is one program under paths that change: another at each start, or
// with each version.
type family struct {
	pattern string // the path with * for what changes
	why     string // why it changes
}

// familyOf tells whether a path is likely to change, and its family then. Of
// what lies below /usr, which the system's packages put there, that is so only
// where a version is told in full: all else stays where it is until the system
// itself is renewed.
//
// Few paths are, and each is looked at with what is cheap first.
func familyOf(file string) (family, bool) {
	if !path.IsAbs(file) {
		return family{}, false
	}
	if strings.HasPrefix(file, "/usr/") && !strings.HasPrefix(file, "/usr/local/") {
		if !strings.Contains(file, ".") {
			return family{}, false
		}
		return ofNames(file, systems, nil)
	}
	if f, ok := layoutOf(file); ok {
		return f, true
	}
	if !strings.Contains(file, ".") && !hasLongName(file) {
		return family{}, false
	}
	return ofNames(file, directories, programs)
}

// naming is a form of names that change.
type naming struct {
	form   func() *regexp.Regexp
	likely func(name string) bool // is cheap
	why    string
}

var (
	systems     = []naming{{exact, hasDot, versionDirectory}}
	directories = []naming{{hashed, isLong, buildDirectory}, {versioned, hasDot, versionDirectory}}
	programs    = []naming{{hashed, isLong, buildName}, {exact, hasDot, versionName}}
)

func hasDot(name string) bool { return strings.Contains(name, ".") }
func isLong(name string) bool { return len(name) >= commitHash }

// commitHash is how many digits the shorter of the hashes has.
const commitHash = 40

// ofNames looks at the names in a path: those of directories, and the last.
func ofNames(file string, directories, programs []naming) (family, bool) {
	parts := strings.Split(file, "/")
	last := len(parts) - 1
	var why string
	for i := range parts {
		namings := directories
		if i == last {
			namings = programs
		}
		for _, n := range namings {
			if !n.likely(parts[i]) {
				continue
			}
			if m := n.form().FindStringSubmatch(parts[i]); m != nil && !forPython().MatchString(parts[i]) {
				parts[i], why = m[1]+"*", n.why
			}
		}
	}
	return family{strings.Join(parts, "/"), why}, why != ""
}

// hasLongName reports whether a name in a path could hold a hash.
func hasLongName(file string) bool {
	for len(file) >= commitHash {
		end := strings.IndexByte(file, '/')
		if end < 0 || end >= commitHash {
			return true
		}
		file = file[end+1:]
	}
	return false
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
