package store

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
)

// oldDatabase unpacks a database that the profile of a schema wrote.
func oldDatabase(t *testing.T, schema int) string {
	t.Helper()
	packed, err := os.Open("testdata/schema-" + strconv.Itoa(schema) + ".db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "profile.db")
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// inSchema1 is what testdata/schema-1.db.gz was filled with.
func inSchema1() (rows []Evidence, s Session, g Generation) {
	at := func(m int) time.Time { return time.Date(2026, 11, 24, 18, m, 0, 5000, time.UTC) }
	for i := range 8 {
		rows = append(rows, *realistic(i))
	}
	e := realistic(99)
	e.Attempts = []Attempt{{Family: "inet", Type: "stream", Stage: StageEnforce, Count: 3, First: at(1), Last: at(2)}}
	e.Files[0].Going = Going{Clean: 1, Touched: 1, Oldest: at(1), Newest: at(1), OldestAny: at(0), NewestAny: at(1)}
	e.Files[0].Unseen, e.Files[0].UnseenCount = []Process{{PID: 77, Start: at(0)}}, 2
	e.Files[0].Args = []string{"--secret"}
	e.Files[0].Entries[1].Script = true
	rows = append(rows, *e)
	s = Session{ID: "20261124t180601-1a2b3c4d", Agent: "embedded", Version: "0.1.0", BootID: "b", Hook: "cgroup/sock_create",
		Families: []string{"inet", "inet6"}, Unwatched: []string{"vsock"}, Cgroup: "/", Only: []string{"/usr/**"}, Started: at(0), Ended: at(30), End: "interrupted",
		Windows: []Window{{From: at(1), To: at(30)}}, Awake: 29 * time.Minute, Gaps: []Gap{{From: at(3), To: at(4), Cause: "the ring was full", Count: 7}}}
	g = Generation{N: 3, Policies: []string{"profile-enforce-x-g3"}, State: StateLoaded, Stage: StageMonitor, Agent: "embedded", Cgroup: "/",
		Paths: []string{"/usr/bin/a"}, Families: []string{"inet"}, Files: map[string]FileID{"/usr/bin/a": {Dev: 1, Ino: 2, Size: 3, CtimeNS: 4}},
		MinRuns: 2, MinWatch: time.Hour, AcceptGaps: true, Since: at(31), Tried: at(32), Kills: []Kill{{Path: "/usr/bin/a", Would: 4, LastWould: at(40)}}}
	return rows, s, g
}

// inSchema2 is what testdata/schema-2.db.gz was filled with.
func inSchema2() (rows []Evidence, s Session, generations []Generation) {
	rows, s, g := inSchema1()
	s.Reach = true
	g.Wider, g.Sessions, g.LearnedSince = true, []string{s.ID}, time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	older := g
	older.N, older.Policies, older.State, older.Ended = 2, []string{"profile-enforce-x-g2"}, StateReplaced, g.Since
	return rows, s, []Generation{older, g}
}

// inSchema3 is what testdata/schema-3.db.gz was filled with.
func inSchema3() (rows []Evidence, s Session, generations []Generation) {
	rows, s, generations = inSchema2()
	rows[len(rows)-1].Files[0].Network = []Use{{Family: "inet", Type: "stream", Runs: 3, First: s.Started, Last: s.Ended, Protocols: []uint32{0, 6},
		Reach: ReachLoopback | ReachOut, Destinations: []string{"192.0.2.1:443"}, Inherited: 1}}
	generations[1].Dir = "/etc/tetragon/tetragon.tp.d"
	return rows, s, generations
}

// inSchema4 is what testdata/schema-4.db.gz was filled with.
func inSchema4() (rows []Evidence, s Session, generations []Generation) {
	rows, s, generations = inSchema3()
	s.Handed = true
	generations[1].Policies = []string{"profile-enforce-x-g3", "profile-enforce-x-g3-2"}
	return rows, s, generations
}

// inSchema5 is what testdata/schema-5.db.gz was filled with.
func inSchema5() (rows []Evidence, s Session, generations []Generation) {
	rows, s, generations = inSchema4()
	s.Narrowed = []Narrowed{{Path: "/usr/bin/curl", From: s.Started, To: s.Ended}}
	return rows, s, generations
}

// inSchema6 is what testdata/schema-6.db.gz was filled with.
func inSchema6() (rows []Evidence, s Session, generations []Generation) {
	rows, s, generations = inSchema5()
	s.Machine = "0123456789abcdef"
	return rows, s, generations
}

// inSchema7 is what testdata/schema-7.db.gz was filled with.
func inSchema7() (rows []Evidence, s Session, generations []Generation) {
	rows, s, generations = inSchema6()
	s.NoSendHook = true
	return rows, s, generations
}

func schemaOf(t *testing.T, name string) string {
	t.Helper()
	db, err := bbolt.Open(name, 0, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var have string
	err = db.View(func(tx *bbolt.Tx) error {
		have = string(tx.Bucket(metaBucket).Get(schemaKey))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return have
}

func TestAnOlderSchemaIsBroughtUpToDate(t *testing.T) {
	rows1, session1, generation1 := inSchema1()
	rows2, session2, generations2 := inSchema2()
	rows3, session3, generations3 := inSchema3()
	rows4, session4, generations4 := inSchema4()
	rows5, session5, generations5 := inSchema5()
	rows6, session6, generations6 := inSchema6()
	rows7, session7, generations7 := inSchema7()
	for _, c := range []struct {
		schema      int
		rows        []Evidence
		session     Session
		generations []Generation
	}{
		{1, rows1, session1, []Generation{generation1}},
		{2, rows2, session2, generations2},
		{3, rows3, session3, generations3},
		{4, rows4, session4, generations4},
		{5, rows5, session5, generations5},
		{6, rows6, session6, generations6},
		{7, rows7, session7, generations7},
	} {
		for call, first := range map[string]func(*Store) error{
			"Open":   func(s *Store) (err error) { _, err = Open(s.path); return err },
			"Create": func(s *Store) (err error) { _, err = Create(s.path); return err },
			"View":   func(s *Store) error { return s.View(context.Background(), readAll) },
			"Update": func(s *Store) error { return s.Update(context.Background(), readAll) },
		} {
			t.Run(call+" "+strconv.Itoa(c.schema), func(t *testing.T) {
				s := &Store{path: oldDatabase(t, c.schema), wait: wait}
				if have := schemaOf(t, s.path); have != strconv.Itoa(c.schema) {
					t.Fatalf("the file has schema %s, want %d", have, c.schema)
				}
				if err := first(s); err != nil {
					t.Fatal(err)
				}
				if have := schemaOf(t, s.path); have != strconv.Itoa(schema) {
					t.Errorf("it has schema %s now, want %d", have, schema)
				}
				view(t, s, func(tx *Tx) error {
					for _, want := range c.rows {
						got, err := tx.Evidence(want.Key.Path)
						if err != nil {
							return err
						}
						if diff := cmp.Diff([]Evidence{want}, got, exact); diff != "" {
							t.Error(diff)
						}
					}
					sessions, err := tx.Sessions()
					if diff := cmp.Diff([]Session{c.session}, sessions, exact); diff != "" || err != nil {
						t.Error(err, diff)
					}
					generations, err := tx.Generations()
					if diff := cmp.Diff(c.generations, generations, exact); diff != "" || err != nil {
						t.Error(err, diff)
					}
					return nil
				})
			})
		}
	}
}

func TestADamagedGenerationIsNotBroughtUpToDate(t *testing.T) {
	s := &Store{path: oldDatabase(t, 2), wait: wait}
	db, err := bbolt.Open(s.path, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(generationsBucket).Put([]byte("\x00\x00\x00\x00\x00\x00\x00\x03"), []byte{0x81, 0xa1, 'n'})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.View(context.Background(), readAll); err == nil || !strings.Contains(err.Error(), "bring schema 2 up to 3") {
		t.Errorf("error %v, want one that says that it cannot be brought up to date", err)
	}
	if have := schemaOf(t, s.path); have != "2" {
		t.Errorf("it has schema %s, want 2", have)
	}
}

func TestAnUpdateThatFailsBringsNothingUpToDate(t *testing.T) {
	s := &Store{path: oldDatabase(t, 1), wait: wait}
	if err := s.Update(context.Background(), func(*Tx) error { return io.EOF }); err != io.EOF {
		t.Fatalf("error %v, want %v", err, io.EOF)
	}
	if have := schemaOf(t, s.path); have != "1" {
		t.Errorf("it has schema %s, want 1", have)
	}
}
