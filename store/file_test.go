package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func TestCreateKeepsOthersOut(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	top := t.TempDir()
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Create(filepath.Join(top, "a", "b", "profile.db"))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := s.LockLearn()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	for name, want := range map[string]fs.FileMode{
		".": 0o755, "a": 0o700, "a/b": 0o700, "a/b/profile.db": 0o600, "a/b/profile.db.lock": 0o600,
	} {
		info, err := os.Stat(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	if names := list(t, filepath.Dir(s.Path())); len(names) != 2 {
		t.Errorf("there are %q, want the database and its lock", names)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestCreateOpensWhatIsThere(t *testing.T) {
	s := newStore(t)
	update(t, s, func(tx *Tx) error { return tx.PutEvidence(realistic(1)) })
	if err := os.Chmod(s.Path(), 0o640); err != nil {
		t.Fatal(err)
	}
	again, err := Create(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	view(t, again, func(tx *Tx) error {
		rows, err := tx.Evidence(realistic(1).Key.Path)
		if len(rows) != 1 {
			t.Errorf("%d rows, want 1", len(rows))
		}
		return err
	})
	if info, err := os.Stat(s.Path()); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; want it as it was", info.Mode(), err)
	}
}

func TestOneDatabaseHasOneName(t *testing.T) {
	s := newStore(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.Path(), link); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(link))
	other, err := Open("link")
	if err != nil {
		t.Fatal(err)
	}
	if other.Path() != s.Path() {
		t.Errorf("it is called %q, want %q", other.Path(), s.Path())
	}
}

func TestOpenMakesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "profile.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
	s := newStore(t)
	if err := os.Remove(s.Path()); err != nil {
		t.Fatal(err)
	}
	err := s.Update(context.Background(), func(tx *Tx) error { return nil })
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v of an update without a file, want %v", err, fs.ErrNotExist)
	}
	if names := append(list(t, dir), list(t, filepath.Dir(s.Path()))...); len(names) > 0 {
		t.Errorf("left %q behind", names)
	}
}

func TestOtherFilesAreNotDatabases(t *testing.T) {
	bolt := func(fill func(*bbolt.Tx) error) func(string) error {
		return func(name string) error {
			db, err := bbolt.Open(name, 0o600, nil)
			if err != nil {
				return err
			}
			return errors.Join(db.Update(fill), db.Close())
		}
	}
	bytes := func(b []byte) func(string) error {
		return func(name string) error { return os.WriteFile(name, b, 0o600) }
	}
	for name, make := range map[string]func(string) error{
		"empty":     bytes(nil),
		"short":     bytes([]byte("hello\n")),
		"text":      bytes([]byte(strings.Repeat("hello\n", 10000))),
		"zeros":     bytes(append([]byte{}, strings.Repeat("\x00", 1<<16)...)),
		"directory": func(name string) error { return os.Mkdir(name, 0o700) },
		"pipe":      func(name string) error { return syscall.Mkfifo(name, 0o600) },
		"bbolt":     bolt(func(tx *bbolt.Tx) error { return nil }),
		"bbolt of another program": bolt(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("meta"))
			if err != nil {
				return err
			}
			return b.Put([]byte("schema"), []byte("1"))
		}),
		"schema that is no number": bolt(func(tx *bbolt.Tx) error {
			return errors.Join(writeSchema(tx), tx.Bucket(metaBucket).Put(schemaKey, []byte("one\n")))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			for _, open := range []func(string) (*Store, error){Open, Create} {
				_, err := open(path)
				if !errors.Is(err, ErrNotDatabase) || !strings.HasPrefix(err.Error(), "open database "+path) {
					t.Errorf("error %v, want %v", err, ErrNotDatabase)
				}
			}
		})
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	s := newStore(t)
	raw(t, s, metaBucket, schemaKey, strconv.AppendInt(nil, schema+1, 10))
	_, opened := Open(s.Path())
	_, created := Create(s.Path())
	for call, err := range map[string]error{
		"Open": opened, "Create": created,
		"View":   s.View(context.Background(), readAll),
		"Update": s.Update(context.Background(), readAll),
	} {
		var newer *SchemaError
		if !errors.As(err, &newer) || *newer != (SchemaError{Have: schema + 1, Know: schema}) {
			t.Errorf("%s: error %v, want the schemas %d and %d", call, err, schema+1, schema)
		}
	}
}

func TestADatabaseThatOthersCanWriteIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("files of another user need root")
	}
	const other = 12345
	for name, test := range map[string]struct {
		change func(dir, file string) error
		unsafe bool
	}{
		"a file that all can write": {func(dir, file string) error { return os.Chmod(file, 0o602) }, true},
		"a file that its group can write": {func(dir, file string) error {
			return errors.Join(os.Chown(file, 0, other), os.Chmod(file, 0o660))
		}, true},
		"a file that root's group can write": {func(dir, file string) error { return os.Chmod(file, 0o660) }, false},
		"a file that all can read":           {func(dir, file string) error { return os.Chmod(file, 0o644) }, false},
		"a file of another user":             {func(dir, file string) error { return os.Chown(file, other, 0) }, true},
		"a directory that all can write":     {func(dir, file string) error { return os.Chmod(dir, 0o777) }, true},
		"a directory such as /tmp":           {func(dir, file string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, false},
		"a directory of another user":        {func(dir, file string) error { return os.Chown(dir, other, 0) }, true},
		"a sticky directory of another user": {func(dir, file string) error {
			return errors.Join(os.Chown(dir, other, 0), os.Chmod(dir, 0o755|os.ModeSticky))
		}, true},
		"a directory that all can read":         {func(dir, file string) error { return os.Chmod(dir, 0o755) }, false},
		"a directory that only root can search": {func(dir, file string) error { return os.Chmod(dir, 0o700) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			if err := test.change(filepath.Dir(s.Path()), s.Path()); err != nil {
				t.Fatal(err)
			}
			_, err := Open(s.Path())
			if errors.Is(err, ErrUnsafe) != test.unsafe || err != nil && !test.unsafe {
				t.Errorf("error %v, want it refused: %v", err, test.unsafe)
			}
		})
	}
}

func TestNoDatabaseIsMadeWhereOthersCanWrite(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(filepath.Join(dir, "profile.db")); !errors.Is(err, ErrUnsafe) {
		t.Errorf("error %v, want %v", err, ErrUnsafe)
	}
	if names := list(t, dir); len(names) > 0 {
		t.Errorf("left %q behind", names)
	}
}

func TestADamagedFileIsAnError(t *testing.T) {
	s := newStore(t)
	update(t, s, func(tx *Tx) error {
		for i := range 80 {
			if err := tx.PutEvidence(realistic(i)); err != nil {
				return err
			}
		}
		return nil
	})
	whole, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	pages := len(whole) / page
	try := func(t *testing.T, damaged []byte) (failed bool) {
		if err := os.WriteFile(s.Path(), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		viewed := s.View(context.Background(), readAll)
		updated := s.Update(context.Background(), func(tx *Tx) error { return tx.PutEvidence(realistic(7)) })
		// Whatever came of it, the lock is given up and the mapping left alone.
		if err := os.WriteFile(s.Path(), whole, 0o600); err != nil {
			t.Fatal(err)
		}
		view(t, s, readAll)
		return viewed != nil || updated != nil
	}
	for name, fill := range map[string]byte{"zeros": 0, "ones": 0xff, "text": 'a'} {
		t.Run(name, func(t *testing.T) {
			all := bytes.Clone(whole)
			copy(all[2*page:], bytes.Repeat([]byte{fill}, len(all)))
			if !try(t, all) {
				t.Error("nothing failed with all pages damaged")
			}
			for i := 2; i < pages; i++ {
				one := bytes.Clone(whole)
				copy(one[i*page:], bytes.Repeat([]byte{fill}, page))
				try(t, one) // no panic, no hanging; a free page does no harm
			}
		})
	}
	t.Run("cut short", func(t *testing.T) {
		for i := 2; i < pages; i++ {
			if err := os.WriteFile(s.Path(), whole[:i*page], 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(s.Path())
			if want := fmt.Sprintf("the file is damaged: it ends after %d of ", i*page); i < 10 && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("error %v, want one with %q", err, want)
			}
			try(t, whole[:i*page])
		}
	})
}

func TestWaitingEnds(t *testing.T) {
	s := newStore(t)
	s.wait = 100 * time.Millisecond
	inside := func(ctx context.Context, outer, inner func(context.Context, func(*Tx) error) error) error {
		var err error
		if e := outer(context.Background(), func(*Tx) error {
			err = inner(ctx, func(*Tx) error { return nil })
			return nil
		}); e != nil {
			t.Fatal(e)
		}
		return err
	}
	for name, err := range map[string]error{
		"View in Update":   inside(context.Background(), s.Update, s.View),
		"Update in Update": inside(context.Background(), s.Update, s.Update),
		"Update in View":   inside(context.Background(), s.View, s.Update),
	} {
		if !errors.Is(err, ErrBusy) {
			t.Errorf("%s: error %v, want %v", name, err, ErrBusy)
		}
	}
	s.wait = time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := inside(ctx, s.Update, s.View); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
	if err := s.View(ctx, func(*Tx) error { t.Error("called after the context's end"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
}
