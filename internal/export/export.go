// Package export writes what was learned in a form that other machines, people
// and version control can read: sorted YAML, a fact a line, without arguments
// of programs. It reads that again, and brings several of them into one.
//
// What must not be in it: verdicts, and what was applied. Generations stay with
// their machine.
package export

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"profile/store"
)

// schema is the version of the form. Version 2 has fields that are unknown in
// what was written before, and from ended on the last line says that it is the
// last: of what was cut short, as by a connection, network use may be missing.
const (
	schema = 3
	ended  = 3
)

// Export is what was learned: sessions sorted by ID, evidence by path, scope
// and session, and each of them once.
type Export struct {
	Sessions []store.Session
	Evidence []store.Evidence
}

// file is the form of an export.
type file struct {
	Schema   int64            `yaml:"schema"`
	Sessions []store.Session  `yaml:"sessions"`
	Evidence []store.Evidence `yaml:"evidence"`
	End      bool             `yaml:"end"`
}

// Of takes an export from a database. It leaves out arguments.
func Of(tx *store.Tx) (*Export, error) {
	sessions, err := tx.Sessions()
	if err != nil {
		return nil, err
	}
	x := &Export{Sessions: sessions}
	for rows, err := range tx.Executables() {
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			for i := range row.Files {
				row.Files[i].Args = nil
			}
			x.Evidence = append(x.Evidence, row)
		}
	}
	return x, nil
}

// Write writes the export. The same export is always the same bytes.
func (x *Export) Write(w io.Writer) error {
	buffer := bufio.NewWriter(w)
	fmt.Fprintf(buffer, "schema: %d\n", schema)
	if err := writeList(buffer, "sessions", x.Sessions); err != nil {
		return err
	}
	if err := writeList(buffer, "evidence", x.Evidence); err != nil {
		return err
	}
	buffer.WriteString("end: true\n")
	return buffer.Flush()
}

// Read reads an export. It is untrusted: what is not of the form, of a newer
// one, cut short, or says something twice is an error.
func Read(r io.Reader) (*Export, error) {
	all, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read an export: %w", err)
	}
	f, err := readUsual(all)
	if err != nil {
		f, err = readYAML(all)
	}
	if f.Schema > schema {
		return nil, fmt.Errorf("read an export: it has schema %d, and this profile knows %d: use a newer profile", f.Schema, schema)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("read an export: %w", err)
	case f.Schema >= ended && !f.End:
		return nil, errors.New("read an export: it is cut short: its last line, which says end: true, is missing")
	case f.Schema < 1:
		return nil, fmt.Errorf("read an export: its schema is %d, and should be %d", f.Schema, schema)
	}
	x := &Export{Sessions: f.Sessions, Evidence: f.Evidence}
	return x, x.settle()
}

// readYAML reads one that a person may have written. With an error it gives what
// could be read: a newer schema has fields that are not known here.
func readYAML(all []byte) (*file, error) {
	dec := yaml.NewDecoder(bytes.NewReader(all))
	dec.KnownFields(true)
	f := new(file)
	if err := dec.Decode(f); err != nil {
		return f, err
	}
	switch err := dec.Decode(new(yaml.Node)); {
	case err == nil:
		return f, errors.New("a second document follows it")
	case !errors.Is(err, io.EOF):
		return f, err
	}
	return f, nil
}

// settle brings what was read into the form that Of gives, and checks it.
func (x *Export) settle() error {
	slices.SortFunc(x.Sessions, bySession)
	slices.SortFunc(x.Evidence, byRow)
	known := map[string]bool{}
	for i, s := range x.Sessions {
		if known[s.ID] {
			return fmt.Errorf("read an export: session %.200q is there twice", s.ID)
		}
		known[s.ID] = true
		inUTC(&x.Sessions[i])
	}
	for i, e := range x.Evidence {
		switch {
		case !known[e.Session]:
			return fmt.Errorf("read an export: evidence of %.200q is of session %.200q, which is not there", e.Key.Path, e.Session)
		case i > 0 && byRow(x.Evidence[i-1], e) == 0:
			return fmt.Errorf("read an export: evidence of %.200q in session %.200q is there twice", e.Key.Path, e.Session)
		}
	}
	return nil
}

// inUTC says of durations and times what the store does.
func inUTC(s *store.Session) {
	s.Started, s.Ended = s.Started.UTC(), s.Ended.UTC()
}

