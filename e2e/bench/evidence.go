package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"profile/enforcer"
	"profile/store"
)

const (
	flushed  = 10_000
	reported = 100_000
	session  = "20260102t030405z-abcdef"
)

// madeUp is the evidence of one executable, as a session learns it. One in
// four is a network user.
func madeUp(n int, path string) *store.Evidence {
	at := time.Unix(1790000000, 123456789).Add(time.Duration(n) * time.Millisecond).UTC()
	e := &store.Evidence{
		Key: store.Key{Scope: store.HostScope, Path: path}, Session: session,
		FirstSeen: at, LastSeen: at.Add(time.Hour),
		Files: []store.Tally{{
			File:      store.FileID{Dev: 64768, Ino: 1234567 + uint64(n), Size: 123456, CtimeNS: at.UnixNano()},
			FirstExec: at, LastExec: at.Add(time.Hour),
			Seen: 1234, Complete: 1234, Clean: 1234,
			Entries: []store.Entry{{Name: path, Runs: 1200}, {Name: "/usr/bin/" + filepath.Base(path), Runs: 34}},
		}},
	}
	if n%4 == 0 {
		e.Files[0].Network = []store.Use{
			{Family: "inet", Type: "stream", Runs: 100, First: at, Last: at},
			{Family: "inet6", Type: "dgram", Runs: 100, First: at, Last: at},
		}
	}
	return e
}

func madeUpSession() *store.Session {
	from := time.Unix(1790000000, 0).UTC()
	return &store.Session{ID: session, Agent: "embedded", Version: "v", Hook: "cgroup/sock_create", Families: []string{"inet", "inet6", "packet"},
		Cgroup: "/", Started: from, Ended: from.Add(2 * time.Hour), End: "stopped", Awake: 2 * time.Hour,
		Windows: []store.Window{{From: from, To: from.Add(2 * time.Hour)}}}
}

// makeDatabase stores rows with their session, in flushes of 10,000.
func (b *bench) makeDatabase(name string, rows []*store.Evidence) (*store.Store, error) {
	s, err := store.Create(filepath.Join(b.dir, name))
	if err != nil {
		return nil, err
	}
	for len(rows) > 0 && err == nil {
		n := min(flushed, len(rows))
		err = putAll(b.ctx, s, rows[:n])
		rows = rows[n:]
	}
	return s, errors.Join(err, s.Update(b.ctx, func(tx *store.Tx) error { return tx.PutSession(madeUpSession()) }))
}

func putAll(ctx context.Context, s *store.Store, rows []*store.Evidence) error {
	return s.Update(ctx, func(tx *store.Tx) error {
		for _, row := range rows {
			if err := tx.PutEvidence(row); err != nil {
				return err
			}
		}
		return nil
	})
}

// pair is a row as it is on the disk.
type pair struct{ bucket, key, value []byte }

// readPairs gives the largest bucket of a database.
func readPairs(path string) ([]pair, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var most []pair
	return most, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			var all []pair
			err := bucket.ForEach(func(k, v []byte) error {
				all = append(all, pair{append([]byte{}, name...), append([]byte{}, k...), append([]byte{}, v...)})
				return nil
			})
			if len(all) > len(most) {
				most = all
			}
			return err
		})
	})
}

// measureFlush compares a flush with a batch put of the same bytes.
func measureFlush(b *bench) error {
	rows := make([]*store.Evidence, flushed)
	for i := range rows {
		rows[i] = madeUp(i, fmt.Sprintf("/usr/lib/x86_64-linux-gnu/some-package-%04d/libexec/helper-%06d", i/10, i))
	}
	s, err := b.makeDatabase("flush.db", rows)
	if err != nil {
		return err
	}
	pairs, err := readPairs(s.Path())
	if err != nil {
		return err
	}
	ours := timed(func() error {
		for _, row := range rows {
			row.Files[0].Seen++
		}
		return putAll(b.ctx, s, rows)
	})
	floor := timed(func() error { return putBare(filepath.Join(b.dir, "bare.db"), pairs) })
	if _, err := floor(); err != nil { // the first makes the file
		return err
	}
	o, f, err := b.compare(rounds, ours, floor)
	b.addRatio("flush of 10,000 changed executables, against a batch put of the same bytes", "ms", o*1e3, f*1e3, some(1.3))
	return err
}

