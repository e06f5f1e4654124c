package sensor

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	tapi "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"profile/internal/cgroup"
	"profile/internal/tetragon"
)

// needKernel says what a test on the real kernel needs. In CI it is there.
func needKernel(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root: it loads eBPF programs")
	}
}

// confine makes a cgroup for one test, and removes it with it.
func confine(t *testing.T) cgroup.Group {
	t.Helper()
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root.Dir, "profile-test-"+strings.ReplaceAll(strings.ToLower(t.Name()), "/", "-"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove the test's cgroup: %v", err)
		}
	})
	g, err := cgroup.Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// serve runs a sensor in process and connects to it as any client does.
func serve(t *testing.T, cfg Config) *tetragon.Agent {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(cfg).Serve(ctx, lis) }()
	conn, err := grpc.NewClient("passthrough:///sensor", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	a, err := tetragon.Connect(context.Background(), tetragon.Embedded, conn, conn.Close)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// run starts a program inside a cgroup and waits for it.
func run(t *testing.T, g cgroup.Group, name string, args ...string) error {
	t.Helper()
	dir, err := os.Open(g.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd.Run()
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	ws := exit.Sys().(syscall.WaitStatus)
	return ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

func auditPolicy(name string, g cgroup.Group) *tetragon.Policy {
	p := tetragon.NewPolicy(name)
	p.Spec.Options = []tetragon.Option{{Name: tetragon.OptionDetails, Value: "true"}, {Name: tetragon.OptionCgroup, Value: g.Path}}
	p.Spec.KProbes = []tetragon.KProbe{
		{Call: tetragon.CallSocketCreate, Args: socketArgs, Selectors: []tetragon.Selector{{MatchArgs: []tetragon.MatchArgs{
			{Index: 0, Operator: "Equal", Values: []string{"2", "10"}}, {Index: 3, Operator: "Equal", Values: []string{"0"}}}}}},
		{Call: tetragon.CallExec, Args: execArgs},
		{Call: tetragon.CallFork, Args: []tetragon.Arg{
			{Index: 0, Type: "int", BTFType: "task_struct", Resolve: "pid"}, {Index: 0, Type: "int", BTFType: "task_struct", Resolve: "tgid"}}},
	}
	return p
}

func enforcingPolicy(name, mode string, g cgroup.Group, paths ...string) *tetragon.Policy {
	p := tetragon.NewPolicy(name)
	p.Spec.Options = []tetragon.Option{{Name: tetragon.OptionMode, Value: mode}, {Name: tetragon.OptionCgroup, Value: g.Path}}
	p.Spec.KProbes = []tetragon.KProbe{{Call: tetragon.CallSocketCreate, Args: socketArgs, Selectors: []tetragon.Selector{{
		MatchBinaries:   []tetragon.MatchBinaries{{Operator: "In", Values: paths}},
		MatchNamespaces: []tetragon.MatchNamespaces{{Namespace: "Pid", Operator: "In", Values: []string{"host_ns"}}},
		MatchArgs: []tetragon.MatchArgs{
			{Index: 0, Operator: "Equal", Values: []string{"2", "10"}}, {Index: 3, Operator: "Equal", Values: []string{"0"}}},
		MatchActions: []tetragon.MatchAction{{Action: "Sigkill"}},
	}}}}
	return p
}

// collect subscribes and returns a function that gives what has come when an
// event that stop accepts has.
func collect(t *testing.T, a *tetragon.Agent) func(stop func(*tapi.GetEventsResponse) bool) []*tapi.GetEventsResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	stream, err := a.Subscribe(ctx, &tapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return func(stop func(*tapi.GetEventsResponse) bool) []*tapi.GetEventsResponse {
		t.Helper()
		var all []*tapi.GetEventsResponse
		enough := errors.New("enough")
		err := stream.Each(func(ev *tapi.GetEventsResponse) error {
			all = append(all, ev)
			if stop(ev) {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatalf("after %d events: %v", len(all), err)
		}
		return all
	}
}

func TestAuditTellsExecForkSocketAndExit(t *testing.T) {
	needKernel(t)
	g := confine(t)
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
		"wake_up_new_task", // of this test, which is outside the cgroup
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

func TestEnforcementKillsTheListedAlone(t *testing.T) {
	needKernel(t)
	g := confine(t)
	a := serve(t, Config{Name: "sensor-test-enforce", Node: "node"})
	name := "profile-enforce-test"
	if err := a.Add(t.Context(), enforcingPolicy(name, "enforce", g, "/usr/bin/curl")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Delete(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	if err := run(t, g, "/usr/bin/curl", "-s", "http://127.0.0.1:1/"); !killed(err) {
		t.Errorf("curl opening a socket: %v, want it killed", err)
	}
	if err := run(t, g, "/usr/bin/curl", "-s", "file:///etc/hostname"); err != nil {
		t.Errorf("curl opening no socket: %v", err)
	}
	if err := exec.Command("/usr/bin/curl", "-s", "http://127.0.0.1:1/").Run(); killed(err) {
		t.Error("curl outside the cgroup was killed")
	}
	st, err := a.Policy(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if n := st.GetStats().GetActionCounters().GetSignal(); n != 1 {
		t.Errorf("%d kills counted, want 1", n)
	}
}
