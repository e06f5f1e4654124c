package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// modifiesReturns reports whether this kernel takes fmod_ret programs, which
// see every family of sockets.
var modifiesReturns = sync.OnceValue(func() bool {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachModifyReturn, AttachTo: "security_socket_create", License: "GPL",
		Instructions: asm.Instructions{asm.LoadMem(asm.R0, asm.R1, 32, asm.DWord), asm.Return()}, // what was to be returned
	})
	if err != nil {
		return false
	}
	defer prog.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return false
	}
	l.Close()
	return true
})

// condition knows [fmod_ret], and of the agent that the scripts run against
// [embedded] and [tetragon].
func condition(cond string) (bool, error) {
	agent, err := against()
	switch cond {
	case "fmod_ret":
		return modifiesReturns(), nil
	case "embedded":
		return agent == nil, err
	case "tetragon":
		return agent != nil && agent.tetragon, err
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// loaded lists, by bpftool, every program, map and link of this kernel, and
// every bpffs that is mounted.
func loaded(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, kind := range []string{"prog", "map", "link"} {
		out, err := exec.Command("bpftool", "--json", kind, "list").Output()
		if err != nil {
			t.Fatalf("bpftool %s list: %v", kind, err)
		}
		var list []struct {
			ID   int
			Type string
			Name string
		}
		if err := json.Unmarshal(out, &list); err != nil {
			t.Fatalf("bpftool %s list: %v", kind, err)
		}
		for _, x := range list {
			all = append(all, fmt.Sprintf("%s %d %s %s", kind, x.ID, x.Type, x.Name))
		}
	}
	mounts, err := exec.Command("cat", "/proc/mounts").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "bpf" {
			all = append(all, "mount "+f[1])
		}
	}
	return all
}

// assertSame fails if what is loaded was not before. The kernel frees programs
// some time after their last user has gone, so it is asked again.
func assertSame(t *testing.T, before []string, loaded func(*testing.T) []string) {
	t.Helper()
	var left []string
	for range 30 {
		left = slices.DeleteFunc(loaded(t), func(x string) bool { return slices.Contains(before, x) })
		if len(left) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("left loaded:\n%s", strings.Join(left, "\n"))
}
