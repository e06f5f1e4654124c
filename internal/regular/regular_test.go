package regular_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"profile/internal/regular"
	"profile/internal/regular/regulartest"
)

func TestOpensWhatIsRegular(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		f, err := regular.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if string(text) != "text" || err != nil {
			t.Errorf("%s holds %q, %v", path, text, err)
		}
		f.Close()
	}
	if _, err := regular.Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
}

func TestOpensNothingElse(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink(pipe, link)); err != nil {
		t.Fatal(err)
	}
	if !regulartest.Opened(t, pipe, func() {
		if f, err := os.OpenFile(link, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			f.Close()
		}
	}) {
		t.Fatal("an open is not noticed")
	}
	for _, path := range []string{pipe, link} {
		if regulartest.Opened(t, pipe, func() {
			if f, err := regular.Open(path); !errors.Is(err, regular.ErrOther) {
				t.Errorf("opened %v, %v; want ErrOther", f, err)
			}
		}) {
			t.Errorf("%s was opened to see what it is", path)
		}
	}
	if _, err := regular.Open(dir); !errors.Is(err, regular.ErrOther) {
		t.Errorf("a directory: %v, want ErrOther", err)
	}
}
