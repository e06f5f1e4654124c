package export

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"profile/store"
)

var day = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func drawTime(t *rapid.T) time.Time {
	if rapid.IntRange(0, 3).Draw(t, "no time") == 0 {
		return time.Time{}
	}
	return day.Add(time.Duration(rapid.Int64Range(0, 1<<48).Draw(t, "time")))
}

// drawText is any bytes that a path may have.
func drawText(t *rapid.T) string {
	if rapid.Bool().Draw(t, "plain") {
		return rapid.SampledFrom([]string{"/usr/bin/tool", "yes", "null", "1.5", "2026-03-01", "- a", "a: b # c", "ü", " ", "\n", "\u0085\u2028", "\ufeffx", "!!binary"}).Draw(t, "text")
	}
	return string(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 12).Draw(t, "bytes"))
}

func drawList[T any](t *rapid.T, draw func(*rapid.T) T) []T {
	var list []T
	for range rapid.IntRange(0, 2).Draw(t, "length") {
		list = append(list, draw(t))
	}
	return list
}

func drawCount(t *rapid.T) uint64 { return rapid.Uint64Range(0, 3).Draw(t, "count") }

// drawExport tells of a few sessions and paths, so that two of them meet.
func drawExport(t *rapid.T) *Export {
	var x Export
	for i := range 3 {
		if rapid.IntRange(0, 3).Draw(t, "session") == 0 {
			continue
		}
		id := fmt.Sprintf("s%d", i)
		x.Sessions = append(x.Sessions, store.Session{ID: id, Agent: drawText(t), Hook: drawText(t), Families: drawList(t, drawText), Cgroup: "/",
			Started: drawTime(t), Ended: drawTime(t), Awake: time.Duration(rapid.Int64Range(0, 1<<50).Draw(t, "awake")), Reach: rapid.Bool().Draw(t, "reach"), Handed: rapid.Bool().Draw(t, "handed"), NoSendHook: rapid.Bool().Draw(t, "nosend"),
			Windows: drawList(t, func(t *rapid.T) store.Window { return store.Window{From: drawTime(t), To: drawTime(t)} }),
			Gaps: drawList(t, func(t *rapid.T) store.Gap {
				return store.Gap{From: drawTime(t), Cause: drawText(t), Count: drawCount(t)}
			})})
		for _, path := range []string{"/bin/\xff\x01", "/bin/a", "/bin/b c"} {
			for _, scope := range []string{"host", "image\n"} {
				if rapid.Bool().Draw(t, "row") {
					x.Evidence = append(x.Evidence, drawRow(t, store.Key{Scope: scope, Path: path}, id))
				}
			}
		}
	}
	if err := x.settle(); err != nil {
		t.Fatal(err)
	}
	return &x
}

func drawRow(t *rapid.T, key store.Key, session string) store.Evidence {
	tally := func(t *rapid.T) store.Tally {
		return store.Tally{File: store.FileID{Dev: drawCount(t), Ino: drawCount(t), Size: -1, CtimeNS: int64(drawCount(t))},
			FirstExec: drawTime(t), LastExec: drawTime(t), Seen: drawCount(t), Complete: drawCount(t), Clean: drawCount(t), Crossed: drawCount(t),
			Going: store.Going{Clean: drawCount(t), OldestAny: drawTime(t)}, UnseenCount: drawCount(t),
			Unseen:  drawList(t, func(t *rapid.T) store.Process { return store.Process{PID: 7, Start: drawTime(t)} }),
			Entries: drawList(t, func(t *rapid.T) store.Entry { return store.Entry{Name: drawText(t), Runs: drawCount(t), Script: true} }),
			Network: drawList(t, func(t *rapid.T) store.Use {
				return store.Use{Family: "inet", Type: drawText(t), Runs: drawCount(t), First: drawTime(t), Protocols: []uint32{0, 6},
					Reach: store.ReachOut, Destinations: []string{"[::1]:80"}, Inherited: drawCount(t)}
			})}
	}
	return store.Evidence{Key: key, Session: session, FirstSeen: drawTime(t), LastSeen: drawTime(t), Files: drawList(t, tally),
		Attempts: drawList(t, func(t *rapid.T) store.Attempt {
			return store.Attempt{Family: "inet", Stage: "monitor", Count: drawCount(t)}
		})}
}

