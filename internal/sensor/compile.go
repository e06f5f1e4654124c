package sensor

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/internal/sensor/bpf"
	"profile/internal/tetragon"
)

const (
	maxPath = 255  // bytes of a path in matchBinaries, as in a real agent (FACTS 3)
	maxName = 253  // of a policy
	maxMeta = 8192 // bytes of what is kept beside the pins of a policy
)

// Policy is a TracingPolicy as the sensor understood it, whole: what it cannot
// do has been refused.
type Policy struct {
	Name     string
	Cgroup   string // absolute in the hierarchy; "/" is the whole machine
	Families []int32
	Details  bool
	vsock    bool // AF_VSOCK may be among them whatever it costs

	// Of an audit policy: the hooks that give events.
	Sockets, Execs, Forks  bool
	Connects, Binds, Sends bool
	Receives               bool

	// Paths, or prefixes of them, and how they are compared; none is no
	// comparison, for an audit policy alone.
	Op    bpf.SensorMatchOp
	Paths []string

	// Of an enforcing policy.
	Enforcing bool
	Monitor   bool
	HostOnly  bool
}

// refusal is an InvalidArgument that names the field.
func refusal(field, format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, "%s: %s", field, fmt.Sprintf(format, args...))
}

var policyName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// compile reads a policy for an agent whose socket hook sees the families
// given. Every error is an InvalidArgument that names the exact field.
func compile(text string, sees []int32) (*Policy, error) {
	p, err := tetragon.ParsePolicy([]byte(text))
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	switch {
	case p.APIVersion != "cilium.io/v1alpha1":
		return nil, refusal("apiVersion", "%q is not cilium.io/v1alpha1", p.APIVersion)
	case p.Kind != "TracingPolicy":
		return nil, refusal("kind", "%q is not TracingPolicy", p.Kind)
	case len(p.Metadata.Name) > maxName || !policyName.MatchString(p.Metadata.Name):
		return nil, refusal("metadata.name", "%q is not a name of lower-case letters, digits and '-', at most %d bytes", p.Metadata.Name, maxName)
	case len(p.Spec.TracePoints) > 0:
		return nil, refusal("spec.tracepoints", "this sensor has none")
	case len(p.Spec.KProbes) == 0:
		return nil, refusal("spec.kprobes", "no hook")
	}
	out := &Policy{Name: p.Metadata.Name, Cgroup: "/"}
	mode, err := out.readOptions(p.Spec.Options)
	if err != nil {
		return nil, err
	}
	if out.vsock {
		sees = append(slices.Clone(sees), unix.AF_VSOCK)
	}
	for i, k := range p.Spec.KProbes {
		if err := out.readHook(fmt.Sprintf("spec.kprobes[%d]", i), k, sees); err != nil {
			return nil, err
		}
	}
	if out.Enforcing && (out.Execs || out.Forks || out.uses()) {
		return nil, refusal("spec.kprobes", "an enforcing policy has the one hook %s", tetragon.CallSocketCreate)
	}
	if mode != "" && !out.Enforcing {
		return nil, refusal("spec.options", "%s without an enforcing action", tetragon.OptionMode)
	}
	return out, nil
}

// uses reports whether the policy asks what sockets are used for.
func (out *Policy) uses() bool { return out.Connects || out.Binds || out.Sends || out.Receives }

func (out *Policy) readOptions(options []tetragon.Option) (mode string, err error) {
	seen := map[string]bool{}
	for i, o := range options {
		field := fmt.Sprintf("spec.options[%d]", i)
		if seen[o.Name] {
			return "", refusal(field+".name", "%q stands twice", o.Name)
		}
		seen[o.Name] = true
		switch o.Name {
		case tetragon.OptionMode:
			if o.Value != "monitor" && o.Value != "enforce" {
				return "", refusal(field+".value", "%q is neither monitor nor enforce", o.Value)
			}
			mode, out.Monitor = o.Value, o.Value == "monitor"
		case tetragon.OptionCgroup:
			if !strings.HasPrefix(o.Value, "/") {
				return "", refusal(field+".value", "%q is not absolute in the cgroup hierarchy", o.Value)
			}
			out.Cgroup = o.Value
		case tetragon.OptionDetails, tetragon.OptionVsock:
			if o.Value != "true" && o.Value != "false" {
				return "", refusal(field+".value", "%q is neither true nor false", o.Value)
			}
			if o.Name == tetragon.OptionVsock {
				out.vsock = o.Value == "true"
			} else {
				out.Details = o.Value == "true"
			}
		default:
			return "", refusal(field+".name", "this sensor knows no option %q", o.Name)
		}
	}
	return mode, nil
}

