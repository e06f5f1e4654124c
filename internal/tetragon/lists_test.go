package tetragon

import (
	"slices"
	"testing"

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
