package tetragon

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// paths that a list may hold: plain ones, and any valid text.
func paths() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`/[A-Za-z0-9_./+-]{0,40}`),
		rapid.StringMatching(`/[ -~]{0,20}`),
		rapid.SampledFrom([]string{"/list/0", "/list/1", "/a: b", "/a #b", "/a\nb", "/a\n\nb\n", "/a\tb", "/\u0085", "/\u2028x", "/é", "/'", "/\"", "/a\\b", "/\x01", "/ ", "/-"}),
		rapid.Map(rapid.String(), func(s string) string { return "/" + s }),
	)
}

func TestAListIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := NewPolicy("profile-enforce-x")
		lists := rapid.SliceOfN(rapid.SliceOfN(paths(), 1, 8), 1, 3).Draw(rt, "lists")
		for _, list := range lists {
			p.Spec.KProbes = append(p.Spec.KProbes, KProbe{Call: CallSocketCreate, Selectors: []Selector{{
				MatchBinaries: []MatchBinaries{{Operator: "In", Values: list}},
				MatchArgs:     []MatchArgs{{Operator: "Equal", Values: []string{"2"}}},
			}}})
		}
		text, err := p.Marshal()
		if err != nil {
			rt.Fatal(err)
		}
		back, err := ParsePolicy(text)
		if err != nil {
			rt.Fatalf("%v\n%s", err, text)
		}
		for i, list := range lists {
			if got := back.Spec.KProbes[i].Selectors[0].MatchBinaries[0].Values; !slices.Equal(got, list) {
				rt.Fatalf("wrote %q, read %q from\n%s", list, got, text)
			}
		}
	})
}

func TestAPolicyIsWrittenAsTheLibraryWould(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := NewPolicy("profile-enforce-x")
		p.Spec.KProbes = []KProbe{{Call: CallSocketCreate, Selectors: []Selector{{
			MatchBinaries: []MatchBinaries{{Operator: "In", Values: rapid.SliceOfN(rapid.StringMatching(`/[ -~]{0,20}`), 1, 8).Draw(rt, "list")}},
			MatchActions:  []MatchAction{{Action: "Sigkill"}},
		}}}}
		got, err := p.Marshal()
		if err != nil {
			rt.Fatal(err)
		}
		want, err := encode(p)
		if err != nil {
			rt.Fatal(err)
		}
		if string(got) != string(want) {
			rt.Fatalf("wrote\n%s\nand the library\n%s", got, want)
		}
	})
}

// checkAsWhole holds what is read without lists to what is read whole.
func checkAsWhole(t interface {
	Helper()
	Fatalf(string, ...any)
}, text []byte) (short bool) {
	t.Helper()
	want, wholeErr := parse(text)
	got, short := parseWithoutLists(text)
	if !short {
		return false
	}
	if wholeErr != nil {
		t.Fatalf("read without its lists, and refused whole: %v\n%s", wholeErr, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("read without its lists it is another policy:\n%s\n%s", text, diff)
	}
	return true
}

func TestAPolicyWithListsIsReadAsWhole(t *testing.T) {
	const head = "apiVersion: a\nkind: TracingPolicy\nmetadata:\n  name: n\nspec:\n  kprobes:\n  - call: c\n    syscall: false\n    selectors:\n    - matchBinaries:\n"
	for name, c := range map[string]struct {
		rest  string
		short bool
	}{
		"a list":                {"      - operator: In\n        values:\n        - /a\n        - /b\n        - /c\n", true},
		"a deeper list":         {"      - operator: In\n        values:\n            - /a\n            - /b\n", true},
		"among others":          {"      - operator: In\n        values:\n        - '/q'\n        - /a\n        - /b\n        - \"/x\"\n        - /c\n        - /d\n", true},
		"with a comment":        {"      - operator: In\n        values:\n        - /a\n        - /b\n        # - /c\n        - /d\n        - /e\n", true},
		"two lists":             {"      - operator: In\n        values:\n        - /a\n        - /b\n      - operator: NotIn\n        values:\n        - /a\n        - /b\n", true},
		"a value twice":         {"      - operator: In\n        values:\n        - /a\n        - /a\n", true},
		"a value goes on":       {"      - operator: In\n        values:\n        - /a\n        - /b\n          goes on\n", false},
		"a value goes on below": {"      - operator: In\n        values:\n        - /a\n        - /b\n\n          - /c\n          - /d\n", false},
		"in a quoted value":     {"      - operator: In\n        values:\n        - \"/a\n        - /b\n        - /c\n        \"\n", false},
		"in a block":            {"      - operator: In\n        values:\n        - |\n          - /b\n          - /c\n", false},
		"in a folded block":     {"      - operator: In\n        values:\n        - >-\n          - /b\n          - /c\n", false},
		"an alias":              {"      - operator: In\n        values: &v\n        - /a\n        - /b\n      - operator: NotIn\n        values: *v\n", false},
		"of arguments":          {"      - operator: In\n        values: [/a]\n      matchArgs:\n      - operator: Equal\n        values:\n        - /a\n        - /b\n", false},
		"the end is missing":    {"      - operator: In\n        values:\n        - /a\n        - /b\n        - /c", true},
		"ends of Windows":       {"      - operator: In\n        values:\n        - /a\r\n        - /b\r\n", false},
		"a second document":     {"      - operator: In\n        values:\n        - /a\n        - /b\n---\n- /a\n- /b\n", false},
		"unknown field":         {"      - operator: In\n        valuse:\n        - /a\n        - /b\n", false},
	} {
		if short := checkAsWhole(t, []byte(head+c.rest)); short != c.short {
			t.Errorf("%s: read without its lists: %v, want %v", name, short, c.short)
		}
	}
}

// Texts made of lines that could be taken for entries, and of what could take
// them for its own.
func TestAnyTextIsReadAsWhole(t *testing.T) {
	lines := rapid.SampledFrom([]string{"- /a", "- /b", "- /c", "- /d-e", "- \"/x", "\"", "- '/y", "'", "- |", "- >-", "- &v /a", "- *v", "- - /a",
		"goes on", "# - /a", "", "- [/a,", "]", "- {", "}", "values: &v", "values:", "operator: In", "- operator: In", "---", "...", "? - /a", ": - /b", "-", "- !!binary", "- ? /a", "/a"})
	indents := rapid.SampledFrom([]string{"        ", "        ", "        ", "          ", "      ", "            ", "\t", "         "})
	const head = "spec:\n  kprobes:\n  - call: c\n    selectors:\n    - matchBinaries:\n      - operator: In\n        values:\n"
	short := 0
	rapid.Check(t, func(rt *rapid.T) {
		var text strings.Builder
		text.WriteString(head)
		for range rapid.IntRange(1, 10).Draw(rt, "lines") {
			if rapid.Bool().Draw(rt, "plain") {
				text.WriteString("        - /e\n")
				continue
			}
			text.WriteString(indents.Draw(rt, "indent") + lines.Draw(rt, "line") + rapid.SampledFrom([]string{"\n", "\n", "\n", "\r\n", " \n", ""}).Draw(rt, "end"))
		}
		if checkAsWhole(rt, []byte(text.String())) {
			short++
		}
	})
	if short == 0 {
		t.Error("none was read without its lists")
	}
}
