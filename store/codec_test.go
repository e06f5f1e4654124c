package store

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// raw writes a row as it is, past the codec.
func raw(t *testing.T, s *Store, bucket, key, value []byte) {
	t.Helper()
	db, err := bbolt.Open(s.Path(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(key, value) }); err != nil {
		t.Fatal(err)
	}
}

// readAll reads all that a store holds.
func readAll(tx *Tx) error {
	for _, err := range tx.Executables() {
		if err != nil {
			return err
		}
	}
	_, sessions := tx.Sessions()
	_, generations := tx.Generations()
	return errors.Join(sessions, generations)
}

func TestACorruptRowIsAnErrorThatNamesItsKey(t *testing.T) {
	good := func(row any) []byte {
		var c codec
		c.init()
		b, err := c.encode(row, maxOther)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	evidence := good(realistic(4))
	session := good(&Session{ID: "s1"})
	key := []byte("/bin/\n\x00host\x00s1")
	named := `evidence "/bin/\n\x00host\x00s1"`
	for name, test := range map[string]struct {
		bucket, key, value []byte
		want               string
	}{
		"empty":              {evidenceBucket, key, nil, named},
		"cut":                {evidenceBucket, key, evidence[:len(evidence)-1], named},
		"bytes after it":     {evidenceBucket, key, append(bytes.Clone(evidence), 0), named},
		"no map":             {evidenceBucket, key, []byte("\x01"), named},
		"nil for a time":     {evidenceBucket, key, []byte("\x81\xa1f\xc0"), named},
		"time of two bytes":  {evidenceBucket, key, []byte("\x81\xa1f\xd5\xff\x00\x00"), named},
		"time of nine bytes": {evidenceBucket, key, []byte("\x81\xa1f\xc7\x09\xff123456789"), named},
		"not a time":         {evidenceBucket, key, []byte("\x81\xa1f\xd6\x07\x00\x00\x00\x00"), named},
		"unknown field":      {evidenceBucket, key, []byte("\x81\xa1Z\x01"), `unknown field "Z"`},
		"key of two parts":   {evidenceBucket, []byte("/bin/a\x00host"), evidence, `evidence "/bin/a\x00host"`},
		"key of four parts":  {evidenceBucket, []byte("/bin/a\x00host\x00s\x00"), evidence, `evidence "/bin/a\x00host\x00s\x00"`},
		"key without path":   {evidenceBucket, []byte("\x00host\x00s"), evidence, `evidence "\x00host\x00s"`},
		"session":            {sessionsBucket, []byte("s1\n"), session[:9], `session "s1\n"`},
		"other session":      {sessionsBucket, []byte("s2"), session, `session "s2": it says it is "s1"`},
		"generation":         {generationsBucket, []byte("\x00\x00\x00\x00\x00\x00\x00\x07"), []byte("x"), `generation "\x00\x00\x00\x00\x00\x00\x00\a"`},
		"other generation":   {generationsBucket, []byte("\x07"), good(&Generation{N: 7}), `generation "\a": it says it is 7`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			update(t, s, func(tx *Tx) error { return tx.PutEvidence(realistic(0)) })
			raw(t, s, test.bucket, test.key, test.value)
			err := s.View(context.Background(), readAll)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %s", err, test.want)
			}
		})
	}
}

// allocated gives the bytes that fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestHostileValuesTakeNoMemory(t *testing.T) {
	for name, value := range map[string]string{
		"array that says it is long":  "\x81\xa1t\xdd\xff\xff\xff\xff",
		"array of nothing":            "\x81\xa1t\xdd\x00\x10\x00\x00" + strings.Repeat("\x80", 1<<20),
		"map that says it is long":    "\xdf\xff\xff\xff\xff",
		"string that says it is long": "\x81\xdb\xff\xff\xff\xff",
		"nested":                      strings.Repeat("\x91", 1<<20),
		"nested in a field":           "\x81\xa1t" + strings.Repeat("\x91", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			var c codec
			c.init()
			hostile := []byte(value)
			var err error
			got := allocated(func() { err = c.decode(hostile, new(Evidence), maxEvidence) })
			if err == nil {
				t.Error("decoded")
			}
			if got > 64<<10 {
				t.Errorf("%d bytes allocated", got)
			}
		})
	}
}

func TestDamagedValuesAreDecodedOrRefused(t *testing.T) {
	var c codec
	c.init()
	rapid.Check(t, func(rt *rapid.T) {
		e := row[Evidence]().Draw(rt, "row")
		value, err := c.encode(&e, maxEvidence)
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(rt, "damages") {
			at := rapid.IntRange(0, len(value)-1).Draw(rt, "at")
			value[at] = rapid.Byte().Draw(rt, "byte")
		}
		// 350 bytes of memory for each byte that may be a tally, twice.
		limit := uint64(1<<16 + 700*len(value))
		if got := allocated(func() { _ = c.decode(value, new(Evidence), maxEvidence) }); got > limit {
			rt.Fatalf("%d bytes allocated for a value of %d", got, len(value))
		}
	})
}

// fieldless is Evidence to the library, which must not find our own code.
type fieldless Evidence

func TestEvidenceIsPackedAsTheLibraryWould(t *testing.T) {
	var c codec
	c.init()
	rapid.Check(t, func(rt *rapid.T) {
		e := row[Evidence]().Draw(rt, "row")
		lengthen(rt, &e)
		got, err := c.encode(&e, maxEvidence)
		if err != nil {
			rt.Fatal(err)
		}
		want, err := c.encode((*fieldless)(&e), maxEvidence)
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			rt.Fatalf("packed as\n%q, and the library says\n%q", got, want)
		}
		var back fieldless
		var again Evidence
		if err := errors.Join(c.decode(got, &again, maxEvidence), c.decode(got, &back, maxEvidence)); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(Evidence(back), again, exact); diff != "" {
			rt.Fatal(diff)
		}
	})
}

// lengthen gives strings, arrays and numbers the lengths at which their form
// changes.
func lengthen(rt *rapid.T, e *Evidence) {
	if len(e.Files) == 0 {
		return
	}
	t := &e.Files[0]
	n := rapid.SampledFrom([]int{0, 15, 16, 31, 32, 255, 256, 65535, 65536}).Draw(rt, "length")
	t.Args = append(t.Args, strings.Repeat("a", n))
	t.Entries = append(t.Entries, make([]Entry, rapid.SampledFrom([]int{0, 15, 16}).Draw(rt, "entries"))...)
	bit := rapid.IntRange(0, 63).Draw(rt, "bit")
	t.Seen = 1<<bit - rapid.Uint64Range(0, 1).Draw(rt, "less")
	t.File.Size = -(1 << bit) - rapid.Int64Range(0, 1).Draw(rt, "more")
	t.File.CtimeNS = 1<<min(bit, 62) - 1
}

func TestValuesBeyondTheBoundsAreNotWritten(t *testing.T) {
	e := realistic(1)
	e.Files[0].Args = make([]string, maxEvidence)
	err := newStore(t).Update(context.Background(), func(tx *Tx) error { return tx.PutEvidence(e) })
	if !errors.Is(err, errLarge) {
		t.Errorf("error %v, want %v", err, errLarge)
	}
}
