package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: whatever bytes a row has, they are refused or read, without a
// panic and without more memory than the bytes are worth, and what was read is
// written and read again as the same. The first argument says of which kind the
// row is.
func FuzzDecode(f *testing.F) {
	var c codec
	c.init()
	at := time.Unix(1790000000, 1).UTC()
	for kind, row := range []any{
		realistic(4),
		&Session{ID: "s1", Started: at, Windows: []Window{{From: at, To: at.Add(time.Hour)}}, Gaps: []Gap{{From: at, To: at, Count: 3, Cause: "ring"}}},
		&Generation{N: 3, Policies: []string{"p"}, State: StateLoaded, Stage: StageEnforce, Paths: []string{"/a", "/b"}, Files: map[string]FileID{"/a": {Ino: 3}},
			Kills: []Kill{{Path: "/a", Kills: 7, LastKill: at}}},
	} {
		value, err := c.encode(row, maxOther)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(kind), value)
		f.Add(byte(kind), value[:len(value)/2])
		f.Add(byte(kind), append([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, value...))
	}
	f.Fuzz(func(t *testing.T, kind byte, value []byte) {
		fresh, bound := rowOfKind(kind)
		row := fresh()
		if err := c.decode(value, row, bound); err != nil {
			return
		}
		written, err := c.encode(row, bound)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v\n%+v", err, row)
		}
		again := fresh()
		if err := c.decode(written, again, bound); err != nil {
			t.Fatalf("what was written is refused: %v\n%+v", err, row)
		}
		if diff := cmp.Diff(row, again); diff != "" {
			t.Fatalf("what was written is read as something else:\n%s", diff)
		}
	})
}

func rowOfKind(kind byte) (row func() any, bound int) {
	switch kind % 3 {
	case 0:
		return func() any { return new(Evidence) }, maxEvidence
	case 1:
		return func() any { return new(Session) }, maxOther
	}
	return func() any { return new(Generation) }, maxOther
}
