package sensor

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// greet answers every connection that is let in.
func greet(t *testing.T, lis net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "welcome")
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		lis.Close()
		<-done
	})
}

// connectAs reads from the socket as a user of that id and group.
func connectAs(t *testing.T, path string, uid, gid uint32) string {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-c", "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9).decode())", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, _ := cmd.Output() // a refusal is an error of the program, and no greeting
	return strings.TrimSpace(string(out))
}

func TestListenLetsInRootAndTheGroup(t *testing.T) {
	needKernel(t)
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		group    string
		mode     os.FileMode
		uid, gid uint32
		in       bool
	}{
		{"", 0o600, 0, 0, true},
		{"", 0o600, 65534, 65534, false},
		{"daemon", 0o660, 65534, 1, true},
		{"daemon", 0o660, 65534, 65534, false},
	} {
		path := filepath.Join(dir, "agent.sock")
		lis, err := Listen(path, tc.group, quiet)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != tc.mode {
			t.Errorf("mode %v (%v), want %v", st.Mode(), err, tc.mode)
		}
		// Even where the mode lets everybody in, the credentials count.
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		t.Run("", func(t *testing.T) {
			greet(t, lis)
			if got := connectAs(t, path, tc.uid, tc.gid) == "welcome"; got != tc.in {
				t.Errorf("user %d of group %d, group %q: let in is %v, want %v", tc.uid, tc.gid, tc.group, got, tc.in)
			}
		})
	}
}

func TestListenReplacesADeadSocketAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	lis, err := Listen(path, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, "", quiet); err == nil || !strings.Contains(err.Error(), "answers") {
		t.Errorf("a second agent at one socket: %v", err)
	}
	lis.(*peers).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	lis.Close()
	lis, err = Listen(path, "", quiet)
	if err != nil {
		t.Fatalf("over the socket of an agent that has gone: %v", err)
	}
	lis.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, "", quiet); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("over a file: %v", err)
	}
	if _, err := Listen(filepath.Join(t.TempDir(), "s"), "no-such-group", quiet); err == nil {
		t.Error("a group that does not exist was taken")
	}
}

// An agent that has no time to answer is none that has gone.
func TestListenLeavesTheSocketOfABusyAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	address := &unix.SockaddrUnix{Name: path}
	open := func() int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	busy := open()
	if err := errors.Join(unix.Bind(busy, address), unix.Listen(busy, 0)); err != nil {
		t.Fatal(err)
	}
	for waiting := 0; ; waiting++ {
		err := unix.Connect(open(), address)
		if err == unix.EAGAIN {
			break
		}
		if err != nil || waiting > 10 {
			t.Fatalf("%d wait, and the next: %v", waiting, err)
		}
	}
	if lis, err := Listen(path, "", quiet); err == nil {
		lis.Close()
		t.Error("another took the place of an agent that is busy")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of the busy agent is gone: %v", err)
	}
}
