package store

import (
	order "cmp"
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func update(t testing.TB, s *Store, fn func(*Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, s *Store, fn func(*Tx) error) {
	t.Helper()
	if err := s.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// realistic gives a row as a day of learning leaves it: a path of common
// length, two names, and in every fourth row use of the network.
func realistic(i int) *Evidence {
	at := time.Unix(1790000000, 123456789).Add(time.Duration(i) * time.Millisecond).UTC()
	path := fmt.Sprintf("/usr/lib/x86_64-linux-gnu/some-package-%04d/libexec/helper-%06d", i%1000, i)
	e := &Evidence{
		Key: Key{Scope: HostScope, Path: path}, Session: "20261124t180601-1a2b3c4d",
		FirstSeen: at, LastSeen: at.Add(time.Hour),
		Files: []Tally{{
			File:      FileID{Dev: 64768, Ino: 1234567 + uint64(i), Size: 123456, CtimeNS: at.UnixNano()},
			FirstExec: at, LastExec: at.Add(time.Hour),
			Seen: 1234, Complete: 1230, Clean: 1230,
			Entries: []Entry{{Name: path, Runs: 1200}, {Name: "/usr/bin/" + filepath.Base(path), Runs: 34}},
		}},
	}
	if i%4 == 0 {
		e.Files[0].Network = []Use{
			{Family: "inet", Type: "stream", Runs: 100, First: at, Last: at},
			{Family: "inet6", Type: "dgram", Runs: 100, First: at, Last: at},
		}
	}
	return e
}

// exact compares times by what they are and where, and no slice with nil.
var exact = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b time.Time) bool { return a == b }),
}

// row fills every field that the type has, with any bytes in strings and with
// zero times among the others. Slices are short, since rapid's own are long.
func row[T any]() *rapid.Generator[T] {
	text := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 12), func(b []byte) string { return string(b) })
	moment := rapid.OneOf(
		rapid.Just(time.Time{}),
		rapid.Custom(func(t *rapid.T) time.Time {
			sec := rapid.OneOf(rapid.Int64Range(-1<<40, 1<<40), rapid.Int64Range(0, 1<<32)).Draw(t, "sec")
			nsec := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 999_999_999)).Draw(t, "nsec")
			return time.Unix(sec, nsec).UTC()
		}))
	types := rapid.MakeConfig{Types: map[reflect.Type]*rapid.Generator[any]{
		reflect.TypeFor[string]():    text.AsAny(),
		reflect.TypeFor[time.Time](): moment.AsAny(),
	}}
	short[string](types)
	short[Process](types)
	short[Entry](types)
	short[Use](types)
	short[Tally](types)
	short[Attempt](types)
	short[Window](types)
	short[Gap](types)
	short[Kill](types)
	return rapid.MakeCustom[T](types)
}

func short[T any](types rapid.MakeConfig) {
	slice := rapid.SliceOfN(rapid.MakeCustom[T](types), 0, 3)
	types.Types[reflect.TypeFor[[]T]()] = slice.AsAny()
}

func keyPart() *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 20), func(b []byte) string { return string(b) })
}

func TestEvidenceComesBackAsItWas(t *testing.T) {
	s := newStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		want := row[Evidence]().Draw(rt, "row")
		want.Key = Key{Path: "/" + keyPart().Draw(rt, "path"), Scope: keyPart().Draw(rt, "scope")}
		want.Session = keyPart().Draw(rt, "session")
		update(t, s, func(tx *Tx) error { return tx.PutEvidence(&want) })
		var rows []Evidence
		view(t, s, func(tx *Tx) (err error) {
			rows, err = tx.Evidence(want.Key.Path)
			return err
		})
		got := slices.DeleteFunc(rows, func(e Evidence) bool { return e.Key != want.Key || e.Session != want.Session })
		if diff := cmp.Diff([]Evidence{want}, got, exact); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func TestSessionComesBackAsItWas(t *testing.T) {
	s := newStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		want := row[Session]().Draw(rt, "session")
		want.ID = keyPart().Draw(rt, "id")
		update(t, s, func(tx *Tx) error { return tx.PutSession(&want) })
		view(t, s, func(tx *Tx) error {
			all, err := tx.Sessions()
			i, ok := slices.BinarySearchFunc(all, want.ID, func(s Session, id string) int { return strings.Compare(s.ID, id) })
			if !ok || err != nil {
				rt.Fatalf("not among %d sorted sessions: %v", len(all), err)
			}
			if diff := cmp.Diff(want, all[i], exact); diff != "" {
				rt.Fatal(diff)
			}
			return nil
		})
	})
}

