package profiler

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"profile/store"
)

func TestAFileIsTheOneExecutedIfNothingBecameOfItSince(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(path, []byte("one"), 0o755); err != nil {
		t.Fatal(err)
	}
	executed := time.Now().Add(time.Second).UnixNano()
	was := host{}.file(path, executed)
	if was != fileAt(path) || !was.Known() || was == changedSince {
		t.Fatalf("the file is %v, want %v", was, fileAt(path))
	}
	for what, change := range map[string]func() error{
		"written to": func() error { return os.WriteFile(path, []byte("two"), 0o755) },
		"replaced": func() error {
			other := path + ".new"
			if err := os.WriteFile(other, []byte("one"), 0o755); err != nil {
				return err
			}
			return os.Rename(other, path)
		},
	} {
		before := time.Now()
		time.Sleep(20 * time.Millisecond) // more than a tick of the kernel's clock
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if got := (host{}).file(path, before.UnixNano()); got != changedSince {
			t.Errorf("executed before it was %s: %v", what, got)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := (host{}).file(path, executed); got != changedSince {
		t.Errorf("executed and gone: %v", got)
	}
}

func TestWhatAFileDidIsItsOwnThoughTheAgentTellsNone(t *testing.T) {
	now := store.FileID{Dev: 1, Ino: 2, Size: 3, CtimeNS: 4}
	asked := map[string]bool{}
	w := newWorld(t, func(c *Config) {
		c.File = func(path string, at int64) store.FileID {
			asked[path] = true
			return now
		}
	}).open()
	w.runs(10, "/bin/a", as{file: "-"})
	now.Ino = 9
	w.exec(10, "/bin/a", as{file: "-"})
	w.socket(10, 2, 1)
	w.exit(10)
	w.runs(11, "/bin/boxed", as{file: "-", docker: "abc"})
	w.runs(12, "", as{file: "-", nameless: "memfd"})
	w.flush()
	files := w.rows["/bin/a"].Files
	if len(files) != 2 || files[0].File.Ino != 2 || len(files[0].Network) != 0 || files[1].File.Ino != 9 || len(files[1].Network) != 1 {
		t.Errorf("tallies %+v, want one of each file", files)
	}
	if asked["/bin/boxed"] || len(asked) != 1 {
		t.Errorf("asked of %v, want of the host's alone", asked)
	}
}
