package canary

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDirIsBesideTheDatabase(t *testing.T) {
	db := filepath.Join(t.TempDir(), "profile.db")
	for range 2 { // made, then found again
		got, err := Dir(db)
		if err != nil {
			t.Fatal(err)
		}
		if got != db+".canary" {
			t.Errorf("Dir = %q, want %q", got, db+".canary")
		}
		info, err := os.Lstat(got)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != os.ModeDir|0o700 {
			t.Errorf("mode %v, want a directory of mode 0700", info.Mode())
		}
	}
}

// Whoever could open the directory that all databases share could lock it, and
// nothing could be brought into force or taken off.
func TestTheSharedDirectoryIsNotForOthersToOpen(t *testing.T) {
	run, taken := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "profile.db")
	if err := os.Symlink(t.TempDir(), taken+".canary"); err != nil {
		t.Fatal(err)
	}
	got, err := dir(taken, run, t.TempDir())
	if err != nil || filepath.Dir(got) != run {
		t.Fatalf("dir = %q, %v, want one in %q", got, err, run)
	}
	if info, err := os.Stat(run); err != nil || info.Mode().Perm()&0o066 != 0 {
		t.Errorf("mode %v (%v), want one that others can neither read nor write", info.Mode(), err)
	}
}

func TestDirIsTheSameThroughALink(t *testing.T) {
	real := filepath.Join(t.TempDir(), "profile.db")
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.WriteFile(real, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if got, err := Dir(link); err != nil || got != real+".canary" {
		t.Errorf("Dir = %q, %v, want %q", got, err, real+".canary")
	}
}

func TestDirFallsBack(t *testing.T) {
	taken := func(t *testing.T, path string) {
		if err := os.Symlink(t.TempDir(), path); err != nil {
			t.Fatal(err)
		}
	}
	long := func(t *testing.T) string {
		dir := t.TempDir()
		for len(dir) < 200 {
			dir = filepath.Join(dir, strings.Repeat("d", 20))
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	none := func(t *testing.T) string { return filepath.Join(t.TempDir(), "no", "such") }
	linked := func(t *testing.T) string {
		dir := t.TempDir()
		taken(t, filepath.Join(dir, "profile.db.canary"))
		return dir
	}
	temp := func(t *testing.T) string { return t.TempDir() }
	for _, c := range []struct {
		what                string
		db, run             func(*testing.T) string
		wantIn, wantPattern string
		root                bool
	}{
		{"database directory missing", none, temp, "run", "canary-*", false},
		{"directory beside it is a link", linked, temp, "run", "canary-*", false},
		{"path too long for a policy", long, temp, "run", "canary-*", false},
		{"database directory noexec", noexecMount, temp, "run", "canary-*", true},
		{"both noexec", noexecMount, noexecMount, "temp", "profile-canary-*", true},
	} {
		t.Run(c.what, func(t *testing.T) {
			if c.root {
				needRoot(t)
			}
			in := map[string]string{"run": c.run(t), "temp": t.TempDir()}
			db := filepath.Join(c.db(t), "profile.db")
			got, err := dir(db, in["run"], in["temp"])
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := filepath.Match(filepath.Join(in[c.wantIn], c.wantPattern), got); err != nil || !ok {
				t.Errorf("dir = %q, want %s/%s", got, in[c.wantIn], c.wantPattern)
			}
			other, err := dir(db+"2", in["run"], in["temp"])
			if err != nil {
				t.Fatal(err)
			}
			if c.what != "directory beside it is a link" && other == got {
				t.Errorf("two databases share %q", got)
			}
		})
	}
}

func TestDirSaysWhyNone(t *testing.T) {
	none := filepath.Join(t.TempDir(), "no", "such")
	_, err := dir(filepath.Join(none, "profile.db"), filepath.Join(none, "run"), none)
	if err == nil || strings.Count(err.Error(), none) < 3 {
		t.Errorf("error %v, want a reason for each of three places", err)
	}
}

func TestDirRefusesWhatAnotherUserOwns(t *testing.T) {
	needRoot(t)
	db := filepath.Join(t.TempDir(), "profile.db")
	if err := os.Mkdir(db+".canary", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(db+".canary", 65534, 65534); err != nil {
		t.Fatal(err)
	}
	run := t.TempDir()
	got, err := dir(db, run, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(got) != run {
		t.Errorf("dir = %q, want one below %q", got, run)
	}
}

func TestClearRemovesCanariesAndNothingElse(t *testing.T) {
	db := filepath.Join(t.TempDir(), "profile.db")
	dir, err := Dir(db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Install(dir, "profile-canary-test"); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Clear(db); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "other" {
		t.Errorf("left are %v (%v), want the file that is no canary", left, err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if err := Clear(db); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory stayed: %v", err)
	}
}

// In a directory for temporary files anybody can make one of the name that ours
// would have, and put a link in its place while it is being cleared.
func TestClearLeavesWhatAnotherUserOwns(t *testing.T) {
	needRoot(t)
	temp := t.TempDir()
	db := filepath.Join(t.TempDir(), "profile.db")
	paths, err := candidates(db, "/nowhere", temp)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := paths[2], t.TempDir()
	for _, dir := range []string{theirs, ours} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Install(dir, "kept"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(theirs, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cleared := func() {
		t.Helper()
		if err := clearDirs(db, "/nowhere", temp); err != nil {
			t.Error(err)
		}
		for _, dir := range []string{theirs, ours} {
			if _, err := os.Stat(filepath.Join(dir, "kept")); err != nil {
				t.Errorf("another's file is gone: %v", err)
			}
		}
	}
	cleared()
	if err := os.RemoveAll(theirs); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(ours, theirs); err != nil {
		t.Fatal(err)
	}
	cleared()
}

// Whoever is done with a directory removes it, and another may just have asked
// for it.
func TestInstallWhereTheDirectoryIsRemovedMeanwhile(t *testing.T) {
	db := filepath.Join(t.TempDir(), "profile.db")
	dir, err := Dir(db)
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				os.Remove(dir)
			}
		}
	}()
	defer func() { close(stop); <-done }()
	for range 500 {
		c, err := Install(dir, "bird")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Install(filepath.Join(t.TempDir(), "none", "profile.db.canary"), "bird"); err == nil {
		t.Error("installed where there is no directory to make one in")
	}
}