func TestGenerationComesBackAsItWas(t *testing.T) {
	s := newStore(t)
	highest := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		want := row[Generation]().Draw(rt, "generation")
		want.N = rapid.Uint64Range(1, 1<<40).Draw(rt, "n")
		highest = max(highest, want.N)
		update(t, s, func(tx *Tx) error { return tx.PutGeneration(&want) })
		view(t, s, func(tx *Tx) error {
			all, err := tx.Generations()
			i, ok := slices.BinarySearchFunc(all, want.N, func(g Generation, n uint64) int { return order.Compare(g.N, n) })
			if !ok || err != nil {
				rt.Fatalf("not among %d sorted generations: %v", len(all), err)
			}
			if diff := cmp.Diff(want, all[i], exact); diff != "" {
				rt.Fatal(diff)
			}
			if next, err := tx.NextGeneration(); next != highest+1 || err != nil {
				rt.Fatalf("the next generation is %d, %v; want %d", next, err, highest+1)
			}
			return nil
		})
	})
}

func TestTimesAreReadInUTC(t *testing.T) {
	s := newStore(t)
	now := time.Now().In(time.FixedZone("here", 7200)) // with a monotonic reading
	e := Evidence{Key: Key{Scope: HostScope, Path: "/a"}, Session: "s", FirstSeen: now}
	update(t, s, func(tx *Tx) error { return tx.PutEvidence(&e) })
	view(t, s, func(tx *Tx) error {
		rows, err := tx.Evidence("/a")
		if err != nil {
			return err
		}
		if got, want := rows[0].FirstSeen, now.UTC().Round(0); got != want {
			t.Errorf("first seen %#v, want %#v", got, want)
		}
		if got := rows[0].LastSeen; got != (time.Time{}) {
			t.Errorf("last seen %#v, want the zero time", got)
		}
		return nil
	})
}

