package enforcer

import (
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"pgregory.net/rapid"
)

// What is looked for first must never keep out what the pattern matches.
func TestAPatternMatchesWhatDoublestarSays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringMatching(`(\*\*/|/)?([ab]{0,2}[*?]?|\{a,b/a\}|\[ab\])(/(\*\*|[ab]{1,2}\*?)){0,2}`).Draw(rt, "pattern")
		path := rapid.StringMatching(`/?[ab]{0,3}(/[ab]{1,3}){0,3}`).Draw(rt, "path")
		if text == "" || !doublestar.ValidatePattern(text) {
			return
		}
		p := newPattern(text)
		if got, want := p.matches(path), doublestar.MatchUnvalidated(text, path); got != want {
			rt.Fatalf("%q matches %q: %v, want %v", text, path, got, want)
		}
	})
}
