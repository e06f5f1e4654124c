package sensor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tapi "github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"

	"profile/internal/cgroup/cgrouptest"
	"profile/internal/tetragon"
)

func TestAuditTellsExecForkSocketAndExit(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-audit", Node: "node"})
	upTo := collect(t, a)
	if err := a.Add(t.Context(), auditPolicy("profile-learn-test", g)); err != nil {
		t.Fatal(err)
	}
	run(t, g, "/bin/sh", "-c", "curl -s http://127.0.0.1:1/; true")
	exits := 0
	var story []string
	for _, ev := range upTo(func(ev *tapi.GetEventsResponse) bool {
		if ev.GetProcessExit() != nil {
			exits++
		}
		return exits == 2
	}) {
		switch e := ev.Event.(type) {
		case *tapi.GetEventsResponse_ProcessExec:
			story = append(story, "exec "+e.ProcessExec.Process.Binary+" "+e.ProcessExec.Process.Arguments)
		case *tapi.GetEventsResponse_ProcessExit:
			story = append(story, "exit "+e.ProcessExit.Process.Binary)
		case *tapi.GetEventsResponse_ProcessKprobe:
			k := e.ProcessKprobe
			line := k.FunctionName + " " + k.Process.Binary
			if b := k.Args[0].GetLinuxBinprmArg(); b != nil {
				line += " -> " + b.Path
			}
			story = append(story, line)
		}
	}
	t.Log(strings.Join(story, "\n"))
	want := []string{
		"security_bprm_committing_creds",
		"exec /bin/sh -c \"curl -s http://127.0.0.1:1/; true\"",
		"wake_up_new_task /bin/sh",
		"security_bprm_committing_creds /bin/sh -> /usr/bin/curl",
		"exec /usr/bin/curl -s http://127.0.0.1:1/",
		"security_socket_create /usr/bin/curl",
		"exit /usr/bin/curl",
		"exit /bin/sh",
	}
	if len(story) != len(want) {
		t.Fatalf("%d events, want %d", len(story), len(want))
	}
	for i := range want {
		if !strings.HasPrefix(story[i], want[i]) {
			t.Errorf("event %d: %q, want %q", i, story[i], want[i])
		}
	}
}

// sockets gives the socket events among some.
func sockets(events []*tapi.GetEventsResponse) []*tapi.ProcessKprobe {
	var found []*tapi.ProcessKprobe
	for _, ev := range events {
		if k := ev.GetProcessKprobe(); k.GetFunctionName() == tetragon.CallSocketCreate {
			found = append(found, k)
		}
	}
	return found
}

func label(k *tapi.ProcessKprobe, name string) *tapi.KprobeArgument {
	for _, d := range k.GetData() {
		if d.GetLabel() == name {
			return d
		}
	}
	return nil
}

func exited(name string) func(*tapi.GetEventsResponse) bool {
	return func(ev *tapi.GetEventsResponse) bool { return ev.GetProcessExit().GetProcess().GetBinary() == name }
}

func TestAuditTellsWhatRanBeforeAndItsSockets(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	// This test itself joins no cgroup: a listener that lives in it does.
	ready := filepath.Join(t.TempDir(), "ready")
	cmd := startIn(t, g, "/usr/bin/python3", "-c", `import socket,sys,time
s=socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u=socket.socket(socket.AF_UNIX)
open(sys.argv[1],"w").close(); sys.stdin.read()`, ready)
	waitFor(t, ready)
	a := serve(t, Config{Name: "sensor-test-before", Node: "node"})
	upTo := collect(t, a)
	if err := a.Add(t.Context(), auditPolicy("profile-learn-test", g)); err != nil {
		t.Fatal(err)
	}
	cmd.stop()
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	all := upTo(exited(python))
	if p := all[0].GetProcessExec().GetProcess(); p.GetBinary() != python || p.GetFlags() != "procFS" {
		t.Errorf("the first event is of %q, flags %q; want %q that ran before", p.GetBinary(), p.GetFlags(), python)
	}
	held := sockets(all)
	if len(held) != 1 || held[0].Args[0].GetIntArg() != unix.AF_INET6 || label(held[0], tetragon.LabelHeld) == nil {
		t.Errorf("sockets told: %v, want the one of AF_INET6 that is held", held)
	}
}