func TestRowsAreSortedAndGroupedByKey(t *testing.T) {
	s := newStore(t)
	// A space and a newline sort before a letter, and a key must not run into
	// the next one that begins with it.
	want := [][3]string{
		{"/bin/a", "container", "s2"},
		{"/bin/a", "host", "s1"}, {"/bin/a", "host", "s2"},
		{"/bin/a\x01", "host", "s1"},
		{"/bin/a b", "host", "s1"}, {"/bin/a b", "host", "s3"},
		{"/bin/aa", "host", "s1"},
		{"/bin/\xff\xfe", "host", "s2"},
	}
	update(t, s, func(tx *Tx) error {
		for i := range want {
			k := want[(i*5)%len(want)] // out of order
			if err := tx.PutEvidence(&Evidence{Key: Key{Path: k[0], Scope: k[1]}, Session: k[2]}); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, s, func(tx *Tx) error {
		var got [][3]string
		groups := 0
		for rows, err := range tx.Executables() {
			if err != nil {
				return err
			}
			groups++
			for _, e := range rows {
				if e.Key != rows[0].Key {
					t.Errorf("%q and %q in one group", e.Key, rows[0].Key)
				}
				got = append(got, [3]string{e.Key.Path, e.Key.Scope, e.Session})
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if groups != 6 {
			t.Errorf("%d groups, want 6", groups)
		}
		for rows, err := range tx.Executables() {
			if err != nil || rows[0].Key.Scope != "container" {
				t.Errorf("first are %v, %v", rows, err)
			}
			break
		}
		rows, err := tx.Evidence("/bin/a")
		if err != nil || len(rows) != 3 {
			t.Errorf("%d rows of /bin/a, %v; want 3", len(rows), err)
		}
		rows, err = tx.Evidence("/bin/none")
		if err != nil || len(rows) != 0 {
			t.Errorf("%d rows of /bin/none, %v; want none", len(rows), err)
		}
		return nil
	})
}

func TestPutReplacesWhatWasThere(t *testing.T) {
	s := newStore(t)
	e := realistic(4)
	update(t, s, func(tx *Tx) error { return tx.PutEvidence(e) })
	e.Files = e.Files[:0]
	update(t, s, func(tx *Tx) error { return tx.PutEvidence(e) })
	view(t, s, func(tx *Tx) error {
		rows, err := tx.Evidence(e.Key.Path)
		if diff := cmp.Diff([]Evidence{*e}, rows, exact); diff != "" {
			t.Error(diff)
		}
		return err
	})
}

func TestEmptyStoreHasNothing(t *testing.T) {
	view(t, newStore(t), func(tx *Tx) error {
		for rows, err := range tx.Executables() {
			t.Errorf("evidence: %v, %v", rows, err)
		}
		sessions, err := tx.Sessions()
		if len(sessions) != 0 || err != nil {
			t.Errorf("sessions: %v, %v", sessions, err)
		}
		next, err := tx.NextGeneration()
		if next != 1 || err != nil {
			t.Errorf("next generation: %d, %v; want 1", next, err)
		}
		return nil
	})
}

func TestRowsWithoutAUsableKeyAreRefused(t *testing.T) {
	long := "/" + strings.Repeat("x", 32768-len("/\x00host\x00s"))
	evidence := func(path, scope, session string) func(*Tx) error {
		return func(tx *Tx) error {
			return tx.PutEvidence(&Evidence{Key: Key{Path: path, Scope: scope}, Session: session})
		}
	}
	for name, test := range map[string]struct {
		put  func(*Tx) error
		want string // part of the error; "" if it is accepted
	}{
		"longest key":         {evidence(long, "host", "s"), ""},
		"key too long":        {evidence(long+"x", "host", "s"), "32769 bytes"},
		"empty path":          {evidence("", "host", "s"), "empty"},
		"empty scope":         {evidence("/a", "", "s"), "empty"},
		"empty session":       {evidence("/a", "host", ""), "empty"},
		"NUL in path":         {evidence("/a\x00b", "host", "s"), `"/a\x00b" holds a NUL`},
		"NUL in scope":        {evidence("/a", "h\x00", "s"), `"h\x00" holds a NUL`},
		"NUL in session":      {evidence("/a", "host", "\x00"), `"\x00" holds a NUL`},
		"session without ID":  {func(tx *Tx) error { return tx.PutSession(&Session{}) }, "empty"},
		"generation number 0": {func(tx *Tx) error { return tx.PutGeneration(&Generation{}) }, "no number"},
	} {
		t.Run(name, func(t *testing.T) {
			err := newStore(t).Update(context.Background(), test.put)
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want one with %q", err, test.want)
			case err != nil && len(err.Error()) > 500:
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestAFailedUpdateLeavesNothing(t *testing.T) {
	s := newStore(t)
	before, after := realistic(1), realistic(1)
	after.Files = nil
	update(t, s, func(tx *Tx) error { return tx.PutEvidence(before) })
	failure := fmt.Errorf("no")
	check := func(what string) {
		view(t, s, func(tx *Tx) error {
			rows, err := tx.Evidence(before.Key.Path)
			if diff := cmp.Diff([]Evidence{*before}, rows, exact); diff != "" {
				t.Errorf("after %s: %s", what, diff)
			}
			return err
		})
	}
	err := s.Update(context.Background(), func(tx *Tx) error {
		if err := tx.PutEvidence(after); err != nil {
			t.Error(err)
		}
		return failure
	})
	if err != failure {
		t.Errorf("error %v, want the one of the function as it is", err)
	}
	check("an error")
	func() {
		defer func() {
			if r := recover(); r != "mine" {
				t.Errorf("recovered %v: a panic of the caller is the caller's", r)
			}
		}()
		_ = s.Update(context.Background(), func(tx *Tx) error {
			if err := tx.PutEvidence(after); err != nil {
				t.Error(err)
			}
			panic("mine")
		})
	}()
	check("a panic")
	if err := s.View(context.Background(), func(tx *Tx) error { return tx.PutEvidence(after) }); err == nil {
		t.Error("a View could write")
	}
	check("a View that tried")
}
