package sensor

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"profile/internal/cgroup/cgrouptest"
)

// AF_SMC: of the hooks that see it no socket is missed, and others do not claim
// to see it.
func TestSMCIsWatchedWhereTheHookSeesIt(t *testing.T) {
	needKernel(t)
	h, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	g := cgrouptest.Make(t)
	a := serve(t, Config{Name: "sensor-test-smc", Node: "node"})
	py := python(t)
	p := enforcingPolicy("profile-enforce-test", "enforce", g, py)
	p.Spec.KProbes[0].Selectors[0].MatchArgs[0].Values = []string{"2", "43"}
	if !slices.Contains(h.families, unix.AF_SMC) {
		if err := a.Add(t.Context(), p); err == nil {
			t.Errorf("hook %s took a policy on AF_SMC", h.name)
			t.Error(a.Delete(t.Context(), p.Metadata.Name))
		}
		return
	}
	open := "import socket; socket.socket(43, socket.SOCK_STREAM)"
	if err := run(t, g, py, "-c", open); err != nil {
		t.Skipf("this kernel has no AF_SMC sockets: %v", err)
	}
	upTo := collect(t, a)
	audit := auditPolicy("profile-learn-test", g)
	audit.Spec.KProbes[0].Selectors[0].MatchArgs[0].Values = []string{"2", "43"}
	if err := a.Add(t.Context(), audit); err != nil {
		t.Fatal(err)
	}
	if err := run(t, g, py, "-c", open); err != nil {
		t.Errorf("learning: %v", err)
	}
	told := sockets(upTo(exited(py)))
	if len(told) != 1 || told[0].Args[0].GetIntArg() != unix.AF_SMC {
		t.Errorf("told %v, want one socket of AF_SMC", told)
	}
	load(t, a, p)
	if err := run(t, g, py, "-c", open); !killed(err) {
		t.Errorf("%v, want it killed", err)
	}
	if k, _ := counters(t, a, p.Metadata.Name); k != 1 {
		t.Errorf("%d kills counted, want 1", k)
	}
	if refusedByCgroup(t, open) {
		t.Error("a program of a cgroup sees AF_SMC: cgroupHooks may claim it")
	}
	if !refusedByCgroup(t, openSocket) {
		t.Error("a program of a cgroup does not see AF_INET")
	}
}

// refusedByCgroup reports whether a program that refuses every socket which a
// cgroup program sees keeps code of Python from running.
func refusedByCgroup(t *testing.T, code string) bool {
	t.Helper()
	g := cgrouptest.Make(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSock, AttachType: ebpf.AttachCGroupInetSockCreate, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: g.Dir, Attach: ebpf.AttachCGroupInetSockCreate, Program: prog})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return run(t, g, python(t), "-c", code) != nil
}
