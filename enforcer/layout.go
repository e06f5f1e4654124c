package enforcer

import (
	"regexp"
	"strings"
	"sync"
)

// form gives a regular expression, which is compiled when it is first asked for:
// most commands start and end without a path that could be of a family.
func form(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// layout is how a kind of program is laid out in directories whose names
// change, each with words of its own for it.
type layout struct {
	mark    string // a name in each of its paths, or with * how one begins; cheap to look for
	form    func() *regexp.Regexp
	pattern string // of the family, made of what the form matches
	why     string
}

// layouts are those in which the names alone do not tell: of any directories
// versioned and hashed do. A date does not: what is kept in a directory of a day
// stays there.
var layouts = []layout{
	// The AppImage runtime adds six random characters to the start of a name.
	{".mount_*", form(`^(/.*)?/\.mount_([^/]*)[A-Za-z0-9]{6}(/.*)$`), "$1/.mount_$2*$3", "an AppImage is mounted elsewhere at each start"},
	{"appimage_extracted_*", form(`^(/.*)?/appimage_extracted_[0-9a-f]{32}(/.*)$`), "$1/appimage_extracted_*$2", "an AppImage is unpacked elsewhere with each version"},
	// Beside the snap itself, its data has a directory for each revision.
	{"snap", form(`^(/snap/[^/]+|/var/lib/snapd/snap/[^/]+|/var/snap/[^/]+|/home/.+/snap/[^/]+|/root/snap/[^/]+)/x?[0-9]+(/.*)$`), "$1/*$2", "a snap has a directory for each revision"},
	// A hash of 32 characters stands before the name and version of a package.
	{"store", form(`^((?:/.*)?/(?:nix|gnu)/store)/[0-9a-z]{32}-([^/]+?)(-[0-9][^/]*)?(/.*)?$`), "$1/*-$2*$4", "a store of packages has a directory for each build"},
	{"wrappers.*", form(`^(/run/wrappers/wrappers)\.[A-Za-z0-9]{10}(/.*)$`), "$1.*$2", "NixOS makes it anew each time that it is activated"},
	// A version may be one number.
	{"Cellar", form(`^(/.*/Cellar/[^/]+)/[^/]+(/.*)$`), "$1/*$2", versionDirectory},
	{"installs", form(`^(/.*/\.?(?:asdf|mise|rtx)/installs/[^/]+)/[^/]+(/.*)$`), "$1/*$2", versionDirectory},
	{"candidates", form(`^(/.*/\.?sdkman/candidates/[^/]+)/[^/]+(/.*)$`), "$1/*$2", versionDirectory},
	{"toolchains", form(`^(/.*/toolchains/[a-z]+-)20[0-9]{2}-[0-9]{2}-[0-9]{2}[^/]*(/.*)$`), "$1*$2", versionDirectory},
	{"ms-playwright", form(`^(/.*/ms-playwright/[^/]+-)[0-9]+(/.*)$`), "$1*$2", versionDirectory},
	{"compatibilitytools.d", form(`^(/.*/compatibilitytools\.d/[^/0-9]*)[0-9][^/]*(/.*)$`), "$1*$2", versionDirectory},
	{"releases", form(`^(/.*/releases)/[0-9]+(/.*)$`), "$1/*$2", "its directory has the name of a release"},
	// What is made for the programs that it needs, once for each version of them.
	{"pre-commit", form(`^(/.*/pre-commit/repo)[a-z0-9_]{8}(/.*)$`), "$1*$2", "pre-commit has a directory for each version of a hook"},
	{"archive-v*", form(`^(/.*/archive-v[0-9]+)/[^/]+(/.*)$`), "$1/*$2", "uv has a directory for each set of packages"},
	{"install", form(`^(/.*/_bazel_[^/]+/install)/[0-9a-f]{32}(/.*)$`), "$1/*$2", "Bazel has a directory for each of its versions"},
	{"target", form(`^(/.*/target/(?:.*/)?(?:build|deps)/[^/]+)-[0-9a-f]{16}(/.*)?$`), "$1-*$2", buildName},
	// What unpacks itself at each start.
	{"_MEI*", form(`^(/.*)?/_MEI[A-Za-z0-9_]{6}(/.*)$`), "$1/_MEI*$2", unpackedAtStart},
	{"onefile_*", form(`^(/.*)?/onefile_[0-9]+_[0-9_]+(/.*)$`), "$1/onefile_*$2", unpackedAtStart},
	// Of a container, as one sees it from outside of it.
	{"snapshots", form(`^(/.*/io\.containerd\.[^/]+/snapshots)/[0-9]+(/.*)$`), "$1/*$2", "a container has a directory for each of its layers"},
	{"pods", form(`^(/.*/pods)/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(/.*)$`), "$1/*$2", "a pod has a directory for each time that it is started"},
	{"alloc", form(`^(/.*/alloc)/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(/.*)$`), "$1/*$2", "a job has a directory for each time that it is placed"},
}

// marked are the layouts by the first byte of their marks: of 20,000 paths each
// name is looked at.
var marked = func() (all [256][]*layout) {
	for i := range layouts {
		first := layouts[i].mark[0]
		all[first] = append(all[first], &layouts[i])
	}
	return all
}()

// marks reports whether the layout has such a name in its paths, the first of
// what is left of one.
func (l *layout) marks(rest string) bool {
	if mark := l.mark[:len(l.mark)-1]; l.mark[len(mark)] == '*' {
		return strings.HasPrefix(rest, mark)
	}
	return strings.HasPrefix(rest, l.mark) && (len(rest) == len(l.mark) || rest[len(l.mark)] == '/')
}

// layoutOf tells the family of a path that is laid out in one of these ways.
func layoutOf(file string) (family, bool) {
	for i := 1; i < len(file); i++ {
		if file[i-1] != '/' {
			continue
		}
		for _, l := range marked[file[i]] {
			if !l.marks(file[i:]) {
				continue
			}
			if m := l.form().FindStringSubmatchIndex(file); m != nil {
				return family{string(l.form().ExpandString(nil, l.pattern, file, m)), l.why}, true
			}
		}
	}
	return family{}, false
}

const (
	versionDirectory = "its directory has the name of a version"
	versionName      = "it has the name of a version"
	buildDirectory   = "its directory has the name of a build"
	buildName        = "it has the name of a build"
	unpackedAtStart  = "it is unpacked elsewhere at each start"
)

// What a version ends with: 3.13.0rc1, 17.0.9+9, 1.75.0-x86_64.
const suffix = `([-+_.~][^/]*|[a-z]{1,5}[0-9]*([-+_.~][^/]*)?)?$`

// Names that change, of whatever is named so. What they match in front of it
// stays.
var (
	versioned = form(`^(|.*?[^0-9.]\.?)v?[0-9]+(\.[0-9]+)+` + suffix)
	// The name of a program often has two numbers, by which several are
	// installed beside each other: python3.11.
	exact = form(`^(|.*?[^0-9.]\.?)v?[0-9]+(\.[0-9]+){2,}` + suffix)
	// Of a commit of git, and of a SHA-256.
	hashed = form(`^(|.*[^0-9A-Za-z])(?:[0-9a-f]{40}|[0-9a-f]{64})([^0-9A-Za-z].*)?$`)
	// What is named after the Python it is for, moves when that one does.
	forPython = form(`(^|-)py(thon)?[0-9]\.[0-9]+$`)
)