// Merge brings two exports into one. What both have of a session is there once,
// as the one tells it that knows more. The order of merging makes no difference,
// and nor does merging twice. Neither is changed.
func Merge(a, b *Export) *Export {
	return &Export{
		Sessions: merge(a.Sessions, b.Sessions, bySession, bySessionKnown),
		Evidence: merge(a.Evidence, b.Evidence, byRow, byRowKnown),
	}
}

// merge joins two sorted lists; of what is in both it takes the greater by
// known, and of equals that of a.
func merge[T any](a, b []T, order, known func(T, T) int) []T {
	all := make([]T, 0, max(len(a), len(b)))
	for len(a) > 0 && len(b) > 0 {
		switch c := order(a[0], b[0]); {
		case c < 0:
			all, a = append(all, a[0]), a[1:]
		case c > 0:
			all, b = append(all, b[0]), b[1:]
		default:
			one := a[0]
			if known(b[0], one) > 0 {
				one = b[0]
			}
			all, a, b = append(all, one), a[1:], b[1:]
		}
	}
	return append(append(all, a...), b...)
}

func bySession(a, b store.Session) int { return strings.Compare(a.ID, b.ID) }

func byRow(a, b store.Evidence) int {
	return cmp.Or(strings.Compare(a.Key.Path, b.Key.Path), strings.Compare(a.Key.Scope, b.Key.Scope), strings.Compare(a.Session, b.Session))
}

// bySessionKnown orders what two exports say of one session: the later says more,
// then that which claims less, then that which says that it ended. A live one
// that was brought in may have been taken for killed meanwhile.
func bySessionKnown(a, b store.Session) int {
	last := func(s store.Session) time.Time {
		if n := len(s.Windows); n > 0 {
			return s.Windows[n-1].To
		}
		return time.Time{}
	}
	return cmp.Or(last(a).Compare(last(b)), cmp.Compare(len(a.Gaps), len(b.Gaps)), cmp.Compare(len(a.Narrowed), len(b.Narrowed)),
		cmp.Compare(count(!a.Ended.IsZero()), count(!b.Ended.IsZero())), byText(a, b))
}

// byRowKnown orders what two exports say of one row: it only ever grows, but for
// what is still going, of which that says more which claims less.
func byRowKnown(a, b store.Evidence) int {
	counted := func(e store.Evidence) (n uint64) {
		for _, t := range e.Files {
			n += t.Seen + t.Complete + t.Clean + t.Crossed + t.UnseenCount
			for _, u := range t.Network {
				n += u.Runs
			}
		}
		for _, a := range e.Attempts {
			n += a.Count
		}
		return n
	}
	spoilt := func(e store.Evidence) (n uint64) {
		for _, t := range e.Files {
			n += t.Going.Touched + uint64(len(t.Unseen))
		}
		return n
	}
	return cmp.Or(a.LastSeen.Compare(b.LastSeen), cmp.Compare(counted(a), counted(b)), cmp.Compare(spoilt(a), spoilt(b)), byText(a, b))
}

// byText is the last resort: it makes no sense but is always the same.
func byText[T any](a, b T) int {
	if reflect.DeepEqual(a, b) {
		return 0 // at a small part of the cost
	}
	one, err := textOf(a)
	other, err2 := textOf(b)
	if err != nil || err2 != nil {
		return 0
	}
	return strings.Compare(one, other)
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Into brings the export into a database, as Merge does. What is there already
// keeps its arguments where the export does not know more.
func (x *Export) Into(tx *store.Tx) error {
	there, err := tx.Sessions()
	if err != nil {
		return err
	}
	for _, s := range x.Sessions {
		i, found := slices.BinarySearchFunc(there, s, bySession)
		if found && bySessionKnown(s, there[i]) <= 0 {
			continue
		}
		if err := tx.PutSession(&s); err != nil {
			return err
		}
	}
	for _, e := range x.Evidence {
		rows, err := tx.Evidence(e.Key.Path)
		if err != nil {
			return err
		}
		i, found := slices.BinarySearchFunc(rows, e, byRow)
		if found && byRowKnown(e, rows[i]) <= 0 {
			continue
		}
		if err := tx.PutEvidence(&e); err != nil {
			return err
		}
	}
	return nil
}
