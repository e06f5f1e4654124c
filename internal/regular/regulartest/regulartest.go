// Package regulartest tells tests what is opened. Only tests import it.
package regulartest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Opened reports whether do opens what is at path.
func Opened(t testing.TB, path string, do func()) bool {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	do()
	n, err := unix.Read(fd, make([]byte, 4096))
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	return n > 0
}
