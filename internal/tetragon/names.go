package tetragon

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Hooks of the policies that this project writes.
const (
	CallSocketCreate = "security_socket_create"         // args: family, type, protocol, kern
	CallExec         = "security_bprm_committing_creds" // arg 0: linux_binprm
	CallFork         = "wake_up_new_task"               // arg 0 twice: pid, then tgid of the new task

	// What a socket is used for, by whoever opened it: args 0 (socket: family,
	// type and protocol) and 1 (sockaddr). The embedded sensor and a Tetragon
	// tell it alike.
	CallConnect = "security_socket_connect"
	CallBind    = "security_socket_bind"
	// CallSend has them where an address goes with what is sent. Without one it
	// is told, as CallReceive is, by an embedded sensor that has CallReceive,
	// once for each family and type of which the process was handed a socket
	// and opened none: arg 0 alone, with the address of the peer.
	CallSend    = "security_socket_sendmsg"
	CallReceive = "security_socket_recvmsg"

	// CallLeave is no hook that a policy asks for: with OptionCgroup and
	// OptionDetails the embedded sensor tells by it that a process has left
	// the cgroup, so that what it does is seen no more.
	CallLeave = "cgroup_attach_task"
	// CallLapse is none either: with OptionDetails the embedded sensor tells by
	// it that an enforcing policy of the same database acts no more, so that what
	// came with LabelListed since LabelSince may not have been listed.
	CallLapse = "profile_policy_lapsed"
)

// The tracepoint that tells of forks where CallFork cannot, and how the name
// of the policy that has it beside an audit policy ends. Its arguments are the
// pids of the parent and of the new task, which may be a thread (FACTS 44).
const (
	SubsystemSched = "sched"
	EventFork      = "sched_process_fork"
	ForksSuffix    = "-forks"
)

// Ends of the names of the policies that have the socket hook of a learner at
// a Tetragon. The second, before a number, is of those that leave out some
// executables: what they do not tell did not have to be silent.
const (
	SocketsSuffix  = "-sockets"
	NarrowedSuffix = "-narrowed-"
)

// Options of a policy. OptionMode is Tetragon's own (since v1.4); the others
// are ours, known to the embedded sensor alone, and refused by Agent.Add
// before they reach any other agent.
const (
	OptionMode    = "policy-mode"     // monitor or enforce
	OptionCgroup  = "profile-cgroup"  // act only on processes in this cgroup2 subtree; absolute within the hierarchy
	OptionVsock   = "profile-vsock"   // "true": watch AF_VSOCK too, where that takes a hook on every system call
	OptionDetails = "profile-details" // "true": events carry the data labels below
)

// Labels of the data (ProcessKprobe.data) that the embedded sensor adds to the
// events of a policy with OptionDetails.
const (
	// LabelFile, on CallExec: string, "dev:ino:size:ctime_ns" in decimal, of the resolved file.
	LabelFile = "profile-file"
	// LabelScript, on CallExec: int 1, the name executed is a script and the path its interpreter.
	LabelScript = "profile-script"
	// LabelPath, on CallExec and every socket's call: bytes, the resolved path
	// whole; on CallExec only where it is not UTF-8.
	LabelPath = "profile-path"
	// LabelBinary, on CallExec: bytes, the name as executed, only where it is not UTF-8.
	LabelBinary = "profile-binary"
	// LabelUnnameable, on CallExec: string, why no path names the executable (a memfd, a detached mount).
	LabelUnnameable = "profile-unnameable"
	// LabelListed, on every socket's call: string, the stage (monitor or enforce)
	// of the generation in force that acts on this very process.
	LabelListed = "profile-listed"
	// LabelWhy and LabelSince, on CallLapse: string, in plain words; long,
	// nanoseconds since 1970.
	LabelWhy   = "profile-why"
	LabelSince = "profile-since"
	// LabelPIDNS, on CallExec, from a Tetragon: uint32, the inode number of the
	// pid namespace of the process, and of what it forks.
	LabelPIDNS = "profile-pidns"
	// LabelHeld, on CallSocketCreate: int 1, the socket was already open when the policy was loaded.
	LabelHeld = "profile-held"
)

// Prefixes of the names of our policies.
const (
	LearnPrefix   = "profile-learn-"
	EnforcePrefix = "profile-enforce-"
	// BrokenPrefix begins the names by which the embedded sensor lists what is
	// left of an enforcing policy that no longer tells its own.
	BrokenPrefix = EnforcePrefix + "broken-"
)

var families = []struct {
	number int32
	name   string
}{
	{unix.AF_INET, "inet"},
	{unix.AF_INET6, "inet6"},
	{unix.AF_PACKET, "packet"},
	{unix.AF_VSOCK, "vsock"},
	{unix.AF_XDP, "xdp"},
	{unix.AF_SMC, "smc"}, // TCP, where the other end does not speak SMC
}

var types = map[int32]string{
	0:                   "unknown", // where only a check of CAP_NET_RAW was seen
	unix.SOCK_STREAM:    "stream",
	unix.SOCK_DGRAM:     "dgram",
	unix.SOCK_RAW:       "raw",
	unix.SOCK_RDM:       "rdm",
	unix.SOCK_SEQPACKET: "seqpacket",
	unix.SOCK_DCCP:      "dccp",
	unix.SOCK_PACKET:    "packet",
}

// NetworkFamilies names every socket family that counts as network, in the
// order in which they are printed.
func NetworkFamilies() []string {
	names := make([]string, len(families))
	for i, f := range families {
		names[i] = f.name
	}
	return names
}

// FamilyName names a socket family; one without a name is its number.
func FamilyName(number int32) string {
	for _, f := range families {
		if f.number == number {
			return f.name
		}
	}
	return strconv.Itoa(int(number))
}

// FamilyNumber is the number of a family of NetworkFamilies.
func FamilyNumber(name string) (int32, bool) {
	for _, f := range families {
		if f.name == name {
			return f.number, true
		}
	}
	return 0, false
}

// TypeName names a socket type; flags such as SOCK_CLOEXEC are not part of it.
func TypeName(number int32) string {
	const mask = 0xf // SOCK_TYPE_MASK of linux/net.h
	if name, ok := types[number&mask]; ok {
		return name
	}
	return strconv.Itoa(int(number & mask))
}

// TypeNumber is the number of a type that TypeName names.
func TypeNumber(name string) (int32, bool) {
	for number, n := range types {
		if n == name {
			return number, true
		}
	}
	return 0, false
}

// SockFamilyName is a socket family as an agent names it in a sock argument:
// AF_INET and so on.
func SockFamilyName(number int32) string { return "AF_" + strings.ToUpper(FamilyName(number)) }

// SockTypeName is a socket type as an agent names it in a sock argument:
// SOCK_STREAM and so on.
func SockTypeName(number int32) string { return "SOCK_" + strings.ToUpper(TypeName(number)) }

// FromSock gives family and type of a sock argument, such as AF_INET and
// SOCK_STREAM, under our names for them. The family may be none of
// NetworkFamilies.
func FromSock(family, typ string) (string, string) {
	return strings.ToLower(strings.TrimPrefix(family, "AF_")), strings.ToLower(strings.TrimPrefix(typ, "SOCK_"))
}
