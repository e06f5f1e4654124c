package tetragon

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// listenEnv makes this test program one that listens at the address that it
// holds, until its input ends.
const listenEnv = "PROFILE_TEST_LISTEN"

func TestMain(m *testing.M) {
	address := os.Getenv(listenEnv)
	if address == "" {
		os.Exit(m.Run())
	}
	network := "tcp"
	if filepath.IsAbs(address) {
		network = "unix"
	}
	lis, err := net.Listen(network, address)
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("listening\n")
	io.Copy(io.Discard, os.Stdin)
	lis.Close()
}

// listens runs a program of a name that listens at an address, until it is
// stopped.
func listens(t *testing.T, name, address string) (stop func()) {
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
	cmd.Env = append(os.Environ(), listenEnv+"="+address)
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
	port := freePort(t)
	for _, c := range []struct {
		name, at  string   // where it listens
		addresses []string // by which it is reached
	}{
		{"at a socket", path, []string{"unix://" + path, "unix:" + path}},
		{"at a port of IPv4", "127.0.0.1:" + port, []string{"localhost:" + port, "127.0.0.1:" + port, "dns:///localhost:" + port}},
		{"at a port of all addresses", ":" + port, []string{"localhost:" + port, "[::1]:" + port}},
	} {
		t.Run(c.name, func(t *testing.T) {
			agent := &Agent{Address: c.addresses[0], Name: "tetragon"}
			if got := agent.Instance(); got != "" {
				t.Errorf("nobody listens, and it is %q", got)
			}
			stop := listens(t, "tetragon", c.at)
			first := agent.Instance()
			for _, address := range c.addresses {
				if got := (&Agent{Address: address}).Instance(); got == "" || got != first {
					t.Errorf("the same is %q, and by %s %q", first, address, got)
				}
			}
			stop()
			stop = listens(t, "tetragon", c.at)
			if second := agent.Instance(); second == "" || second == first {
				t.Errorf("it was restarted, and is %q, after %q", second, first)
			}
			stop()
			// What only passes the API on says nothing of the agent behind it.
			listens(t, "socat", c.at)
			if got := agent.Instance(); got != "" {
				t.Errorf("another program listens, and it is %q", got)
			}
		})
	}
}

// freePort is a port that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	_, port, err := net.SplitHostPort(lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestAnAgentOfAnotherHostIsNoInstance(t *testing.T) {
	port := freePort(t)
	listens(t, "tetragon", ":"+port)
	for _, address := range []string{"node7:" + port, "192.0.2.1:" + port, "localhost", "unix://"} {
		if got := (&Agent{Address: address}).Instance(); got != "" {
			t.Errorf("%s is %q", address, got)
		}
	}
}
