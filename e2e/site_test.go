package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"profile/internal/cgroup"
)

// site is what a test has that is not a script: a cgroup, a directory and a
// database of its own.
type site struct {
	t     *testing.T
	dir   string // resolved
	db    string
	group *os.File
}

func newSite(t *testing.T) *site {
	t.Helper()
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	group, err := os.MkdirTemp(root.Dir, "profile-test-")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: dir, db: filepath.Join(dir, "profile.db")}
	if s.group, err = os.Open(group); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	return s
}

// end takes off what is in force and removes the cgroup with all that is in it.
func (s *site) end() {
	s.group.Close()
	if _, err := os.Stat(s.db); err == nil {
		s.profile("release", "--yes")
	}
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		_ = os.WriteFile(filepath.Join(s.group.Name(), "cgroup.kill"), []byte("1"), 0)
		err := os.Remove(s.group.Name())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("the cgroup stays: %v", err)
			return
		}
	}
}

// try runs profile and gives what it prints.
func (s *site) try(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command(filepath.Join(built, "profile"), append([]string{"--db", s.db}, args...)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	return out.String(), complaint.String(), err
}

// profile runs profile, which must exit 0, and gives its standard output.
func (s *site) profile(args ...string) string {
	s.t.Helper()
	out, complaint, err := s.try(args...)
	if err != nil {
		s.t.Errorf("profile %q: %v\n%s%s", args, err, out, complaint)
	}
	return out
}

// read runs profile and reads the JSON that it prints.
func (s *site) read(into any, args ...string) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.profile(args...)), into); err != nil {
		s.t.Fatalf("profile %q prints no JSON: %v", args, err)
	}
}

// learn learns in the cgroup while fn runs.
func (s *site) learn(fn func()) {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(built, "profile"), "--db", s.db, "learn", "--cgroup", s.group.Name())
	log, err := os.Create(filepath.Join(s.dir, "learn.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended { // the test was given up
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	said := func() string {
		text, _ := os.ReadFile(log.Name())
		return string(text)
	}
	for deadline := time.Now().Add(within); !strings.Contains(said(), "watching since"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("learn: no window: %s", said())
		}
	}
	fn()
	err = errors.Join(cmd.Process.Signal(syscall.SIGINT), cmd.Wait())
	if ended = true; err != nil {
		s.t.Fatalf("learn: %v\n%s", err, said())
	}
}

// start starts a program inside the cgroup. args begin with argv[0].
func (s *site) start(path string, args []string, out io.Writer) *exec.Cmd {
	cmd := &exec.Cmd{Path: path, Args: args, Dir: s.dir, Stdout: out, Stderr: out}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(s.group.Fd())}
	if err := cmd.Start(); err != nil {
		s.t.Errorf("start %q: %v", args, err)
		return nil
	}
	return cmd
}

// run runs a program inside the cgroup to its end.
func (s *site) run(path string, args []string) (status syscall.WaitStatus, out string) {
	var buf bytes.Buffer
	cmd := s.start(path, args, &buf)
	if cmd == nil {
		return 0xffff, ""
	}
	timer := time.AfterFunc(within, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer timer.Stop()
	_ = cmd.Wait() // how it ended is in ProcessState
	return cmd.ProcessState.Sys().(syscall.WaitStatus), buf.String()
}

// empties waits until nothing runs in the cgroup any more.
func (s *site) empties() {
	s.t.Helper()
	var procs []byte
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if procs, err = os.ReadFile(filepath.Join(s.group.Name(), "cgroup.procs")); err == nil && len(procs) == 0 {
			return
		}
	}
	s.t.Fatalf("the cgroup does not empty: %q", procs)
}

// writeProgram writes a file that is to be executed. What another test forks
// meanwhile would have it open for writing until its exec, so that it could not
// be executed (ETXTBSY).
func writeProgram(path string, text []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, text, 0o755)
}

// copies puts a copy of a built program at a path below the directory.
func (s *site) copies(program, path string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(built, program))
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = writeProgram(path, text)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// serve counts the connections to a port of 127.0.0.1 until the test ends.
func (s *site) serve() (port string, srv *server) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	srv = &server{close: l.Close}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			srv.note()
			_ = conn.Close()
		}
	}()
	s.t.Cleanup(func() {
		srv.close()
		<-done
	})
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), srv
}

// count is what reached the server so far.
func (srv *server) count() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.seen
}

// many reads how often a test does a thing from the environment, which make
// soak sets.
func many(t *testing.T, variable string, otherwise int) int {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of times", variable, text)
	}
	return n
}
