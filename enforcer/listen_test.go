package enforcer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"profile/internal/regular/regulartest"
	"profile/store"
)

func TestWhatAKilledNameIsListedAs(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	link := func(name, to string) string {
		file := filepath.Join(dir, name)
		if err := os.Symlink(to, file); err != nil {
			t.Fatal(err)
		}
		return file
	}
	tool, other := write("tool", "\x7fELF"), write("other", "\x7fELF")
	inner := link("interpreter", tool)
	script := write("script", "#!"+inner+" -x\n")
	g := store.Generation{Paths: []string{tool}}
	for _, c := range []struct {
		name, binary string
		here         bool
		want         string
	}{
		{"itself", tool, true, tool},
		{"itself, elsewhere", tool, false, tool},
		{"a symlink", link("link", tool), true, tool},
		{"a symlink, elsewhere", filepath.Join(dir, "link"), false, ""},
		{"a script of it", script, true, tool},
		{"a symlink to a script of it", link("to-script", script), true, tool},
		{"deleted since", tool + " (deleted)", true, tool},
		{"another", other, true, ""},
		{"gone", filepath.Join(dir, "none"), true, ""},
		{"no name", "", true, ""},
		{"not absolute", "tool", true, ""},
	} {
		if got := listedAs(g, c.binary, c.here); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// Whoever is killed may since have put a link to a device in its place.
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if regulartest.Opened(t, pipe, func() { listedAs(g, link("to-pipe", pipe), true) }) {
		t.Error("what is no file was opened")
	}
}

// Whatever the order in which kills are counted and heard, each is counted
// once, and what was heard has its name.
func TestKillsThatAreCountedAndHeardAreCountedOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var recorded []store.Kill
		var done, told uint64
		want := map[string]uint64{}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 2).Draw(rt, "step") {
			case 0: // a kill; whether it is told shows below
				done++
			case 1:
				if done > told {
					file := rapid.SampledFrom([]string{"/a", "/b"}).Draw(rt, "file")
					told++
					want[file]++
					recorded = nameKills(recorded, map[string]store.Kill{file: {Path: file, Kills: 1}}, true)
				}
			case 2:
				recorded = raiseKills(recorded, []store.Kill{{Kills: done}})
			}
		}
		recorded = raiseKills(recorded, []store.Kill{{Kills: done}})
		got := map[string]uint64{}
		var sum uint64
		for _, k := range recorded {
			if sum += k.Kills; k.Path != "" {
				got[k.Path] = k.Kills
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || sum != done {
			rt.Fatalf("%d killed, %d recorded; by name (-want +got):\n%s", done, sum, diff)
		}
		if !slices.IsSortedFunc(recorded, func(a, b store.Kill) int { return strings.Compare(a.Path, b.Path) }) {
			rt.Fatalf("not sorted: %v", recorded)
		}
	})
}
