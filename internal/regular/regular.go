// Package regular opens files by names that others may have made. To open a
// device does something to it, and a named pipe waits for a writer: what is no
// regular file is not opened, whatever becomes of the name meanwhile.
package regular

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrOther is returned for what is no regular file.
var ErrOther = errors.New("not a regular file")

// Open opens the regular file at path, or that a symbolic link there leads to,
// for reading. It does not wait for whoever holds a lease on it.
func Open(path string) (*os.File, error) {
	// With O_PATH it is found, and not opened.
	found, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	info, err := found.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrOther}
	}
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", found.Fd()), os.O_RDONLY|unix.O_NONBLOCK, 0)
	var failed *fs.PathError
	if errors.As(err, &failed) {
		failed.Path = path
	}
	return file, err
}