func TestAuditLabelsTheSocketsOfTheListed(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	cfg := Config{Name: "sensor-test-listed", Node: "node"}
	a, other := serve(t, cfg), serve(t, cfg)
	upTo := collect(t, a)
	if err := a.Add(t.Context(), auditPolicy("profile-learn-test", g)); err != nil {
		t.Fatal(err)
	}
	// One process opens a socket before, during and after it is listed; what
	// lists it is another sensor, as another command would be.
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	p := startIn(t, g, python, "-c", `import socket,sys
for _ in sys.stdin:
    socket.socket().close(); print("done", flush=True)`)
	p.step(t)
	p.step(t) // not told again
	name := "profile-enforce-test"
	if err := other.Add(t.Context(), enforcingPolicy(name, "monitor", g, python)); err != nil {
		t.Fatal(err)
	}
	p.step(t)
	p.step(t)
	if err := other.Delete(context.Background(), name); err != nil {
		t.Fatal(err)
	}
	p.step(t)
	p.stop()
	var stages []string
	for _, k := range sockets(upTo(exited(python))) {
		stages = append(stages, label(k, tetragon.LabelListed).GetStringArg())
	}
	if strings.Join(stages, ",") != ",monitor," {
		t.Errorf("told as listed: %q, want one socket before, one in monitor, one after", stages)
	}
}

func TestAuditTellsWhatTheRingLost(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-loss", Node: "node", RingBytes: uint32(os.Getpagesize())})
	upTo := collect(t, a)
	if err := a.Add(t.Context(), auditPolicy("profile-learn-test", g)); err != nil {
		t.Fatal(err)
	}
	if err := run(t, g, "/bin/sh", "-c", "for i in $(seq 300); do /bin/true & done; wait"); err != nil {
		t.Fatal(err)
	}
	var told uint64
	received := func(ev *tapi.GetEventsResponse) bool {
		told += ev.GetRateLimitInfo().GetNumberOfDroppedProcessEvents()
		return told > 0
	}
	upTo(received)
	st, err := a.Policy(t.Context(), "profile-learn-test")
	if err != nil {
		t.Fatal(err)
	}
	if post := st.GetStats().GetActionCounters().GetPost(); post < told {
		t.Errorf("%d events posted, of which %d were lost", post, told)
	}
}

// A kernel that preempts leaves a program out while it was interrupted in another
// process on the same processor, and counts that.
func TestAuditTellsWhatTheKernelLeftOut(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	var missed atomic.Uint64
	a := serve(t, Config{Name: "sensor-test-missed", Node: "node", missed: func(o *observer) (uint64, error) {
		n, err := o.missed()
		return n + missed.Load(), err
	}})
	upTo := collect(t, a)
	if err := a.Add(t.Context(), auditPolicy("profile-learn-test", g)); err != nil {
		t.Fatal(err)
	}
	told := func() (n uint64) {
		upTo(func(ev *tapi.GetEventsResponse) bool {
			n = ev.GetRateLimitInfo().GetNumberOfDroppedProcessEvents()
			return n > 0
		})
		return n
	}
	for _, step := range []struct{ missed, told uint64 }{{3, 3}, {5, 2}} {
		missed.Store(step.missed)
		if n := told(); n != step.told {
			t.Errorf("%d are told of when %d were left out in all, want %d", n, step.missed, step.told)
		}
	}
}

func TestAuditTellsWhatCameIntoTheCgroupWithoutAnExec(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-came", Node: "node"})
	upTo := collect(t, a)
	if err := a.Add(t.Context(), auditPolicy("profile-learn-test", g)); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("/bin/sh", "-c", "echo $$ >"+g.Dir+"/cgroup.procs; /bin/true; /bin/true").Run(); err != nil {
		t.Fatal(err)
	}
	all := upTo(exited("/usr/bin/dash"))
	if p := all[0].GetProcessExec().GetProcess(); p.GetBinary() != "/usr/bin/dash" || p.GetFlags() != "procFS" {
		t.Errorf("the first event is %v, want the shell, start not seen", all[0])
	}
	// One that does nothing is told as well.
	silent := exec.Command("/bin/sh", "-c", "echo $$ >"+g.Dir+"/cgroup.procs; read line; exit 0")
	stdin, err := silent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := silent.Start(); err != nil {
		t.Fatal(err)
	}
	upTo(func(ev *tapi.GetEventsResponse) bool {
		p := ev.GetProcessExec().GetProcess()
		return p.GetPid().GetValue() == uint32(silent.Process.Pid) && p.GetFlags() == "procFS"
	})
	if err := errors.Join(stdin.Close(), silent.Wait()); err != nil {
		t.Fatal(err)
	}
}

func TestAuditTellsWhatLeftTheCgroup(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-left", Node: "node"})
	upTo := collect(t, a)
	if err := a.Add(t.Context(), auditPolicy("profile-learn-test", g)); err != nil {
		t.Fatal(err)
	}
	above := filepath.Join(filepath.Dir(g.Dir), "cgroup.procs")
	if err := run(t, g, "/bin/sh", "-c", "echo $$ >"+above+"; exec /bin/true"); err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, ev := range upTo(exited("/bin/sh")) {
		if k := ev.GetProcessKprobe(); k != nil {
			story = append(story, k.FunctionName)
		}
		if e := ev.GetProcessExec(); e != nil {
			story = append(story, "exec "+e.Process.Binary)
		}
	}
	want := "security_bprm_committing_creds,exec /bin/sh,cgroup_attach_task"
	if got := strings.Join(story, ","); got != want {
		t.Errorf("told %s, want %s and the end of the shell: what it executes outside is not of the cgroup", got, want)
	}
}

