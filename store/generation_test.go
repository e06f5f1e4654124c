package store

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// handless is Generation to the library, which must not find our own code.
type handless Generation

func TestGenerationsArePackedAsTheLibraryWould(t *testing.T) {
	var c codec
	c.init()
	rapid.Check(t, func(rt *rapid.T) {
		g := row[Generation]().Draw(rt, "generation")
		value, err := c.encode(&g, maxOther)
		if err != nil {
			rt.Fatal(err)
		}
		elements := c.count
		other, err := c.encode((*handless)(&g), maxOther)
		if err != nil {
			rt.Fatal(err)
		}
		if len(g.Files) < 2 && !bytes.Equal(value, other) { // more are in no order
			rt.Fatalf("packed as\n%q, and the library says\n%q", value, other)
		}
		if checkValue(value, elements) != nil || elements > 0 && checkValue(value, elements-1) == nil {
			rt.Fatalf("%d elements were counted in %q", elements, value)
		}
		var want handless
		var got Generation
		if err := errors.Join(c.decode(value, &want, maxOther), c.decode(value, &got, maxOther)); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(Generation(want), got, exact); diff != "" {
			rt.Fatal(diff)
		}
		var state GenerationState
		if err := c.unpackState(value, &state); err != nil || state != (GenerationState{g.N, g.Dir, g.State}) {
			rt.Fatalf("state %+v, error %v of %d %q", state, err, g.N, g.State)
		}
	})
}

func TestDamagedGenerationsAreDecodedOrRefused(t *testing.T) {
	var c codec
	c.init()
	rapid.Check(t, func(rt *rapid.T) {
		g := row[Generation]().Draw(rt, "generation")
		value, err := c.encode(&g, maxOther)
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(rt, "damages") {
			value[rapid.IntRange(0, len(value)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
		}
		limit := uint64(1<<16 + 700*len(value))
		if got := allocated(func() { _ = c.decode(value, new(Generation), maxOther) }); got > limit {
			rt.Fatalf("%d bytes allocated for a value of %d", got, len(value))
		}
		_ = c.unpackState(value, new(GenerationState))
	})
}

func TestOneGenerationIsFoundByItsNumber(t *testing.T) {
	s := newStore(t)
	put := []Generation{{N: 2, Policies: []string{"p2"}, Dir: "/d", State: StateReplaced, Paths: []string{"/a"}}, {N: 300, Policies: []string{"p300"}, State: StateLoaded, Paths: []string{"/b"}, Files: map[string]FileID{"/b": {Ino: 1}}}}
	update(t, s, func(tx *Tx) error { return errors.Join(tx.PutGeneration(&put[1]), tx.PutGeneration(&put[0])) })
	view(t, s, func(tx *Tx) error {
		states, err := tx.GenerationStates()
		if diff := cmp.Diff([]GenerationState{{2, "/d", StateReplaced}, {300, "", StateLoaded}}, states); diff != "" || err != nil {
			t.Errorf("states (-want +got), error %v:\n%s", err, diff)
		}
		for _, want := range put {
			got, err := tx.Generation(want.N)
			if diff := cmp.Diff(&want, got, exact); diff != "" || err != nil {
				t.Errorf("generation %d (-want +got), error %v:\n%s", want.N, err, diff)
			}
		}
		if none, err := tx.Generation(3); none != nil || err != nil {
			t.Errorf("generation 3: %+v, %v", none, err)
		}
		if n, err := tx.NextGeneration(); n != 301 || err != nil {
			t.Errorf("the next is %d, error %v", n, err)
		}
		return nil
	})
}
