package sensor

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	tapi "github.com/cilium/tetragon/api/v1/tetragon"

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

// serve runs a sensor in process and connects to it as any client does.
func serve(t *testing.T, cfg Config) *tetragon.Agent {
	t.Helper()
	conn := NewServer(cfg).Local()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
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

// child is a program that a test talks to by lines.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startIn starts a program inside a cgroup. It is killed with the test.
func startIn(t *testing.T, g cgroup.Group, name string, args ...string) *child {
	t.Helper()
	dir, err := os.Open(g.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c := &child{cmd: exec.Command(name, args...)}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	return c
}

func (c *child) line(t *testing.T) {
	t.Helper()
	if _, err := c.out.ReadString('\n'); err != nil {
		t.Fatalf("the child said nothing: %v", err)
	}
}

func (c *child) send(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(c.in, "go\n"); err != nil {
		t.Fatal(err)
	}
}

// step has the child do its work once.
func (c *child) step(t *testing.T) {
	t.Helper()
	c.send(t)
	c.line(t)
}

func (c *child) wait() error { return c.cmd.Wait() }

// stop ends the child's input, and waits for its end.
func (c *child) stop() {
	c.in.Close()
	c.cmd.Wait()
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	for range 500 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s did not appear", path)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, 0o755); err != nil {
		t.Fatal(err)
	}
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
	events, ended := make(chan *tapi.GetEventsResponse), make(chan error, 1)
	go func() {
		ended <- stream.Each(func(ev *tapi.GetEventsResponse) error {
			select {
			case events <- ev:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return func(stop func(*tapi.GetEventsResponse) bool) []*tapi.GetEventsResponse {
		t.Helper()
		var all []*tapi.GetEventsResponse
		for {
			select {
			case ev := <-events:
				if all = append(all, ev); stop(ev) {
					return all
				}
			case err := <-ended:
				ended <- err
				t.Fatalf("after %d events: %v", len(all), err)
			}
		}
	}
}
