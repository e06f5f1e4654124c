package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// filled has sessions a, b and c, each a day later, and rows of all of them.
func filled(t *testing.T, rows int) (*Store, time.Time) {
	t.Helper()
	s := newStore(t)
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	update(t, s, func(tx *Tx) error {
		for i, id := range []string{"a", "b", "c"} {
			at := day.AddDate(0, 0, i)
			session := Session{ID: id, Started: at, Ended: at.Add(time.Hour), Windows: []Window{{From: at, To: at.Add(time.Hour)}}}
			if id == "c" {
				session.Ended = time.Time{} // killed
			}
			if err := tx.PutSession(&session); err != nil {
				return err
			}
			for n := range rows {
				e := realistic(n)
				e.Session = id
				if err := tx.PutEvidence(e); err != nil {
					return err
				}
			}
		}
		return tx.PutGeneration(&Generation{N: 1, State: StateReleased, Ended: day})
	})
	return s, day
}

// dump is all that a store holds.
func dump(t *testing.T, s *Store) (all []any) {
	t.Helper()
	view(t, s, func(tx *Tx) error {
		for rows, err := range tx.Executables() {
			if err != nil {
				return err
			}
			all = append(all, rows)
		}
		sessions, err := tx.Sessions()
		generations, err2 := tx.Generations()
		all = append(all, sessions, generations)
		return errors.Join(err, err2)
	})
	return all
}

func TestCheckCountsWhatIsThere(t *testing.T) {
	s, _ := filled(t, 100)
	h, err := s.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := &Health{Executables: 100, Evidence: 300, Sessions: 3, Generations: 1, Bytes: h.Bytes, Free: h.Free}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("health (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(s.Path()); err != nil || info.Size() != h.Bytes || h.Free >= h.Bytes {
		t.Errorf("%d bytes, %d free; the file has %d, %v", h.Bytes, h.Free, info.Size(), err)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*testing.T, *Store)
		says  string
	}{
		"a row that is cut": {func(t *testing.T, s *Store) {
			raw(t, s, evidenceBucket, []byte("/bin/x\x00host\x00a"), []byte("\x81"))
		}, "/bin/x"},
		"evidence of no session": {func(t *testing.T, s *Store) {
			e := realistic(1)
			e.Session = "ghost"
			update(t, s, func(tx *Tx) error { return tx.PutEvidence(e) })
		}, `session "ghost"`},
		"a page that was overwritten": {func(t *testing.T, s *Store) {
			f, err := os.OpenFile(s.Path(), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte(strings.Repeat("\xff", 4096)), info.Size()/2&^4095); err != nil {
				t.Fatal(err)
			}
		}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := filled(t, 500)
			c.spoil(t, s)
			h, err := s.Check(context.Background())
			if err != nil {
				if name != "a page that was overwritten" {
					t.Fatal(err)
				}
				return // it may be the page that says what the others are
			}
			if len(h.Faults) == 0 || len(h.Faults) > maxFaults || !strings.Contains(errors.Join(h.Faults...).Error(), c.says) {
				t.Errorf("faults %v, want one that says %q", h.Faults, c.says)
			}
		})
	}
}

func TestPruneDeletesOldSessionsAndTheirEvidence(t *testing.T) {
	for _, c := range []struct {
		before         time.Duration
		sessions, rows int
	}{{0, 0, 0}, {time.Hour, 0, 0}, {time.Hour + 1, 1, 10}, {49 * time.Hour, 2, 20}, {50 * time.Hour, 3, 30}} {
		s, day := filled(t, 10)
		sessions, rows, err := s.Prune(context.Background(), day.Add(c.before))
		if err != nil || sessions != c.sessions || rows != c.rows {
			t.Errorf("before %s: %d sessions and %d rows, %v; want %d and %d", c.before, sessions, rows, err, c.sessions, c.rows)
		}
		h, err := s.Check(context.Background())
		if err != nil || h.Sessions != 3-c.sessions || h.Evidence != 30-c.rows || h.Generations != 1 || len(h.Faults) > 0 {
			t.Errorf("before %s: left %+v, %v", c.before, h, err)
		}
	}
}

func TestPruneWaitsForNoLiveSession(t *testing.T) {
	s, day := filled(t, 1)
	lock, err := s.LockLearn()
	if err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if _, _, err := s.Prune(context.Background(), day.AddDate(1, 0, 0)); !errors.As(err, &held) {
		t.Errorf("error %v, want a HeldError", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if sessions, _, err := s.Prune(context.Background(), day.AddDate(1, 0, 0)); sessions != 3 || err != nil {
		t.Errorf("%d sessions, %v; want 3", sessions, err)
	}
}

func TestCompactKeepsEverythingInLess(t *testing.T) {
	s, day := filled(t, 500)
	if err := os.Chmod(s.Path(), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Prune(context.Background(), day.AddDate(0, 0, 2)); err != nil {
		t.Fatal(err)
	}
	want := dump(t, s)
	before, after, err := s.Compact(context.Background())
	if err != nil || after >= before {
		t.Errorf("from %d to %d bytes, %v", before, after, err)
	}
	if diff := cmp.Diff(want, dump(t, s), exact); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(s.Path())
	if err != nil || info.Mode().Perm() != 0o640 || info.Size() != after {
		t.Errorf("mode %v, %d bytes, %v", info.Mode(), info.Size(), err)
	}
	if names := list(t, filepath.Dir(s.Path())); len(names) != 2 { // with the lock
		t.Errorf("left %q behind", names)
	}
	if h, err := s.Check(context.Background()); err != nil || len(h.Faults) > 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestNothingIsLostToACompactionMeanwhile(t *testing.T) {
	s, _ := filled(t, 50)
	const writers, writes = 3, 8
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range writes {
				e := realistic(i)
				e.Session = fmt.Sprintf("w%d", w)
				if err := s.Update(context.Background(), func(tx *Tx) error { return tx.PutEvidence(e) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 6 {
		if _, _, err := s.Compact(context.Background()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	h, err := s.Check(context.Background())
	if err != nil || h.Evidence != 150+writers*writes {
		t.Errorf("%d rows, %v; want %d", h.Evidence, err, 150+writers*writes)
	}
}