func (out *Policy) readHook(field string, k tetragon.KProbe, sees []int32) error {
	if k.Syscall {
		return refusal(field+".syscall", "%s is not a system call", k.Call)
	}
	if len(k.Data) > 0 {
		return refusal(field+".data", "this sensor gives data of its own alone, by the option %s", tetragon.OptionDetails)
	}
	switch k.Call {
	case tetragon.CallSocketCreate:
		if out.Sockets || out.Enforcing {
			return refusal(field+".call", "%s stands twice", k.Call)
		}
		if err := checkArgs(field, k.Args, socketArgs); err != nil {
			return err
		}
		return out.readSelectors(field+".selectors", k.Selectors, sees)
	case tetragon.CallExec:
		return out.readPlainHook(field, k, &out.Execs, execArgs)
	case tetragon.CallFork:
		return out.readPlainHook(field, k, &out.Forks, forkArgs)
	case tetragon.CallConnect:
		return out.readPlainHook(field, k, &out.Connects, useArgs)
	case tetragon.CallBind:
		return out.readPlainHook(field, k, &out.Binds, useArgs)
	case tetragon.CallSend:
		return out.readPlainHook(field, k, &out.Sends, useArgs)
	case tetragon.CallReceive:
		return out.readPlainHook(field, k, &out.Receives, handedArgs)
	}
	return refusal(field+".call", "this sensor has no hook %q", k.Call)
}

func (out *Policy) readPlainHook(field string, k tetragon.KProbe, have *bool, args []tetragon.Arg) error {
	if *have {
		return refusal(field+".call", "%s stands twice", k.Call)
	}
	if len(k.Selectors) > 0 {
		return refusal(field+".selectors", "this sensor selects nothing at %s", k.Call)
	}
	*have = true
	return checkArgs(field, k.Args, args)
}

// The arguments that events carry, in their order. A type that is left out of
// an arg here may be any.
var (
	socketArgs = []tetragon.Arg{{Index: 0, Type: "int"}, {Index: 1, Type: "int"}, {Index: 2, Type: "int"}, {Index: 3, Type: "int"}}
	execArgs   = []tetragon.Arg{{Index: 0, Type: "linux_binprm"}}
	useArgs    = []tetragon.Arg{{Index: 0, Type: "socket"}, {Index: 1, Type: "sockaddr"}}
	handedArgs = []tetragon.Arg{{Index: 0, Type: "socket"}}
	forkArgs   = []tetragon.Arg{{Index: 0, BTFType: "task_struct", Resolve: "pid"}, {Index: 0, BTFType: "task_struct", Resolve: "tgid"}}
)

func checkArgs(field string, got, want []tetragon.Arg) error {
	if len(got) != len(want) {
		return refusal(field+".args", "%d arguments, this sensor gives exactly %d", len(got), len(want))
	}
	for i, w := range want {
		if w.Type == "" {
			w.Type = got[i].Type
		}
		if got[i] != w {
			return refusal(fmt.Sprintf("%s.args[%d]", field, i), "%+v, this sensor gives %+v", got[i], w)
		}
	}
	return nil
}

func (out *Policy) readSelectors(field string, selectors []tetragon.Selector, sees []int32) error {
	if len(selectors) != 1 {
		return refusal(field, "%d selectors, this sensor takes exactly one", len(selectors))
	}
	field, s := field+"[0]", selectors[0]
	if err := out.readActions(field+".matchActions", s.MatchActions); err != nil {
		return err
	}
	if err := out.readArgs(field+".matchArgs", s.MatchArgs, sees); err != nil {
		return err
	}
	if err := out.readBinaries(field+".matchBinaries", s.MatchBinaries); err != nil {
		return err
	}
	return out.readNamespaces(field+".matchNamespaces", s.MatchNamespaces)
}

func (out *Policy) readActions(field string, actions []tetragon.MatchAction) error {
	if len(actions) > 1 {
		return refusal(field, "%d actions, this sensor takes one", len(actions))
	}
	out.Sockets = true
	if len(actions) == 0 || actions[0].Action == "Post" {
		return nil
	}
	if actions[0].Action != "Sigkill" {
		return refusal(field+"[0].action", "%q is neither Sigkill nor Post", actions[0].Action)
	}
	out.Sockets, out.Enforcing = false, true
	return nil
}

