package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

type key struct{}

// script is what one script has running. It is ended with it.
type script struct {
	cgroup  string
	env     *testscript.Env
	learner *learner
	servers map[string]*server
	running []*exec.Cmd // in the background, inside the cgroup
	others  []string    // policies that an agent held before the script's; nil until it is asked
}

func of(ts *testscript.TestScript) *script { return ts.Value(key{}).(*script) }

// within is how long anything that must happen may take, and slowly where an
// agent is asked that holds back what it knows for half a minute.
var within = 20 * time.Second

const slowly = 2 * time.Minute

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"in":       cmdIn,
	"learn":    cmdLearn,
	"learned":  cmdLearned,
	"server":   cmdServer,
	"sees":     cmdSees,
	"verdict":  cmdVerdict,
	"runs":     cmdRuns,
	"network":  cmdNetwork,
	"entry":    cmdEntry,
	"attempt":  cmdAttempt,
	"absent":   cmdAbsent,
	"held":     cmdHeld,
	"plan":     cmdPlan,
	"kills":    cmdKills,
	"exit":     cmdExit,
	"await":    cmdAwait,
	"ended":    cmdEnded,
	"clean":    cmdClean,
	"sabotage": cmdSabotage,
	"lapse":    cmdLapse,
	"policy":   cmdPolicy,
	"refusing": cmdRefusing,
}

// end kills what is left in the cgroup, takes off what is in force, and
// removes the cgroup and what the script has mounted, whether it passed or not.
func (s *script) end() {
	if s.learner != nil {
		s.learner.cmd.Process.Kill()
		s.learner.cmd.Wait()
	}
	for _, srv := range s.servers {
		srv.close()
	}
	os.WriteFile(filepath.Join(s.cgroup, "cgroup.kill"), []byte("1"), 0)
	for _, cmd := range s.running {
		cmd.Wait()
	}
	dbs, _ := filepath.Glob(filepath.Join(s.env.WorkDir, "*.db"))
	for _, db := range dbs {
		exec.Command(filepath.Join(built, "profile"), "--db", db, "release", "--yes").Run()
	}
	mounts, _ := mountinfo.GetMounts(mountinfo.PrefixFilter(s.env.WorkDir))
	for _, m := range mounts {
		unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
	}
	for range 200 {
		for _, group := range append(s.below(), s.cgroup) {
			os.Remove(group)
		}
		if _, err := os.Stat(s.cgroup); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// inside makes a command that starts inside the script's cgroup, or one below.
func (s *script) inside(ts *testscript.TestScript, below string, args []string) *exec.Cmd {
	dir, err := os.Open(filepath.Join(s.cgroup, below))
	ts.Check(err)
	ts.Defer(func() { dir.Close() })
	name := args[0]
	if !strings.Contains(name, "/") {
		for _, d := range strings.Split(ts.Getenv("PATH"), ":") {
			if st, err := os.Stat(filepath.Join(d, name)); err == nil && st.Mode()&0o111 != 0 {
				name = filepath.Join(d, name)
				break
			}
		}
	}
	if !filepath.IsAbs(name) {
		name = ts.MkAbs(name)
	}
	cmd := &exec.Cmd{Path: name, Args: args, Dir: ts.MkAbs(".")}
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=/", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd
}

// in [-as ARGV0] [-at GROUP] [-n TIMES] [-bg | -killed | -any] PROGRAM ARG…
// runs a program inside the cgroup, or a group that was made below it. It must exit 0; with -killed it must die of SIGKILL, with
// -any it may end as it likes, with ! it must exit otherwise than 0.
func cmdIn(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	times, as, at, want := 1, "", "", "ok"
	if neg {
		want = "failure"
	}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-as":
			as, args = args[1], args[1:]
		case "-at":
			at, args = args[1], args[1:]
		case "-n":
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			times, args = n, args[1:]
		case "-bg", "-killed", "-any":
			want = args[0]
		default:
			ts.Fatalf("in: unknown flag %s", args[0])
		}
		args = args[1:]
	}
	for range times {
		cmd := s.inside(ts, at, args)
		if as != "" {
			cmd.Args = append([]string{as}, args[1:]...)
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if want == "-bg" {
			ts.Check(cmd.Start())
			s.running = append(s.running, cmd)
			return
		}
		err := cmd.Run()
		ts.Logf("%s: %v\n%s", strings.Join(args, " "), err, out.Bytes())
		died := cmd.ProcessState != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() &&
			cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		switch {
		case cmd.ProcessState == nil:
			ts.Fatalf("%q did not start: %v", args, err)
		case want == "ok" && err != nil, want == "failure" && (err == nil || died), want == "-killed" && !died:
			ts.Fatalf("%q ended with %v, want %s", args, err, want)
		}
	}
}

type learner struct {
	cmd *exec.Cmd
	err *bytes.Buffer
	mu  *sync.Mutex
	all chan struct{} // closed when stderr has ended
}

// learn FLAG… starts `profile learn` and waits until its window is open.
// $LEARNFLAGS, such as --cgroup $CG, stand before the flags.
func cmdLearn(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if s.learner != nil {
		ts.Fatalf("a learner is running")
	}
	if agent, _ := against(); agent != nil {
		args = append([]string{"--agent", agent.address}, args...)
	}
	cmd := exec.Command(filepath.Join(built, "profile"), append([]string{"--db", ts.Getenv("DB"), "learn"}, args...)...)
	cmd.Env = append(os.Environ(), "PROFILE_TEST_RING_BYTES="+ts.Getenv("RING"))
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	l := &learner{cmd: cmd, err: &bytes.Buffer{}, mu: &sync.Mutex{}, all: make(chan struct{})}
	s.learner = l
	opened := make(chan bool, 1)
	go func() {
		defer close(l.all)
		for in := bufio.NewScanner(stderr); in.Scan(); {
			l.mu.Lock()
			l.err.WriteString(in.Text() + "\n")
			l.mu.Unlock()
			if strings.HasPrefix(in.Text(), "watching since") {
				opened <- true
			}
		}
	}()
	select {
	case <-opened:
	case <-l.all:
		ts.Fatalf("learn ended: %s", l.err)
	case <-time.After(within):
		ts.Fatalf("no window after %s", within)
	}
}

// learned [-kill | -term | -over] ends the learner, by Ctrl-C, and it must exit
// 0; with -kill by SIGKILL, with -term by SIGTERM, with -over it ends by itself. (stop is a command of testscript, which ends the script.)
func cmdLearned(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	l := s.learner
	if l == nil {
		ts.Fatalf("no learner is running")
	}
	s.learner = nil
	sig := syscall.SIGINT
	if len(args) > 0 {
		sig = map[string]syscall.Signal{"-kill": syscall.SIGKILL, "-term": syscall.SIGTERM, "-over": 0}[args[0]]
	}
	ts.Check(l.cmd.Process.Signal(sig))
	select {
	case <-l.all:
	case <-time.After(within):
		ts.Fatalf("learn has not ended after %s: %s", within, l.err)
	}
	err := l.cmd.Wait()
	ts.Logf("learn: %s", l.err)
	if sig != syscall.SIGKILL && err != nil {
		ts.Fatalf("learn: %v", err)
	}
}

// server counts what reaches a port of 127.0.0.1.
type server struct {
	close func() error
	mu    sync.Mutex
	seen  int
}

func (srv *server) note() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.seen++
}