func putBare(path string, pairs []pair) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(pairs[0].bucket)
		for i := 0; i < len(pairs) && err == nil; i++ {
			err = bucket.Put(pairs[i].key, pairs[i].value)
		}
		return err
	})
	return errors.Join(err, db.Close())
}

func timed(do func() error) side {
	return func() (float64, error) {
		begun := time.Now()
		err := do()
		return time.Since(begun).Seconds(), err
	}
}

// measureReport compares a report with a cursor over the file and one marshal
// of its rows.
func measureReport(b *bench) error {
	rows := make([]*store.Evidence, reported)
	for i := range rows {
		rows[i] = madeUp(i, toolPath(i))
	}
	s, err := b.makeDatabase("report.db", rows)
	if err != nil {
		return err
	}
	info, err := os.Stat(s.Path())
	if err != nil {
		return err
	}
	b.add(row{Name: "the database, bytes an executable, of 100,000", Ours: float64(info.Size()) / reported, Unit: "B", Target: some(1000)})
	w, err := b.start("rows", s.Path())
	if err != nil {
		return err
	}
	var first []float64
	var cpus [2][]float64
	ours := func() (float64, error) {
		took, firstRow, cpu, err := b.report(s.Path())
		first, cpus[0] = append(first, firstRow), append(cpus[0], cpu)
		return took, err
	}
	var before float64
	floor := func() (float64, error) {
		s, err := w.ask("")
		cpus[1] = append(cpus[1], s.CPU-before)
		before = s.CPU
		return s.Wall, err
	}
	if _, err := floor(); err != nil { // the first reads the rows, too
		return errors.Join(err, w.stop())
	}
	cpus[1] = nil
	o, f, err := b.compare(rounds, ours, floor)
	if err := errors.Join(err, w.stop()); err != nil {
		return err
	}
	b.addRatio("report -o json over 100,000 executables, against a cursor and one json.Marshal", "ms", o*1e3, f*1e3, some(1.5))
	b.addRatio("the same, CPU", "ms", median(cpus[0])*1e3, median(cpus[1])*1e3, nil)
	b.add(row{Name: "the same, its first row after", Ours: median(first) * 1e3, Unit: "ms", Target: some(50)})
	return nil
}

// report runs one, and gives the seconds that all of it, its first row, and
// the processor took.
func (b *bench) report(db string) (whole, first, cpu float64, err error) {
	cmd := exec.CommandContext(b.ctx, b.bin, "--db", db, "report", "-o", "json")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, 0, err
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, 0, err
	}
	in := bufio.NewReaderSize(out, 1<<20)
	for range 2 { // the first line opens the list
		if _, err := in.ReadSlice('\n'); err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return 0, 0, 0, errors.Join(err, cmd.Wait())
		}
		first = time.Since(begun).Seconds()
	}
	_, err = io.Copy(io.Discard, in)
	err = errors.Join(err, cmd.Wait())
	whole = time.Since(begun).Seconds()
	return whole, first, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), err
}

// marshalRows is a worker: DATABASE. It goes over the file with a bare cursor
// and marshals the rows of its report, which it has made before, in one piece.
func marshalRows(args []string) error {
	var rows []enforcer.Row
	s, err := store.Open(args[0])
	if err != nil {
		return err
	}
	err = s.View(context.Background(), func(tx *store.Tx) error {
		r, err := enforcer.NewReport(tx, enforcer.ReportOptions{})
		if err != nil {
			return err
		}
		for row, err := range r.Rows() {
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return answer(func() (sample, error) {
		begun := time.Now()
		n, err := scanBare(args[0])
		if err != nil {
			return sample{}, err
		}
		text, err := json.Marshal(rows)
		s := sample{Wall: time.Since(begun).Seconds(), CPU: cpu(unix.RUSAGE_SELF)}
		if err == nil && (n < reported || len(text) < reported) {
			err = fmt.Errorf("%d rows, %d bytes of JSON", n, len(text))
		}
		return s, err
	})
}

// scanBare goes over every row of a database and reads a byte of each value.
func scanBare(path string) (n int, err error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	var sum byte
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
			c := bucket.Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				sum ^= v[0]
				n++
			}
			return nil
		})
	})
	if sum == 255 { // so that the reading is not left out
		n++
	}
	return n, err
}