func (out *Policy) readArgs(field string, args []tetragon.MatchArgs, sees []int32) error {
	kernel := false
	for i, a := range args {
		field := fmt.Sprintf("%s[%d]", field, i)
		if a.Operator != "Equal" && a.Operator != "InMap" {
			return refusal(field+".operator", "%q is neither Equal nor InMap", a.Operator)
		}
		switch a.Index {
		case 0:
			if err := out.readFamilies(field+".values", a.Values, sees); err != nil {
				return err
			}
		case 3:
			if !slices.Equal(a.Values, []string{"0"}) {
				return refusal(field+".values", "%q, this sensor sees only sockets that the kernel does not open for itself: \"0\"", a.Values)
			}
			kernel = true
		default:
			return refusal(field+".index", "this sensor selects by arguments 0 (family) and 3 (kern), not %d", a.Index)
		}
	}
	if len(out.Families) == 0 {
		return refusal(field, "no families at index 0: this sensor does not see all of them")
	}
	if !kernel {
		return refusal(field, "index 3 (kern) is not held to \"0\": this sensor sees no other")
	}
	return nil
}

func (out *Policy) readFamilies(field string, values []string, sees []int32) error {
	if len(out.Families) > 0 {
		return refusal(field, "the families stand twice")
	}
	for i, v := range values {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return refusal(fmt.Sprintf("%s[%d]", field, i), "%q is not a number", v)
		}
		if !slices.Contains(sees, int32(n)) {
			return refusal(fmt.Sprintf("%s[%d]", field, i), "the socket hook of this kernel does not see family %s", tetragon.FamilyName(int32(n)))
		}
		out.Families = append(out.Families, int32(n))
	}
	return nil
}

var matchOps = map[string]bpf.SensorMatchOp{
	"In": bpf.SensorMatchOpOP_IN, "NotIn": bpf.SensorMatchOpOP_NOT_IN,
	"Prefix": bpf.SensorMatchOpOP_PREFIX, "NotPrefix": bpf.SensorMatchOpOP_NOT_PREFIX,
}

// matches compares a path as the kernel's programs do.
func (out *Policy) matches(path string) bool {
	switch out.Op {
	case bpf.SensorMatchOpOP_NOT_IN:
		return !slices.Contains(out.Paths, path)
	case bpf.SensorMatchOpOP_PREFIX, bpf.SensorMatchOpOP_NOT_PREFIX:
		found := slices.ContainsFunc(out.Paths, func(p string) bool { return strings.HasPrefix(path, p) })
		return found == (out.Op == bpf.SensorMatchOpOP_PREFIX)
	}
	return len(out.Paths) == 0 || slices.Contains(out.Paths, path)
}

func (out *Policy) readBinaries(field string, match []tetragon.MatchBinaries) error {
	if !out.Enforcing && len(match) == 0 {
		return nil
	}
	if len(match) != 1 {
		return refusal(field, "%d lists of binaries, this sensor takes exactly one", len(match))
	}
	field, m := field+"[0]", match[0]
	op, ok := matchOps[m.Operator]
	if !ok {
		return refusal(field+".operator", "%q is none of In, NotIn, Prefix, NotPrefix", m.Operator)
	}
	out.Op = op
	if len(m.Values) == 0 {
		return refusal(field+".values", "an empty list would match every process")
	}
	seen := make(map[string]bool, len(m.Values))
	for i, v := range m.Values {
		switch {
		case len(v) > maxPath:
			return refusal(fmt.Sprintf("%s.values[%d]", field, i), "%d bytes, at most %d are matched", len(v), maxPath)
		case !strings.HasPrefix(v, "/") || strings.ContainsRune(v, 0) || !utf8.ValidString(v):
			return refusal(fmt.Sprintf("%s.values[%d]", field, i), "%q is not an absolute path in UTF-8", v)
		case seen[v]:
			return refusal(fmt.Sprintf("%s.values[%d]", field, i), "%q stands twice", v)
		}
		seen[v] = true
	}
	out.Paths = m.Values
	return nil
}

func (out *Policy) readNamespaces(field string, match []tetragon.MatchNamespaces) error {
	if len(match) == 0 {
		return nil
	}
	if !out.Enforcing {
		return refusal(field, "only an enforcing policy selects namespaces here")
	}
	m := match[0]
	if len(match) > 1 || m.Namespace != "Pid" || m.Operator != "In" || !slices.Equal(m.Values, []string{"host_ns"}) {
		return refusal(field, "this sensor takes only namespace Pid, operator In, value host_ns")
	}
	out.HostOnly = true
	return nil
}
