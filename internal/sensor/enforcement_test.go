package sensor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	tapi "github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"

	"profile/internal/cgroup/cgrouptest"
	"profile/internal/tetragon"
)

func TestEnforcementKillsTheListedAlone(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
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

// load adds an enforcing policy that the test takes off again.
func load(t *testing.T, a *tetragon.Agent, p *tetragon.Policy) {
	t.Helper()
	if err := a.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Delete(context.Background(), p.Metadata.Name); err != nil && !strings.Contains(err.Error(), "is not loaded") {
			t.Error(err)
		}
	})
}

func counters(t *testing.T, a *tetragon.Agent, name string) (killed, would uint64) {
	t.Helper()
	st, err := a.Policy(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	c := st.GetStats().GetActionCounters()
	return c.GetSignal(), c.GetMonitorSignal()
}

func python(t *testing.T) string {
	t.Helper()
	path, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const openSocket = "import socket; socket.socket()"

func TestMonitorCountsAndKillsNothingUntilConfigured(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-monitor", Node: "node"})
	py, name := python(t), "profile-enforce-test"
	load(t, a, enforcingPolicy(name, "monitor", g, py))
	if err := run(t, g, py, "-c", openSocket); err != nil {
		t.Errorf("in monitor: %v", err)
	}
	if k, w := counters(t, a, name); k != 0 || w != 1 {
		t.Errorf("in monitor %d kills and %d would-be kills, want 0 and 1", k, w)
	}
	mode := tapi.TracingPolicyMode_TP_MODE_ENFORCE
	if _, err := a.Client.ConfigureTracingPolicy(t.Context(), &tapi.ConfigureTracingPolicyRequest{Name: name, Mode: &mode}); err != nil {
		t.Fatal(err)
	}
	if err := run(t, g, py, "-c", openSocket); !killed(err) {
		t.Errorf("enforcing: %v, want it killed", err)
	}
	if k, w := counters(t, a, name); k != 1 || w != 1 {
		t.Errorf("%d kills and %d would-be kills, want 1 and 1", k, w)
	}
}

func TestEnforcementReachesForksThreadsAndWhatRanBefore(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	py := python(t)
	before := startIn(t, g, py, "-c", `import socket,sys
print("up", flush=True); sys.stdin.readline(); socket.socket(); print("alive", flush=True)`)
	before.line(t)
	a := serve(t, Config{Name: "sensor-test-reach", Node: "node"})
	load(t, a, enforcingPolicy("profile-enforce-test", "enforce", g, py))
	before.send(t)
	if err := before.wait(); !killed(err) {
		t.Errorf("a process from before the policy: %v, want it killed", err)
	}
	for name, code := range map[string]string{
		"a thread":       "import threading,socket,time; threading.Thread(target=socket.socket).start(); time.sleep(5)",
		"a forked child": "import os,socket,sys\npid=os.fork()\nif pid==0: socket.socket(); os._exit(0)\nsys.exit(0 if os.waitpid(pid,0)[1]==9 else 1)",
		"IPv6":           "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
		"raw":            "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
	} {
		err := run(t, g, py, "-c", code)
		if name == "a forked child" {
			if err != nil {
				t.Errorf("%s lived, or its parent died with it: %v", name, err)
			}
			continue
		}
		if !killed(err) {
			t.Errorf("%s: %v, want it killed", name, err)
		}
	}
	if err := run(t, g, py, "-c", "import socket; socket.socket(socket.AF_UNIX); socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"); err != nil {
		t.Errorf("AF_UNIX and AF_NETLINK: %v, want them left alone", err)
	}
}

// The kernel may have no room, or no time, to note what a process has become at
// its exec: before Linux 6.2 another program that was interrupted on the same
// processor is enough. What it was before is no word on what it is.
func TestVerdictOfAnotherImageIsNone(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	cfg := Config{Name: "sensor-test-image", Node: "node"}
	py := python(t)
	opens := []string{py, "-c", openSocket}
	a := serve(t, cfg)
	load(t, a, enforcingPolicy("profile-enforce-test", "enforce", g, py))
	// Each has a verdict of its own when nothing is noted any more.
	unlisted := startIn(t, g, "/bin/sh", append([]string{"-c", `echo up; read go; exec "$@"`, "sh"}, opens...)...)
	listed := startIn(t, g, py, "-c", `import os,sys; print("up", flush=True); sys.stdin.readline(); os.execv(sys.argv[1], sys.argv[1:])`,
		"/usr/bin/curl", "-s", "http://127.0.0.1:1/")
	unlisted.line(t)
	listed.line(t)
	hook, err := link.LoadPinnedLink(filepath.Join(pinRoot(), cfg.Name, "0", pinLink+"enforce_exec"), nil)
	if err == nil {
		err = errors.Join(hook.Unpin(), hook.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	unlisted.send(t)
	if err := unlisted.wait(); !killed(err) {
		t.Errorf("an unlisted program that became a listed one: %v, want it killed", err)
	}
	listed.send(t)
	if err := listed.wait(); killed(err) {
		t.Error("a listed program that became an unlisted one was killed")
	}
}

// The name at exec counts: FACTS 47.
func TestEnforcementGoesByTheNameAtExec(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	dir := t.TempDir()
	listed, other := filepath.Join(dir, "listed"), filepath.Join(dir, "other")
	copyFile(t, "/usr/bin/nc.openbsd", listed)
	a := serve(t, Config{Name: "sensor-test-name", Node: "node"})
	load(t, a, enforcingPolicy("profile-enforce-test", "enforce", g, listed))
	dial := []string{"-z", "127.0.0.1", "1"}
	if err := os.Symlink(listed, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := run(t, g, filepath.Join(dir, "link"), dial...); !killed(err) {
		t.Errorf("by a symlink: %v, want it killed", err)
	}
	if err := os.Link(listed, filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := run(t, g, filepath.Join(dir, "hard"), dial...); killed(err) {
		t.Error("by a hard link of another name: it was killed")
	}
	if err := os.Rename(listed, other); err != nil {
		t.Fatal(err)
	}
	if err := run(t, g, other, dial...); killed(err) {
		t.Error("renamed: it was killed under a name that is not listed")
	}
}

func TestEnforcementComparesInFourWays(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	dir := t.TempDir()
	inside, outside := filepath.Join(dir, "in", "nc"), filepath.Join(dir, "out", "nc")
	for _, path := range []string{inside, outside} {
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		copyFile(t, "/usr/bin/nc.openbsd", path)
	}
	a := serve(t, Config{Name: "sensor-test-ways", Node: "node"})
	for _, tc := range []struct {
		op, value       string
		inside, outside bool
	}{
		{"In", inside, true, false},
		{"NotIn", inside, false, true},
		{"Prefix", filepath.Dir(inside) + "/", true, false},
		{"Prefix", dir + "/o", false, true},
		{"NotPrefix", filepath.Dir(inside) + "/", false, true},
	} {
		p := enforcingPolicy("profile-enforce-test", "enforce", g, tc.value)
		p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Operator = tc.op
		if err := a.Add(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]bool{inside: tc.inside, outside: tc.outside} {
			if got := killed(run(t, g, path, "-z", "127.0.0.1", "1")); got != want {
				t.Errorf("%s %s: %s killed is %v, want %v", tc.op, tc.value, path, got, want)
			}
		}
		if k, _ := counters(t, a, p.Metadata.Name); k != 1 {
			t.Errorf("%s %s: %d kills counted, want 1", tc.op, tc.value, k)
		}
		if err := a.Delete(t.Context(), p.Metadata.Name); err != nil {
			t.Fatal(err)
		}
	}
}

// Packet sockets, raw ones and AF_XDP, on whichever hook this kernel takes.
func TestEnforcementReachesPacketSockets(t *testing.T) {
	needKernel(t)
	h, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(h.families, unix.AF_PACKET) {
		t.Fatalf("hook %s sees no packet sockets", h.name)
	}
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-packet", Node: "node"})
	py, name := python(t), "profile-enforce-test"
	p := enforcingPolicy(name, "enforce", g, py)
	p.Spec.KProbes[0].Selectors[0].MatchArgs[0].Values = []string{"2", "10", "17", "44"}
	load(t, a, p)
	for kind, code := range map[string]string{
		"packet": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
		"xdp":    "import socket; socket.socket(44, socket.SOCK_RAW, 0)",
		"raw":    "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
	} {
		if err := run(t, g, py, "-c", code); !killed(err) {
			t.Errorf("%s: %v, want it killed", kind, err)
		}
	}
	if k, _ := counters(t, a, name); k != 3 {
		t.Errorf("%d kills counted of 3 sockets", k)
	}
}

func TestVsockIsWatchedWhereItIsAskedFor(t *testing.T) {
	needKernel(t)
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-vsock", Node: "node"})
	py := python(t)
	p := enforcingPolicy("profile-enforce-test", "enforce", g, py)
	p.Spec.KProbes[0].Selectors[0].MatchArgs[0].Values = []string{"2", "40"}
	h, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add(t.Context(), p); (err == nil) != slices.Contains(h.families, unix.AF_VSOCK) {
		t.Errorf("hook %s, asked for AF_VSOCK without the option: %v", h.name, err)
		if err == nil {
			t.Fatal(a.Delete(t.Context(), p.Metadata.Name))
		}
	}
	p.Metadata.Name += "-2"
	p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: tetragon.OptionVsock, Value: "true"})
	load(t, a, p)
	open := "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)"
	if err := run(t, g, py, "-c", open); !killed(err) {
		t.Errorf("%v, want it killed", err)
	}
	if err := run(t, g, py, "-c", "import os; os.dup(1)"); err != nil {
		t.Errorf("other system calls: %v", err)
	}
}

// A kernel on which no hook that refuses can kill: the socket is refused.
func TestEnforcementRefusesWhereItCannotKill(t *testing.T) {
	needKernel(t)
	if err := loads("observe_socket"); err != nil {
		t.Logf("a cgroup program cannot be tried on this kernel: %v", err)
		return
	}
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-deny", Node: "node", probe: func() (hooks, error) { return cgroupHooks(false, false, true), nil }})
	py, name := python(t), "profile-enforce-test"
	load(t, a, enforcingPolicy(name, "enforce", g, py))
	refused := "import socket,sys\ntry: socket.socket()\nexcept PermissionError: sys.exit(0)\nsys.exit(1)"
	if err := run(t, g, py, "-c", refused); err != nil {
		t.Errorf("%v, want the socket refused and the program alive", err)
	}
	if k, _ := counters(t, a, name); k != 1 {
		t.Errorf("%d refusals counted, want 1", k)
	}
}

// A kernel that takes fmod_ret and has no kprobes.
func TestEnforcementKillsWithoutKprobes(t *testing.T) {
	needKernel(t)
	h, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	if h.cgroup {
		t.Logf("this kernel takes %s, to which kprobes make no difference", h.name)
		return
	}
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-fentry", Node: "node", probe: func() (hooks, error) { return createHooks(false), nil }})
	py, name := python(t), "profile-enforce-test"
	load(t, a, enforcingPolicy(name, "enforce", g, py))
	if err := run(t, g, py, "-c", openSocket); !killed(err) {
		t.Errorf("%v, want it killed", err)
	}
	if k, _ := counters(t, a, name); k != 1 {
		t.Errorf("%d kills counted, want 1", k)
	}
}