func written(t interface{ Fatal(...any) }, x *Export) string {
	var b bytes.Buffer
	if err := x.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func read(t interface{ Fatal(...any) }, s string) *Export {
	x, err := Read(strings.NewReader(s))
	if err != nil {
		t.Fatal(err, s)
	}
	return x
}

func TestAnExportIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawExport(t)
		text := written(t, x)
		got := read(t, text)
		if diff := cmp.Diff(x, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%s", diff, text)
		}
		if again := written(t, got); again != text {
			t.Fatalf("written %q, then %q", text, again)
		}
	})
}

// spoil changes a text here and there.
func spoil(t *rapid.T, text string) string {
	lines := strings.Split(text, "\n")
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		i := rapid.IntRange(0, len(lines)-1).Draw(t, "line")
		line := lines[i]
		at := rapid.IntRange(0, len(line)).Draw(t, "at")
		switch rapid.IntRange(0, 5).Draw(t, "change") {
		case 0:
			lines = append(lines[:i:i], lines[i+1:]...)
		case 1:
			lines = append(lines[:i:i], append([]string{line}, lines[i:]...)...)
		case 2:
			lines[i] = line[:at] + rapid.SampledFrom([]string{" ", "  ", "- ", ":", ": ", "#", " #", "'", "\"", "\n", "&a ", "*a", "!!str ", "|", "0", "~", "null", "{}", "[]", "---", "\u0085", "e"}).Draw(t, "text") + line[at:]
		case 3:
			lines[i] = line[:at]
		case 4:
			lines[i] = " " + line
		case 5:
			lines[i] = strings.TrimPrefix(line, " ")
		}
		if len(lines) == 0 {
			return ""
		}
	}
	return strings.Join(lines, "\n")
}

// What is read line by line is read as the library reads it, or left to it.
func TestTheUsualFormIsReadAsTheLibraryReadsIt(t *testing.T) {
	usual := 0
	rapid.Check(t, func(t *rapid.T) {
		text := spoil(t, written(t, drawExport(t)))
		got, err := readUsual([]byte(text))
		if err != nil {
			return
		}
		usual++
		want, err := readYAML([]byte(text))
		if err != nil {
			t.Fatalf("read, and the library says: %v\n%s", err, text)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-library +line by line):\n%s\n%s", diff, text)
		}
	})
	if usual < 20 {
		t.Errorf("%d texts were of the usual form, which tests nothing", usual)
	}
}

func TestWhatIsWrittenIsOfTheUsualForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := written(t, drawExport(t))
		if _, err := readUsual([]byte(text)); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}

func TestMergingKnowsNoOrderAndNothingTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawExport(t), drawExport(t), drawExport(t)
		if written(t, Merge(a, b)) != written(t, Merge(b, a)) {
			t.Fatal("not commutative")
		}
		if written(t, Merge(Merge(a, b), c)) != written(t, Merge(a, Merge(b, c))) {
			t.Fatal("not associative")
		}
		if written(t, Merge(a, a)) != written(t, a) || written(t, Merge(Merge(a, b), b)) != written(t, Merge(a, b)) {
			t.Fatal("not idempotent")
		}
	})
}

func TestImportingIsMerging(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawExport(t), drawExport(t)
		dir, err := filepath.EvalSymlinks(dirOf(t))
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.Create(filepath.Join(dir, "profile.db"))
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []*Export{a, b, a} {
			if err := s.Update(context.Background(), x.Into); err != nil {
				t.Fatal(err)
			}
		}
		var got *Export
		err = s.View(context.Background(), func(tx *store.Tx) (err error) {
			got, err = Of(tx)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(written(t, Merge(a, b)), written(t, got)); diff != "" {
			t.Fatalf("(-merged +imported):\n%s", diff)
		}
	})
}

