package enforcer

import (
	"os"
	"path/filepath"
	"testing"
)

// elfHead begins every program that the kernel runs itself.
const elfHead = "\x7fELF\x02\x01\x01"

// write makes a file in dir, which is resolved: its path is the kernel's.
func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// program makes a file that the kernel would take for a program.
func program(t *testing.T, dir, name string) string {
	t.Helper()
	return write(t, dir, name, elfHead+name, 0o755)
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}
