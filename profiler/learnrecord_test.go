package profiler

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"profile/enforcer"
	"profile/store"
)

// recordOf learns from files into a new database.
func recordOf(t *testing.T, o RecordOptions) (*store.Store, *store.Session, string, error) {
	t.Helper()
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if o.Store == nil {
		s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
		if err != nil {
			t.Fatal(err)
		}
		o.Store = s
	}
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	session, err := LearnRecord(t.Context(), o)
	return o.Store, session, log.String(), err
}

// verdicts judges everything that a database holds, by path.
func verdicts(t *testing.T, s *store.Store, acceptGaps bool) map[string]enforcer.Row {
	t.Helper()
	rows := map[string]enforcer.Row{}
	err := s.View(t.Context(), func(tx *store.Tx) error {
		r, err := enforcer.NewReport(tx, enforcer.ReportOptions{Thresholds: enforcer.Thresholds{AcceptGaps: acceptGaps}})
		if err != nil {
			return err
		}
		for row, err := range r.Rows() {
			if err != nil {
				return err
			}
			rows[row.Path] = row
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// raw is a recording as it lies in a file, unpacked.
func rawRecord(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recorded, name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".gz") {
		r, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if text, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return text
}

func TestFromARecordNothingIsQuietButByAcceptedGaps(t *testing.T) {
	for _, name := range []string{"workstation.jsonl", "tools-v1.3.jsonl.gz"} {
		t.Run(name, func(t *testing.T) {
			s, session, _, err := recordOf(t, RecordOptions{Files: []string{filepath.Join(recorded, name)}})
			if err != nil {
				t.Fatal(err)
			}
			if session.Agent != store.Recording || session.End != store.EndRecord || !slices.Contains(session.Families, "inet") ||
				slices.Contains(session.Families, "vsock") || !slices.Contains(session.Unwatched, "vsock") {
				t.Errorf("session %+v, want a recording's that watched what it saw", session)
			}
			readTruth(t, strings.Split(name, ".jsonl")[0]+".truth.json").check(t, verdicts(t, s, false), verdicts(t, s, true))
		})
	}
}

func TestALossyRecordIsNeverQuietButByAcceptedGaps(t *testing.T) {
	s, _, _, err := recordOf(t, RecordOptions{Files: []string{filepath.Join(recorded, "lossy-v1.7.jsonl.gz")}})
	if err != nil {
		t.Fatal(err)
	}
	rows := verdicts(t, s, false)
	for path, row := range rows {
		if row.Verdict == enforcer.Quiet {
			t.Errorf("%q is quiet", path)
		}
	}
	for _, path := range []string{"/tmp/x/late", "/tmp/x/both", "/usr/bin/flood"} {
		if rows[path].Verdict != enforcer.Network {
			t.Errorf("%q is %q, and its socket was seen", path, rows[path].Verdict)
		}
	}
}

func TestARecordWithoutTheSocketHookProvesNothing(t *testing.T) {
	s, session, _, err := recordOf(t, RecordOptions{Files: []string{filepath.Join(recorded, "kill.jsonl")}})
	if err != nil {
		t.Fatal(err)
	}
	if !session.NoSocketHook || session.Hook != "" || len(session.Families) != 0 {
		t.Errorf("session %+v, want one without a socket hook", session)
	}
	rows := verdicts(t, s, true)
	if len(rows) == 0 {
		t.Error("no rows, and programs ran")
	}
	for path, row := range rows {
		if row.Verdict != enforcer.Unproven || !slices.Contains(row.Reasons, "the record has no socket hook") ||
			!slices.Contains(row.Reasons, "name not resolved") {
			t.Errorf("%q is %q (%q)", path, row.Verdict, row.Reasons)
		}
	}
}

func TestRecordsOfARotatedLogAreOneInWhateverOrder(t *testing.T) {
	text := rawRecord(t, "workstation.jsonl")
	lines := bytes.SplitAfter(text, []byte("\n"))
	dir := t.TempDir()
	older, newer := filepath.Join(dir, "b.log.gz"), filepath.Join(dir, "a.log")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(bytes.Join(lines[:60], nil))
	if err := errors.Join(z.Close(), os.WriteFile(older, packed.Bytes(), 0o600),
		os.WriteFile(newer, bytes.Join(lines[60:], nil), 0o600)); err != nil {
		t.Fatal(err)
	}
	whole, _, _, err := recordOf(t, RecordOptions{Files: []string{Stdin}, Stdin: bytes.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	parts, _, log, err := recordOf(t, RecordOptions{Files: []string{newer, older}})
	if err != nil {
		t.Fatal(err)
	}
	if log != "" {
		t.Errorf("log %q, want none", log)
	}
	want, got := verdicts(t, whole, true), verdicts(t, parts, true)
	if len(want) != len(got) {
		t.Errorf("%d executables, want %d", len(got), len(want))
	}
	for path, row := range want {
		if got[path].Verdict != row.Verdict || got[path].Runs != row.Runs {
			t.Errorf("%q: %q %+v, want %q %+v", path, got[path].Verdict, got[path].Runs, row.Verdict, row.Runs)
		}
	}
}

func TestARecordReadTwiceCountsOnce(t *testing.T) {
	file := filepath.Join(recorded, "workstation.jsonl")
	s, first, _, err := recordOf(t, RecordOptions{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	before := verdicts(t, s, true)
	_, second, _, err := recordOf(t, RecordOptions{Store: s, Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != second.ID {
		t.Errorf("sessions %s and %s, want one", first.ID, second.ID)
	}
	for path, row := range verdicts(t, s, true) {
		if row.Runs != before[path].Runs {
			t.Errorf("%q: %+v after %+v", path, row.Runs, before[path].Runs)
		}
	}
}

func TestBadLinesAreNamedAndAGap(t *testing.T) {
	text := rawRecord(t, "workstation.jsonl")
	lines := bytes.SplitAfter(text, []byte("\n"))
	long := append(bytes.Repeat([]byte("x"), maxLine+1), '\n')
	for _, c := range []struct {
		name string
		text [][]byte
		lost uint64
		log  []string // each stands in a line of its own
		not  string
	}{
		{name: "not JSON", text: slices.Insert(slices.Clone(lines), 50, []byte("{\"process_exec\":\n")), lost: 1, log: []string{"line=51"}},
		{name: "too long", text: slices.Insert(slices.Clone(lines), 50, long), lost: 1, log: []string{"line=51", "longer than"}},
		{name: "another thing", text: slices.Insert(slices.Clone(lines), 50, []byte("{}\n")), lost: 1, log: []string{"line=51", "without a time"}},
		{name: "two", text: slices.Insert(slices.Clone(lines), 50, []byte("x\n"), []byte("\n"), []byte("y\n")), lost: 2, log: []string{"line=51", "line=53"}},
		{name: "the last cut off", text: append(slices.Clone(lines[:len(lines)-2]), lines[len(lines)-2][:100]), not: "line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "events.log")
			if err := os.WriteFile(file, bytes.Join(c.text, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			s, session, log, err := recordOf(t, RecordOptions{Files: []string{file}})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.log {
				if !strings.Contains(log, want) || !strings.Contains(log, file) {
					t.Errorf("log %q, want %q and the file's name", log, want)
				}
			}
			if c.not != "" && strings.Contains(log, c.not) {
				t.Errorf("log %q, want none: a last line cut off is normal", log)
			}
			var lost uint64
			for _, g := range session.Gaps {
				lost += g.Count
			}
			if lost != c.lost {
				t.Errorf("gaps %+v, want %d lost", session.Gaps, c.lost)
			}
			if got := verdicts(t, s, true)["/usr/bin/getent"].Verdict; got != enforcer.Network {
				t.Errorf("getent is %q: the other lines count", got)
			}
		})
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	empty, other := filepath.Join(dir, "empty"), filepath.Join(dir, "other")
	text := bytes.ReplaceAll(rawRecord(t, "workstation.jsonl"), []byte(`"node_name":"vm"`), []byte(`"node_name":"other"`))
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.WriteFile(other, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		files []string
		want  string
	}{
		{"a file that is not there", []string{filepath.Join(dir, "none")}, "no such file"},
		{"nothing recorded", []string{empty}, "holds no event"},
		{"two nodes", []string{filepath.Join(recorded, "workstation.jsonl"), other}, "one node at a time"},
		{"a directory", []string{dir}, "is a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, _, err := recordOf(t, RecordOptions{Files: c.files})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if rows := verdicts(t, s, true); len(rows) != 0 {
				t.Errorf("%d rows are stored", len(rows))
			}
		})
	}
}

func TestARecordThatIsStoppedStoresNothing(t *testing.T) {
	s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = LearnRecord(ctx, RecordOptions{Store: s, Files: []string{filepath.Join(recorded, "workstation.jsonl")}, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if rows := verdicts(t, s, true); len(rows) != 0 {
		t.Errorf("%d rows are stored", len(rows))
	}
}

// packed is text as gzip would leave it, cut off after a part of its bytes.
func packed(t *testing.T, text []byte, part float64) []byte {
	t.Helper()
	var all bytes.Buffer
	z := gzip.NewWriter(&all)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return all.Bytes()[:int(part*float64(all.Len()))]
}

// A file of a rotated log that is damaged is a gap where it lies, and one that
// nobody knows the place of can lie anywhere.
func TestADamagedFileAmongRecordsIsAGap(t *testing.T) {
	lines := bytes.SplitAfter(rawRecord(t, "workstation.jsonl"), []byte("\n"))
	for _, c := range []struct {
		name  string
		file  string
		text  []byte
		whole bool // the gap reaches over all
	}{
		{"cut off", "b.log.gz", packed(t, bytes.Join(lines[60:120], nil), 0.7), false},
		{"cut off before its first event ends", "b.log.gz", packed(t, bytes.Join(lines[60:120], nil), 0.02), true},
		{"without a line that can be read", "b.log", bytes.Repeat([]byte("\x00\n"), 3), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files := []string{filepath.Join(dir, "a.log"), filepath.Join(dir, c.file), filepath.Join(dir, "c.log")}
			for i, text := range [][]byte{bytes.Join(lines[:60], nil), c.text, bytes.Join(lines[120:], nil)} {
				if err := os.WriteFile(files[i], text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
			if err != nil {
				t.Fatal(err)
			}
			session, err := LearnRecord(ctx, RecordOptions{Store: s, Files: files, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(session.Gaps, func(g store.Gap) bool { return g.Cause == unreadable })
			if i < 0 {
				t.Fatalf("gaps %+v, want one of what cannot be read", session.Gaps)
			}
			if w, g := session.Windows[0], session.Gaps[i]; (g.From.Equal(w.From) && !g.To.Before(w.To)) != c.whole {
				t.Errorf("gap from %s to %s in a window from %s to %s", g.From, g.To, w.From, w.To)
			}
			if session.Started.Year() < 2000 {
				t.Errorf("the session started at %s", session.Started)
			}
		})
	}
}