func TestArgumentsAreNotExportedAndNotLost(t *testing.T) {
	s, err := store.Create(filepath.Join(t.TempDir(), "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	row := store.Evidence{Key: store.Key{Scope: "host", Path: "/bin/a"}, Session: "s", LastSeen: day, Files: []store.Tally{{Seen: 1, Args: []string{"--password=hunter2"}}}}
	err = s.Update(context.Background(), func(tx *store.Tx) error {
		if err := tx.PutSession(&store.Session{ID: "s"}); err != nil {
			return err
		}
		return tx.PutEvidence(&row)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(context.Background(), func(tx *store.Tx) error {
		x, err := Of(tx)
		if err != nil {
			return err
		}
		if got := written(t, x); strings.Contains(got, "hunter2") {
			t.Errorf("exported %s", got)
		}
		if err := read(t, written(t, x)).Into(tx); err != nil {
			return err
		}
		rows, err := tx.Evidence("/bin/a")
		if diff := cmp.Diff([]store.Evidence{row}, rows); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadRefuses(t *testing.T) {
	const good = "schema: 1\nsessions:\n- id: s\nevidence:\n- scope: host\n  path: /a\n  session: s\n"
	read(t, good)
	read(t, strings.Replace(good, "schema: 1", "schema: 3", 1)+"end: true\n")
	for name, bad := range map[string]string{
		"nothing":           "",
		"no schema":         "sessions: []\nevidence: []\n",
		"a newer schema":    "schema: 4\nend: true\n",
		"one cut short":     strings.Replace(good, "schema: 1", "schema: 3", 1),
		"an end that is no": strings.Replace(good, "schema: 1", "schema: 3", 1) + "end: false\n",
		"an unknown field":  good + "  secrets: 1\n",
		"arguments":         good + "  files:\n  - args: [a]\n",
		"two documents":     good + "---\n" + good,
		"a session twice":   "schema: 1\nsessions:\n- id: s\n- id: s\n",
		"a row twice":       good + "- scope: host\n  path: /a\n  session: s\n",
		"evidence of none":  "schema: 1\nevidence:\n- scope: host\n  path: /a\n  session: s\n",
		"no YAML":           "schema: [",
		"a negative count":  good + "  files:\n  - seen: -1\n",
		"another structure": "- schema: 1\n",
	} {
		if _, err := Read(strings.NewReader(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOfANewerExportItIsSaidThatItIsNewer(t *testing.T) {
	for _, text := range []string{
		"schema: 4\nend: true\n",
		"schema: 4\nsessions:\n- id: s\n  weather: fair\nend: true\n",
		"schema: 4\nnew: 1\nsessions: []\n",
		"schema: 4\nsessions: none\n",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "use a newer profile") {
			t.Errorf("read %q: %v, want that it has a newer schema", text, err)
		}
	}
}

func TestAnExportHasOneFactALine(t *testing.T) {
	x := &Export{Sessions: []store.Session{{ID: "s", Agent: "embedded", Families: []string{"inet", "inet6"}, Started: day, Awake: time.Hour}},
		Evidence: []store.Evidence{{Key: store.Key{Scope: "host", Path: "/bin/a"}, Session: "s", FirstSeen: day,
			Files: []store.Tally{{Seen: 1, Network: []store.Use{{Family: "inet", Type: "stream", Runs: 1, Reach: store.ReachOut, Destinations: []string{"192.0.2.1:80"}}}}}}}}
	const want = `schema: 3
sessions:
- id: s
  agent: embedded
  families:
    - inet
    - inet6
  started: 2026-03-01T00:00:00Z
  awake: 1h0m0s
evidence:
- scope: host
  path: /bin/a
  session: s
  first_seen: 2026-03-01T00:00:00Z
  files:
    - seen: 1
      network:
        - family: inet
          type: stream
          runs: 1
          reach: 4
          destinations:
            - 192.0.2.1:80
end: true
`
	if diff := cmp.Diff(want, written(t, x)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func dirOf(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "profile-export-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestOfOneSessionThatWhichClaimsLessIsTaken(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	early := store.Session{ID: "s", Started: at, Windows: []store.Window{{From: at, To: at.Add(time.Hour)}}, End: "z"}
	late := early
	late.End, late.Narrowed = "a", []store.Narrowed{{Path: "/usr/bin/net", From: at}}
	for _, pair := range [][2]store.Session{{early, late}, {late, early}} {
		all := Merge(&Export{Sessions: pair[:1]}, &Export{Sessions: pair[1:]})
		if len(all.Sessions) != 1 || len(all.Sessions[0].Narrowed) != 1 {
			t.Errorf("merged %+v, want the one that was narrowed", all.Sessions)
		}
	}
}

// A database takes a live session that was brought in for one that was killed,
// once somebody learns into it. Another export of that session knows more.
func TestALiveSessionIsNotOverBecauseItWasTakenForKilled(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	window := func(d time.Duration) []store.Window { return []store.Window{{From: at, To: at.Add(d)}} }
	gap := []store.Gap{{From: at.Add(time.Minute), To: at.Add(2 * time.Minute), Cause: "lost"}}
	killed := store.Session{ID: "s", Started: at, Windows: window(time.Minute), Ended: at.Add(time.Minute), End: store.EndKilled}
	for _, c := range []struct {
		name string
		live store.Session
	}{
		{"later", store.Session{ID: "s", Started: at, Windows: window(time.Hour), Gaps: gap}},
		{"with what was lost since", store.Session{ID: "s", Started: at, Windows: window(time.Minute), Gaps: gap}},
	} {
		for _, pair := range [][2]store.Session{{killed, c.live}, {c.live, killed}} {
			all := Merge(&Export{Sessions: pair[:1]}, &Export{Sessions: pair[1:]})
			if len(all.Sessions) != 1 || len(all.Sessions[0].Gaps) != 1 {
				t.Errorf("%s: merged %+v, want the gap", c.name, all.Sessions)
			}
		}
	}
	ended := store.Session{ID: "s", Started: at, Windows: window(time.Minute), Ended: at.Add(time.Minute), End: store.EndStopped}
	live := ended
	live.Ended, live.End = time.Time{}, ""
	for _, pair := range [][2]store.Session{{ended, live}, {live, ended}} {
		if all := Merge(&Export{Sessions: pair[:1]}, &Export{Sessions: pair[1:]}); all.Sessions[0].Ended.IsZero() {
			t.Errorf("merged %+v, want the end", all.Sessions)
		}
	}
}

// A row can change without that anything more was seen.
func TestOfOneRowThatWhichClaimsLessIsTaken(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	row := func(g store.Going, alive ...store.Process) []store.Evidence {
		return []store.Evidence{{Key: store.Key{Scope: "host", Path: "/bin/a"}, Session: "s", FirstSeen: at, LastSeen: at,
			Files: []store.Tally{{Seen: 1, Going: g, Unseen: alive, UnseenCount: 1}}}}
	}
	clean, touched := store.Going{Clean: 1, Oldest: at, Newest: at, OldestAny: at, NewestAny: at}, store.Going{Touched: 1, OldestAny: at, NewestAny: at}
	one := store.Process{PID: 7, Start: at}
	for _, c := range []struct {
		name       string
		less, more []store.Evidence
	}{
		{"touched by a gap", row(clean, one), row(touched, one)},
		{"one more of them alive", row(clean, one), row(clean, one, store.Process{PID: 8, Start: at})},
	} {
		for _, pair := range [][2][]store.Evidence{{c.less, c.more}, {c.more, c.less}} {
			got := Merge(&Export{Evidence: pair[0]}, &Export{Evidence: pair[1]}).Evidence
			if diff := cmp.Diff(c.more, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
		}
	}
}
