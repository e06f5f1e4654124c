package sensor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"profile/internal/tetragon"
)

// hooks are what this kernel takes: which programs see and refuse sockets, and
// so which families are seen.
type hooks struct {
	name     string // as sessions record it
	families []int32
	observe  []string // programs that see sockets, the cgroup's left out
	enforce  []string
	cgroup   bool // cgroup/sock_create is among them
	kill     bool // what refuses can kill as well

	// uses are programs that see what sockets are used for, and their place in
	// a cgroup, AttachNone for tracing programs. handed says that they see
	// sending and receiving on sockets that another has opened.
	uses   map[string]ebpf.AttachType
	handed bool
}

const (
	hookCreate = "fmod_ret/security_socket_create"
	hookCgroup = "cgroup/sock_create"
	hookRaw    = "tp_btf/cap_capable"
	hookEnter  = "tp_btf/sys_enter"
)

// createHooks see every family, and refuse and kill. kprobes says that this
// kernel has them: then a kprobe kills, which is never preempted, else fentry.
func createHooks(kprobes bool) hooks {
	kill := "enforce_kill"
	if !kprobes {
		kill = "enforce_kill_fentry"
	}
	return hooks{
		name:     hookCreate,
		families: []int32{unix.AF_INET, unix.AF_INET6, unix.AF_PACKET, unix.AF_VSOCK, unix.AF_XDP, unix.AF_SMC},
		observe:  []string{"observe_create"}, enforce: []string{kill, "enforce_create"}, kill: true,
		uses: map[string]ebpf.AttachType{
			"observe_connect": ebpf.AttachNone, "observe_bind": ebpf.AttachNone,
			"observe_send": ebpf.AttachNone, "observe_receive": ebpf.AttachNone},
		handed: true,
	}
}

// cgroupHooks see AF_INET and AF_INET6; raw says that CAP_NET_RAW is seen
// beside them, and with it AF_PACKET and AF_XDP, and handed that sending and
// receiving are.
func cgroupHooks(kill, raw, handed bool) hooks {
	h := hooks{name: hookCgroup, families: []int32{unix.AF_INET, unix.AF_INET6}, cgroup: true, kill: kill,
		uses: map[string]ebpf.AttachType{
			"observe_connect4": ebpf.AttachCGroupInet4Connect, "observe_connect6": ebpf.AttachCGroupInet6Connect,
			"observe_bind4": ebpf.AttachCGroupInet4Bind, "observe_bind6": ebpf.AttachCGroupInet6Bind,
			"observe_sendmsg4": ebpf.AttachCGroupUDP4Sendmsg, "observe_sendmsg6": ebpf.AttachCGroupUDP6Sendmsg,
		}}
	if raw {
		h.name += " " + hookRaw
		h.families = append(h.families, unix.AF_PACKET, unix.AF_XDP)
		h.observe, h.enforce = []string{"observe_raw"}, []string{"enforce_raw"}
	}
	if h.handed = handed; handed {
		h.uses["observe_sent"], h.uses["observe_received"] = ebpf.AttachNone, ebpf.AttachNone
	}
	return h
}

// calls are the hooks that tell what a socket is used for, as an agent names them.
func (h hooks) calls() []string {
	calls := []string{tetragon.CallConnect, tetragon.CallBind, tetragon.CallSend}
	if h.handed {
		calls = append(calls, tetragon.CallReceive)
	}
	return calls
}

// seeing is the hooks with which all of the families are seen: AF_VSOCK, where
// the others do not see it, takes one on every system call.
func (h hooks) seeing(families []int32) hooks {
	if !slices.Contains(families, unix.AF_VSOCK) || slices.Contains(h.families, unix.AF_VSOCK) {
		return h
	}
	h.name += " " + hookEnter
	h.families = append(slices.Clone(h.families), unix.AF_VSOCK)
	h.observe = append(slices.Clone(h.observe), "observe_vsock")
	h.enforce = append(slices.Clone(h.enforce), "enforce_vsock")
	return h
}

// probe finds out by loading what this kernel takes: versions do not tell
// (FACTS 23). It does so once.
var probe = sync.OnceValues(func() (hooks, error) {
	if err := mayLoad(); err != nil {
		return hooks{}, err
	}
	if attaches("probe_create") == nil {
		return createHooks(attaches("probe_kprobe") == nil), nil
	}
	killErr := loads("probe_kill")
	err := loads("observe_socket")
	if err != nil && (errors.Is(err, fs.ErrPermission) || !inFirstUserNamespace()) {
		return hooks{}, fmt.Errorf("this process may not load BPF programs: root may not in a user namespace, as a rootless container has, nor where an LSM forbids it: %w", err)
	}
	if err != nil {
		return hooks{}, fmt.Errorf("this kernel takes neither %s nor %s: %w", hookCreate, hookCgroup, err)
	}
	return cgroupHooks(killErr == nil, attaches("probe_raw") == nil, attaches("probe_received") == nil), nil
})

// lockdownFile says how far the kernel is locked down, where securityfs is mounted.
const lockdownFile = "/sys/kernel/security/lockdown"

// mayLoad says what keeps this process from loading any program. The kernel's
// own word for it would be a helper that it does not know, or a limit.
func mayLoad() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("ask for the capabilities of this process: %w", err)
	}
	if sets[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return fmt.Errorf("this takes the capability CAP_SYS_ADMIN, which this process does not have; a container has it that is privileged: %w", fs.ErrPermission)
	}
	if state, err := os.ReadFile(lockdownFile); err == nil && bytes.Contains(state, []byte("[confidentiality]")) {
		return fmt.Errorf("this kernel is locked down to confidentiality (%s), so that no BPF program may read what it has of a process: boot it with lockdown=integrity", lockdownFile)
	}
	return nil
}

// firstUserNamespace is the kernel's PROC_USER_INIT_INO.
const firstUserNamespace = "user:[4026531837]"

// inFirstUserNamespace is true as well where that cannot be told. In another one
// older kernels do not say that something is forbidden: they look at what a map
// is to be before they look at who asks for it (6.12; not 6.18).
func inFirstUserNamespace() bool {
	name, err := os.Readlink("/proc/self/ns/user")
	return err != nil || name == firstUserNamespace
}

// loads tries to load one program.
func loads(name string) error {
	coll, err := loadOne(name)
	if err != nil {
		return err
	}
	coll.Close()
	return nil
}

// attaches tries to load and attach one program.
func attaches(name string) error {
	coll, err := loadOne(name)
	if err != nil {
		return err
	}
	defer coll.Close()
	l, err := attachProgram(coll.Programs[name])
	if err != nil {
		return err
	}
	return l.Close()
}

// attachProgram attaches a program to what it was written for; a kprobe does not
// know that by itself.
func attachProgram(p *ebpf.Program) (link.Link, error) {
	if p.Type() == ebpf.Kprobe {
		return link.Kprobe(tetragon.CallSocketCreate, p, nil)
	}
	return link.AttachTracing(link.TracingOptions{Program: p})
}

func loadOne(name string) (*ebpf.Collection, error) {
	spec, err := loadObject()
	if err != nil {
		return nil, err
	}
	subset(spec, []string{name}, []string{"lists", "prefixes", "scopes", "epoch", "walks", "events", "delivered", "told", ".bss"})
	return loadCollection(spec, nil)
}
