package enforcer

import (
	_ "embed"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

//go:embed protected.txt
var protectedText string

//go:embed runtimes.txt
var runtimesText string

// shells lists the login shells of a machine, see shells(5).
const shellsFile = "/etc/shells"

// patterns is a list of patterns in the form of protected.txt.
type patterns struct {
	exact map[string]bool // file names without a wildcard
	names []pattern       // file names with one
	paths []pattern       // whole paths
}

// pattern is one, with what whatever matches it must begin with, and a part that
// it must contain: to look for these first takes a tenth of the time.
type pattern struct {
	text, prefix, part string
}

// newPattern finds what stands before the first wildcard, and the longest part
// without one.
func newPattern(text string) pattern {
	p := pattern{text: text, prefix: text}
	if i := strings.IndexAny(text, `*?{[\`); i >= 0 {
		p.prefix = strings.TrimSuffix(text[:i], "/") // a/** is a, too
	}
	if strings.ContainsAny(text, `{[\`) {
		return p // what is within may be one of several
	}
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune("*?/", r) }) {
		if len(part) > len(p.part) {
			p.part = part
		}
	}
	return p
}

func (p *pattern) matches(text string) bool {
	return strings.HasPrefix(text, p.prefix) && strings.Contains(text, p.part) && doublestar.MatchUnvalidated(p.text, text)
}

// parsePatterns reads the form of protected.txt, one pattern a line.
func parsePatterns(text string) (*patterns, error) {
	p := &patterns{exact: map[string]bool{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := p.add(line); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *patterns) add(pattern string) error {
	switch {
	case pattern == "" || !doublestar.ValidatePattern(pattern):
		return fmt.Errorf("%w: %q is not a pattern", ErrUsage, pattern)
	case strings.Contains(pattern, "/"):
		p.paths = append(p.paths, newPattern(pattern))
	case strings.ContainsAny(pattern, `*?[{\`):
		p.names = append(p.names, newPattern(pattern))
	default:
		p.exact[pattern] = true
	}
	return nil
}

// match returns the pattern that the path matches, "" if none does.
func (p *patterns) match(file string) string {
	name := path.Base(file)
	if p.exact[name] {
		return name
	}
	if text := firstMatch(p.names, name); text != "" {
		return text
	}
	return firstMatch(p.paths, file)
}

func firstMatch(patterns []pattern, text string) string {
	for i := range patterns {
		if p := &patterns[i]; p.matches(text) {
			return p.text
		}
	}
	return ""
}

// protection knows what is protected on this machine.
type protection struct {
	list  *patterns
	exact map[string]string // resolved path: why
}

// newProtection takes the embedded list, more patterns of the same form, and
// what differs from machine to machine: PID 1, this executable, the shells,
// and the resolved paths of others.
func newProtection(more, others []string) (*protection, error) {
	list, err := parsePatterns(protectedText)
	if err != nil {
		return nil, err
	}
	for _, pattern := range more {
		if err := list.add(pattern); err != nil {
			return nil, err
		}
	}
	p := &protection{list: list, exact: map[string]string{}}
	if self, err := os.Executable(); err == nil {
		p.exact[resolveName(self)] = "profile itself"
	}
	if first, err := os.Readlink("/proc/1/exe"); err == nil {
		p.exact[first] = "PID 1"
	}
	for _, other := range others {
		p.exact[other] = "the agent"
	}
	shells, err := os.ReadFile(shellsFile)
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("read the list of shells: %w", err)
	}
	for line := range strings.Lines(string(shells)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); filepath.IsAbs(line) {
			p.exact[line], p.exact[resolveName(line)] = "a shell of "+shellsFile, "a shell of "+shellsFile
		}
	}
	return p, nil
}

// why says why the resolved path is protected, "" if it is not.
func (p *protection) why(file string) string {
	if why, ok := p.exact[file]; ok {
		return why
	}
	if pattern := p.list.match(file); pattern != "" {
		return "matches " + pattern
	}
	return ""
}