// Two learners at one agent: each gets its own events, once.
func TestAuditEventsAreForWhoeverAskedForThem(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	path := filepath.Join(t.TempDir(), "agent.sock")
	lis, err := Listen(path, "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(Config{Name: "sensor-test-two", Node: "node"}).Serve(ctx, lis) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	dial := func() *tetragon.Agent {
		a, err := tetragon.Dial(t.Context(), "unix://"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	one, two := dial(), dial()
	defer two.Close()
	upTo := collect(t, two)
	if err := one.Add(t.Context(), auditPolicy("profile-learn-one", g)); err != nil {
		t.Fatal(err)
	}
	if err := two.Add(t.Context(), auditPolicy("profile-learn-two", g)); err != nil {
		t.Fatal(err)
	}
	if err := run(t, g, "/bin/true"); err != nil {
		t.Fatal(err)
	}
	execs := 0
	for _, ev := range upTo(exited("/bin/true")) {
		if ev.GetProcessExec() != nil {
			execs++
		}
	}
	if execs != 1 {
		t.Errorf("%d execs told, want the one", execs)
	}
	one.Close()
	for range 200 {
		all, err := two.Policies(t.Context(), tetragon.LearnPrefix)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 && all[0].GetName() == "profile-learn-two" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the audit policy of a learner that has gone is still loaded")
}

func TestAuditTellsWhatSocketsAreUsedFor(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-use", Node: "node"})
	upTo := collect(t, a)
	p := auditPolicy("profile-learn-test", g)
	for _, call := range a.Uses {
		args := useArgs
		if call == tetragon.CallReceive {
			args = handedArgs
		}
		p.Spec.KProbes = append(p.Spec.KProbes, tetragon.KProbe{Call: call, Args: args})
	}
	if err := a.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	py := python(t)
	run(t, g, py, "-c", `import socket
def quietly(f, *args):
    try: f(*args)
    except OSError: pass
s = socket.socket()
for _ in range(3): quietly(s.connect, ("127.0.0.1", 1))
quietly(socket.socket(socket.AF_INET6).connect, ("2001:db8::1", 2, 0, 0))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
quietly(u.bind, ("127.0.0.1", 0))
quietly(u.sendto, b"x", ("127.0.0.1", 3))
u.setblocking(False)
quietly(u.recv, 1) # on a socket of its own: not told
socket.socket().bind(("0.0.0.0", 0))`)
	var told []string
	for _, ev := range upTo(exited(py)) {
		k := ev.GetProcessKprobe()
		if slices.Contains(a.Uses, k.GetFunctionName()) {
			sock, to := k.Args[0].GetSockArg(), k.Args[1].GetSockaddrArg()
			told = append(told, fmt.Sprintf("%s %s/%s %s:%d", strings.TrimPrefix(k.FunctionName, "security_socket_"), sock.Family, sock.Type, to.Addr, to.Port))
		}
	}
	want := []string{
		"connect AF_INET/SOCK_STREAM 127.0.0.1:1",
		"connect AF_INET6/SOCK_STREAM 2001:db8::1:2",
		"bind AF_INET/SOCK_DGRAM 127.0.0.1:0",
		"sendmsg AF_INET/SOCK_DGRAM 127.0.0.1:3",
		"bind AF_INET/SOCK_STREAM 0.0.0.0:0",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
}

func TestAuditPolicyIsOneAndGoesWithTheSensor(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-one", Node: "node"})
	if err := a.Add(t.Context(), auditPolicy("profile-learn-one", g)); err != nil {
		t.Fatal(err)
	}
	if err := a.Add(t.Context(), auditPolicy("profile-learn-two", g)); err == nil {
		t.Error("a second audit policy was taken")
	}
	if err := a.Add(t.Context(), auditPolicy("profile-learn-one", g)); err == nil {
		t.Error("a policy of a name that exists was taken")
	}
	if err := a.Delete(t.Context(), "profile-learn-one"); err != nil {
		t.Fatal(err)
	}
	if err := a.Delete(t.Context(), "profile-learn-one"); err == nil {
		t.Error("a policy was deleted twice")
	}
	if root := pinRoot(); root != "" {
		if _, err := os.Stat(filepath.Join(root, "sensor-test-one")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the pins stayed: %v", err)
		}
	}
}
