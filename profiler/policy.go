// Package profiler learns: it loads the audit policy of one session, folds the
// agent's events into evidence for each executable, and keeps account of when
// it was watching and what it lost. It judges nothing and enforces nothing; it
// knows the agent only through its API, and what it learns leaves only through
// package store.
package profiler

import (
	"slices"
	"strconv"

	"profile/internal/cgroup"
	"profile/internal/tetragon"
)

// PolicyName names the audit policy of a session; where it has several, their
// names begin with it.
func PolicyName(session string) string { return tetragon.LearnPrefix + session }

// AuditPolicy asks the embedded sensor for what one session learns from: each
// socket of the families that its hook sees and what is done with it, the
// resolved executable of each exec, and each fork. It has no enforcing action.
// Unless group is the root, it stays within the group.
func AuditPolicy(session string, agent *tetragon.Agent, group cgroup.Group) *tetragon.Policy {
	p := tetragon.NewPolicy(PolicyName(session))
	p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: tetragon.OptionDetails, Value: "true"})
	if slices.Contains(agent.Families, "vsock") {
		p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: tetragon.OptionVsock, Value: "true"})
	}
	if group.Path != "/" {
		p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: tetragon.OptionCgroup, Value: group.Path})
	}
	p.Spec.KProbes = []tetragon.KProbe{socketHook(agent), execHook(), forkHook()}
	for _, call := range agent.Uses {
		args := useArgs
		if call == tetragon.CallReceive {
			args = args[:1]
		}
		p.Spec.KProbes = append(p.Spec.KProbes, tetragon.KProbe{Call: call, Args: args})
	}
	return p
}

// ProcessPolicy asks a Tetragon for execs and forks. It stays as it is while
// the policies for sockets take each other's place: an exec that is told twice
// would be two.
func ProcessPolicy(session string) *tetragon.Policy {
	p := tetragon.NewPolicy(PolicyName(session))
	p.Spec.KProbes = []tetragon.KProbe{execHook(), forkHook()}
	p.Spec.KProbes[0].Data = []tetragon.Arg{pidNamespace}
	return p
}

// pidNamespace is asked for because a Tetragon names only containers whose
// cgroup has an ID for a name. The field is that of the process itself too,
// unless it has called unshare(2) and runs on in the old one: then it is taken
// for one of a container, and proves nothing of the host.
var pidNamespace = tetragon.Arg{
	Type: "uint32", Source: "current_task", Resolve: "nsproxy.pid_ns_for_children.ns.inum", Label: tetragon.LabelPIDNS,
}

// SocketPolicy asks a Tetragon for sockets, and for what they are used for as
// far as the agent's Uses go, but not for those of the executables whose paths
// are in except (FACTS 13). generation tells apart two that are loaded at a
// time; numbers come again after a while.
func SocketPolicy(session string, agent *tetragon.Agent, generation int, except []string) *tetragon.Policy {
	hooks, name := []tetragon.KProbe{socketHook(agent)}, PolicyName(session)+tetragon.SocketsSuffix
	for _, call := range agent.Uses {
		hooks = append(hooks, useHook(agent, call))
	}
	if len(except) > 0 { // an empty list matches nothing, or everything (FACTS 48)
		name = narrowedName(session, generation)
		for i := range hooks {
			hooks[i].Selectors[0].MatchBinaries = []tetragon.MatchBinaries{{Operator: "NotIn", Values: except}}
		}
	}
	p := tetragon.NewPolicy(name)
	p.Spec.KProbes = hooks
	return p
}

// useHook selects by the family of the socket, not of the address: what is
// connected to nscd or asks the kernel over netlink is no event, and an address
// of no family is one.
func useHook(agent *tetragon.Agent, call string) tetragon.KProbe {
	return tetragon.KProbe{
		Call: call,
		Args: useArgs,
		Selectors: []tetragon.Selector{{
			MatchArgs:    []tetragon.MatchArgs{{Index: 0, Operator: "Family", Values: familyNumbers(agent)}},
			MatchActions: []tetragon.MatchAction{{Action: "Post"}},
		}},
	}
}

var useArgs = []tetragon.Arg{{Index: 0, Type: "socket"}, {Index: 1, Type: "sockaddr"}}

// narrowedNames is how many names there are for the narrowed policies of a
// session. Events of one are long past when its name comes again.
const narrowedNames = 8

func narrowedName(session string, generation int) string {
	return PolicyName(session) + tetragon.NarrowedSuffix + strconv.Itoa(generation%narrowedNames)
}

func familyNumbers(agent *tetragon.Agent) []string {
	var families []string
	for _, name := range agent.Families {
		if number, ok := tetragon.FamilyNumber(name); ok {
			families = append(families, strconv.Itoa(int(number)))
		}
	}
	return families
}

func socketHook(agent *tetragon.Agent) tetragon.KProbe {
	return tetragon.KProbe{
		Call: tetragon.CallSocketCreate,
		Args: []tetragon.Arg{{Index: 0, Type: "int"}, {Index: 1, Type: "int"}, {Index: 2, Type: "int"}, {Index: 3, Type: "int"}},
		Selectors: []tetragon.Selector{{
			MatchArgs: []tetragon.MatchArgs{
				tetragon.MatchFamily(familyNumbers(agent)),
				{Index: 3, Operator: "Equal", Values: []string{"0"}}, // not for the kernel's own use
			},
			MatchActions: []tetragon.MatchAction{{Action: "Post"}},
		}},
	}
}

func execHook() tetragon.KProbe {
	return tetragon.KProbe{Call: tetragon.CallExec, Args: []tetragon.Arg{{Index: 0, Type: "linux_binprm"}}}
}

func forkHook() tetragon.KProbe {
	return tetragon.KProbe{
		Call: tetragon.CallFork,
		// The one argument twice: without btfType the agent would look for
		// a field of the number that "int" says (FACTS 44).
		Args: []tetragon.Arg{
			{Index: 0, Type: "int", BTFType: "task_struct", Resolve: "pid"},
			{Index: 0, Type: "int", BTFType: "task_struct", Resolve: "tgid"},
		},
	}
}

// ForkPolicy asks an agent whose kprobes cannot tell of forks for those of a
// tracepoint, beside the audit policy: kprobes and tracepoints do not go
// together in one. Threads are told as well (FACTS 44).
func ForkPolicy(session string) *tetragon.Policy {
	p := tetragon.NewPolicy(PolicyName(session) + tetragon.ForksSuffix)
	p.Spec.TracePoints = []tetragon.TracePoint{{
		Subsystem: tetragon.SubsystemSched, Event: tetragon.EventFork,
		Args: []tetragon.Arg{{Index: 5, Type: "int32"}, {Index: 7, Type: "int32"}},
	}}
	return p
}