// server tcp|udp NAME starts a server, whose port becomes $NAME.
func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	srv := &server{}
	var port int
	switch args[0] {
	case "tcp":
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		ts.Check(err)
		port, srv.close = l.Addr().(*net.TCPAddr).Port, l.Close
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				srv.note()
				go func() {
					io.Copy(io.Discard, conn)
					conn.Close()
				}()
			}
		}()
	case "udp":
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		ts.Check(err)
		port, srv.close = c.LocalAddr().(*net.UDPAddr).Port, c.Close
		go func() {
			for buf := make([]byte, 64); ; {
				if _, _, err := c.ReadFrom(buf); err != nil {
					return
				}
				srv.note()
			}
		}()
	default:
		ts.Fatalf("server: tcp or udp")
	}
	if s.servers == nil {
		s.servers = map[string]*server{}
	}
	s.servers[args[1]] = srv
	ts.Setenv(args[1], strconv.Itoa(port))
}

// sees NAME N waits a moment for what may still be on its way, and then
// compares what reached the server since the last time.
func cmdSees(ts *testscript.TestScript, neg bool, args []string) {
	srv := of(ts).servers[args[0]]
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	time.Sleep(300 * time.Millisecond)
	srv.mu.Lock()
	got := srv.seen
	srv.seen = 0
	srv.mu.Unlock()
	if got != want {
		ts.Fatalf("server %s saw %d, want %d", args[0], got, want)
	}
}

// exit CODE PROGRAM ARG… runs a program outside the cgroup, which must exit
// with that code. Its output is what stdout and stderr then compare.
func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("%q exits %d, want %d", args[1:], code, want)
	}
}

// await FILE waits until a file is there.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s did not appear", args[0])
}
