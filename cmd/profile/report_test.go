package main

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/enforcer"
	"profile/store"
)

// reportOf calls fn with a report of so many quiet executables.
func reportOf(t *testing.T, n int, fn func(*enforcer.Report) error) {
	t.Helper()
	st, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	to := from.Add(time.Hour)
	err = st.Update(t.Context(), func(tx *store.Tx) error {
		if err := tx.PutSession(&store.Session{ID: "s", Agent: "embedded", Hook: "h", Families: []string{"inet"}, Cgroup: "/",
			Started: from, Ended: to, Awake: time.Hour, Windows: []store.Window{{From: from, To: to}}}); err != nil {
			return err
		}
		for i := range n {
			path := fmt.Sprintf("/opt/tool/bin/program: %06d", i)
			if err := tx.PutEvidence(&store.Evidence{Key: store.Key{Scope: store.HostScope, Path: path}, Session: "s", FirstSeen: from, LastSeen: to,
				Files: []store.Tally{{Seen: 1, Complete: 1, Clean: 1, Entries: []store.Entry{{Name: path, Runs: 1}}}}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = st.View(t.Context(), func(tx *store.Tx) error {
		r, err := enforcer.NewReport(tx, enforcer.ReportOptions{})
		if err != nil {
			return err
		}
		return fn(r)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAReportInYAMLIsOneDocument(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		var printed []byte
		reportOf(t, n, func(r *enforcer.Report) error {
			var text bytes.Buffer
			err := writeYAML(&text, r)
			printed = text.Bytes()
			return err
		})
		rows := []enforcer.Row{}
		var want []byte
		reportOf(t, n, func(r *enforcer.Report) (err error) {
			for row, err := range r.Rows() {
				if err != nil {
					return err
				}
				rows = append(rows, row)
			}
			want, err = yamlOf(struct {
				Schema      int                   `yaml:"schema"`
				Executables []enforcer.Row        `yaml:"executables"`
				Sessions    []enforcer.SessionRow `yaml:"sessions"`
				Families    []enforcer.Family     `yaml:"families"`
			}{enforcer.Schema, rows, r.Sessions(), r.Families()})
			return err
		})
		if len(rows) != n {
			t.Fatalf("the report has %d rows, want %d", len(rows), n)
		}
		if diff := cmp.Diff(string(want), string(printed)); diff != "" {
			t.Errorf("%d rows (-want +got):\n%s", n, diff)
		}
	}
}

// heap is the memory in use while it is written to, at its fullest.
type heap struct{ most uint64 }

func (h *heap) Write(p []byte) (int, error) {
	h.most = max(h.most, inUse())
	return len(p), nil
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// every passes on one in so many writes, which are slow.
type every struct {
	n, of int
	to    io.Writer
}

func (e *every) Write(p []byte) (int, error) {
	if e.n++; e.n%e.of == 0 {
		return e.to.Write(p)
	}
	return len(p), nil
}

func TestAReportInYAMLTakesNoMemoryForEachRow(t *testing.T) {
	const rows, most = 20_000, 8 << 20
	var full heap
	reportOf(t, rows, func(r *enforcer.Report) error {
		before := inUse()
		if err := writeYAML(&every{of: 500, to: &full}, r); err != nil {
			return err
		}
		if full.most == 0 {
			t.Error("nothing was measured")
		}
		if full.most > before+most {
			t.Errorf("%d rows took %d bytes, more than %d", rows, full.most-before, most)
		}
		return nil
	})
}
