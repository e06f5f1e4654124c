package store

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// BenchmarkPut is one flush of 10,000 changed rows, by PutEvidence and by
// bbolt alone with the same bytes, and what reading them all takes.
func BenchmarkPut(b *testing.B) {
	const n = 10000
	rows := make([]*Evidence, n)
	for i, j := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		rows[i] = realistic(j)
	}
	perRow := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/row")
	}
	b.Run("PutEvidence", func(b *testing.B) {
		s := newStore(b)
		for b.Loop() {
			update(b, s, func(tx *Tx) error {
				for _, e := range rows {
					if err := tx.PutEvidence(e); err != nil {
						return err
					}
				}
				return nil
			})
		}
		perRow(b)
	})
	b.Run("bbolt", func(b *testing.B) {
		var c codec
		c.init()
		var keys, values [][]byte
		for _, e := range rows {
			key, err := appendKey(nil, e.Key.Path, e.Key.Scope, e.Session)
			if err != nil {
				b.Fatal(err)
			}
			value, err := c.encode(e, maxEvidence)
			if err != nil {
				b.Fatal(err)
			}
			keys, values = append(keys, key), append(values, value)
		}
		path := filepath.Join(b.TempDir(), "bare.db")
		for b.Loop() {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				b.Fatal(err)
			}
			if err := db.Update(func(tx *bbolt.Tx) error {
				bucket, err := tx.CreateBucketIfNotExists(evidenceBucket)
				for i := 0; i < n && err == nil; i++ {
					err = bucket.Put(keys[i], values[i])
				}
				return err
			}); err != nil {
				b.Fatal(err)
			}
			db.Close()
		}
		perRow(b)
	})
	b.Run("Executables", func(b *testing.B) {
		s := newStore(b)
		update(b, s, func(tx *Tx) error {
			for _, e := range rows {
				if err := tx.PutEvidence(e); err != nil {
					return err
				}
			}
			return nil
		})
		for b.Loop() {
			view(b, s, readAll)
		}
		perRow(b)
	})
}

// TestSizeOfManyExecutables holds the file to 100 MB for 100,000 executables,
// by a tenth of them, which come in any order over ten flushes.
func TestSizeOfManyExecutables(t *testing.T) {
	const n, flushes = 10000, 10
	s := newStore(t)
	order := rand.New(rand.NewPCG(3, 4)).Perm(n)
	for i := range flushes {
		update(t, s, func(tx *Tx) error {
			for _, j := range order[i*n/flushes : (i+1)*n/flushes] {
				if err := tx.PutEvidence(realistic(j)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	info, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes an executable", info.Size()/n)
	if info.Size() > n*1000 {
		t.Errorf("%d bytes for %d executables", info.Size(), n)
	}
}
