package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func packed(t *testing.T, row any) []byte {
	t.Helper()
	var c codec
	c.init()
	b, err := c.encode(row, maxOther)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Check tells of each kind of row that cannot be read, and of no more than a
// person can take in.
func TestCheckTellsOfEachKindOfRow(t *testing.T) {
	for says, spoil := range map[string]func(*testing.T, *Store){
		`session "d"`: func(t *testing.T, s *Store) { raw(t, s, sessionsBucket, []byte("d"), []byte("\x81")) },
		`bytes follow the value`: func(t *testing.T, s *Store) {
			raw(t, s, sessionsBucket, []byte("d"), append(packed(t, &Session{ID: "d"}), 0))
		},
		`unknown field`: func(t *testing.T, s *Store) { raw(t, s, sessionsBucket, []byte("d"), []byte("\x81\xa1?\x01")) },
		`read generation`: func(t *testing.T, s *Store) {
			raw(t, s, generationsBucket, generationKey(7), []byte("\x81\xa1?\x01"))
		},
		`its key is not a path, a scope and a session`: func(t *testing.T, s *Store) {
			raw(t, s, evidenceBucket, []byte("/bin/a\x00\x00s"), packed(t, realistic(1)))
		},
	} {
		s, _ := filled(t, 1)
		spoil(t, s)
		if h, err := s.Check(context.Background()); err != nil || !strings.Contains(fmt.Sprint(h.Faults), says) {
			t.Errorf("faults %v (%v), want one that says %q", h, err, says)
		}
	}
	s := newStore(t)
	update(t, s, func(tx *Tx) error {
		for n := range 2 * maxFaults {
			e := realistic(n)
			e.Session = "ghost"
			if err := tx.PutEvidence(e); err != nil {
				return err
			}
		}
		return nil
	})
	if h, err := s.Check(context.Background()); err != nil || len(h.Faults) != maxFaults {
		t.Errorf("%d faults are told (%v), want %d", len(h.Faults), err, maxFaults)
	}
}

func TestCheckEndsWhenAsked(t *testing.T) {
	s, _ := filled(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	err := s.View(ctx, func(tx *Tx) error {
		cancel()
		return new(Health).checkRows(ctx, tx)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// What is pruned is free, and is given back by the next who writes.
func TestCheckTellsWhatIsFree(t *testing.T) {
	s, day := filled(t, 2000)
	full, err := s.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second has nothing to do, and finds the lock free
		if _, _, err := s.Prune(context.Background(), day.AddDate(1, 0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	h, err := s.Check(context.Background())
	if err != nil || h.Free < full.Bytes/2 || h.Free <= full.Free || h.Free > h.Bytes {
		t.Errorf("%d of %d bytes are free (%v), and everything was pruned; before, %d of %d were", h.Free, h.Bytes, err, full.Free, full.Bytes)
	}
}

// A session is as old as its end; one that was killed as its last window, or,
// without one, as its beginning.
func TestPruneTakesASessionByItsEnd(t *testing.T) {
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	windows := []Window{{From: at.Add(time.Hour), To: at.Add(2 * time.Hour)}}
	for name, c := range map[string]struct {
		session Session
		end     time.Time
	}{
		"that said when":                  {Session{Started: at, Windows: windows, Ended: at.Add(3 * time.Hour)}, at.Add(3 * time.Hour)},
		"that said when, and saw none":    {Session{Started: at, Ended: at.Add(3 * time.Hour)}, at.Add(3 * time.Hour)},
		"that was killed":                 {Session{Started: at, Windows: windows}, at.Add(2 * time.Hour)},
		"that was killed before it began": {Session{Started: at}, at},
	} {
		s := newStore(t)
		c.session.ID = "a"
		update(t, s, func(tx *Tx) error { return tx.PutSession(&c.session) })
		for _, try := range []struct {
			before time.Time
			want   int
		}{{c.end, 0}, {c.end.Add(1), 1}} {
			if n, _, err := s.Prune(context.Background(), try.before); err != nil || n != try.want {
				t.Errorf("a session %s: %d pruned before %s (%v), want %d", name, n, try.before, err, try.want)
			}
		}
	}
}

func TestAGenerationWhoseKeyIsNoNumberHasNoNext(t *testing.T) {
	s := newStore(t)
	raw(t, s, generationsBucket, []byte("\xff"), packed(t, &Generation{N: 1}))
	err := s.View(context.Background(), func(tx *Tx) error {
		_, err := tx.NextGeneration()
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "that is no number") {
		t.Errorf("error %v", err)
	}
}

func TestAFileWithoutOneOfItsTablesIsNoDatabase(t *testing.T) {
	for _, bucket := range [][]byte{evidenceBucket, sessionsBucket, generationsBucket} {
		s := newStore(t)
		err := s.with(context.Background(), true, func(b *bbolt.Tx) error { return errors.Join(b.DeleteBucket(bucket), b.Commit()) })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.View(context.Background(), readAll); !errors.Is(err, ErrNotDatabase) {
			t.Errorf("without %s: error %v", bucket, err)
		}
	}
}
