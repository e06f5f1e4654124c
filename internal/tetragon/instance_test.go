package tetragon

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// listenEnv makes this test program one that listens at the path that it holds,
// until its input ends.
const listenEnv = "PROFILE_TEST_LISTEN"

func TestMain(m *testing.M) {
	path := os.Getenv(listenEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	lis, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("listening\n")
	io.Copy(io.Discard, os.Stdin)
	lis.Close()
}

// listens runs a program of a name that listens at a path, until it is stopped.
func listens(t *testing.T, name, path string) (stop func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), listenEnv+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return stop
}

func TestARestartedAgentIsAnotherInstance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	agent := &Agent{Address: "unix://" + path, Name: "tetragon"}
	if got := agent.Instance(); got != "" {
		t.Errorf("nobody listens, and it is %q", got)
	}
	stop := listens(t, "tetragon", path)
	first := agent.Instance()
	if first == "" || agent.Instance() != first || (&Agent{Address: "unix:" + path}).Instance() != first {
		t.Errorf("the same is %q, and then %q", first, agent.Instance())
	}
	stop()
	stop = listens(t, "tetragon", path)
	if second := agent.Instance(); second == "" || second == first {
		t.Errorf("it was restarted, and is %q, after %q", second, first)
	}
	stop()
	// What only passes the API on says nothing of the agent behind it.
	listens(t, "socat", path)
	if got := agent.Instance(); got != "" {
		t.Errorf("another program listens, and it is %q", got)
	}
}

func TestAnAgentAtAPortIsNoInstance(t *testing.T) {
	if got := (&Agent{Address: "localhost:54321"}).Instance(); got != "" {
		t.Errorf("it is %q", got)
	}
}
