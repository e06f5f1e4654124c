package sensor

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/internal/cgroup"
	"profile/internal/tetragon"
)

var sees = []int32{unix.AF_INET, unix.AF_INET6}

func compilePolicy(t *testing.T, p *tetragon.Policy) (*Policy, error) {
	t.Helper()
	text, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return compile(string(text), sees)
}

func TestCompileReadsWhatTheCommandsWrite(t *testing.T) {
	g := cgroup.Group{Path: "/a/b"}
	audit, err := compilePolicy(t, auditPolicy("profile-learn-x", g))
	if err != nil {
		t.Fatal(err)
	}
	if !audit.Sockets || !audit.Execs || !audit.Forks || !audit.Details || audit.Enforcing || audit.Cgroup != "/a/b" || !slices.Equal(audit.Families, sees) {
		t.Errorf("audit policy read as %+v", audit)
	}
	paths := []string{"/bin/with space", "/bin/with'quote\"", "/bin/new\nline", "/bin/colon: x", "/-lead", "/#x", "/{y}", "/\t", `/back\slash`, "/ünï"}
	enforcing, err := compilePolicy(t, enforcingPolicy("profile-enforce-x", "monitor", g, paths...))
	if err != nil {
		t.Fatal(err)
	}
	if !enforcing.Enforcing || !enforcing.Monitor || !enforcing.HostOnly || enforcing.Sockets || !slices.Equal(enforcing.Paths, paths) {
		t.Errorf("enforcing policy read as %+v", enforcing)
	}
}

// Each case changes one thing of a policy that is right, and must be refused
// under the name of that thing.
func TestCompileRefusesByField(t *testing.T) {
	audit := func() *tetragon.Policy { return auditPolicy("profile-learn-x", cgroup.Group{Path: "/"}) }
	enforce := func() *tetragon.Policy {
		return enforcingPolicy("profile-enforce-x", "enforce", cgroup.Group{Path: "/"}, "/bin/x")
	}
	selector := func(p *tetragon.Policy) *tetragon.Selector { return &p.Spec.KProbes[0].Selectors[0] }
	for _, tc := range []struct {
		name   string
		policy *tetragon.Policy
		change func(*tetragon.Policy)
		field  string
	}{
		{"another kind", audit(), func(p *tetragon.Policy) { p.Kind = "TracingPolicyNamespaced" }, "kind:"},
		{"another version", audit(), func(p *tetragon.Policy) { p.APIVersion = "v1" }, "apiVersion:"},
		{"a name with a dot", audit(), func(p *tetragon.Policy) { p.Metadata.Name = "a.b" }, "metadata.name:"},
		{"no name", audit(), func(p *tetragon.Policy) { p.Metadata.Name = "" }, "metadata.name:"},
		{"no hook", audit(), func(p *tetragon.Policy) { p.Spec.KProbes = nil }, "spec.kprobes:"},
		{"an unknown option", audit(), func(p *tetragon.Policy) {
			p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: "disable-kprobe-multi", Value: "1"})
		}, "spec.options[2].name:"},
		{"an option twice", audit(), func(p *tetragon.Policy) { p.Spec.Options = append(p.Spec.Options, p.Spec.Options[0]) }, "spec.options[2].name:"},
		{"an odd mode", enforce(), func(p *tetragon.Policy) { p.Spec.Options[0].Value = "off" }, "spec.options[0].value:"},
		{"a relative cgroup", audit(), func(p *tetragon.Policy) { p.Spec.Options[1].Value = "x" }, "spec.options[1].value:"},
		{"a mode without an action", audit(), func(p *tetragon.Policy) {
			p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: "policy-mode", Value: "enforce"})
		}, "spec.options:"},
		{"an unknown hook", audit(), func(p *tetragon.Policy) { p.Spec.KProbes[1].Call = "tcp_connect" }, "spec.kprobes[1].call:"},
		{"a hook twice", audit(), func(p *tetragon.Policy) { p.Spec.KProbes[2] = p.Spec.KProbes[1] }, "spec.kprobes[2].call:"},
		{"a system call", audit(), func(p *tetragon.Policy) { p.Spec.KProbes[0].Syscall = true }, "spec.kprobes[0].syscall:"},
		{"an argument less", audit(), func(p *tetragon.Policy) { p.Spec.KProbes[0].Args = p.Spec.KProbes[0].Args[:3] }, "spec.kprobes[0].args:"},
		{"an argument of another type", audit(), func(p *tetragon.Policy) {
			p.Spec.KProbes[1].Args = []tetragon.Arg{{Index: 0, Type: "file"}}
		}, "spec.kprobes[1].args[0]:"},
		{"data of another source", audit(), func(p *tetragon.Policy) {
			p.Spec.KProbes[1].Data = []tetragon.Arg{{Type: "uint32", Source: "current_task", Resolve: "pid"}}
		}, "spec.kprobes[1].data:"},
		{"a selector at exec", audit(), func(p *tetragon.Policy) { p.Spec.KProbes[1].Selectors = p.Spec.KProbes[0].Selectors }, "spec.kprobes[1].selectors:"},
		{"two selectors", audit(), func(p *tetragon.Policy) {
			p.Spec.KProbes[0].Selectors = append(p.Spec.KProbes[0].Selectors, p.Spec.KProbes[0].Selectors[0])
		}, "spec.kprobes[0].selectors:"},
		{"two lists of binaries", audit(), func(p *tetragon.Policy) {
			selector(p).MatchBinaries = []tetragon.MatchBinaries{{Operator: "NotIn", Values: []string{"/x"}}, {Operator: "In", Values: []string{"/y"}}}
		}, "spec.kprobes[0].selectors[0].matchBinaries:"},
		{"a family unseen", audit(), func(p *tetragon.Policy) { selector(p).MatchArgs[0].Values = []string{"2", "17"} }, "spec.kprobes[0].selectors[0].matchArgs[0].values[1]: the socket hook of this kernel does not see family packet"},
		{"no family", audit(), func(p *tetragon.Policy) { selector(p).MatchArgs = selector(p).MatchArgs[1:] }, "spec.kprobes[0].selectors[0].matchArgs:"},
		{"kernel sockets", audit(), func(p *tetragon.Policy) { selector(p).MatchArgs[1].Values = []string{"1"} }, "spec.kprobes[0].selectors[0].matchArgs[1].values:"},
		{"sockets of anyone", audit(), func(p *tetragon.Policy) { selector(p).MatchArgs = selector(p).MatchArgs[:1] }, "spec.kprobes[0].selectors[0].matchArgs:"},
		{"another argument", audit(), func(p *tetragon.Policy) { selector(p).MatchArgs[1].Index = 1 }, "spec.kprobes[0].selectors[0].matchArgs[1].index:"},
		{"another operator", audit(), func(p *tetragon.Policy) { selector(p).MatchArgs[0].Operator = "NotEqual" }, "spec.kprobes[0].selectors[0].matchArgs[0].operator:"},
		{"another action", enforce(), func(p *tetragon.Policy) { selector(p).MatchActions[0].Action = "Override" }, "spec.kprobes[0].selectors[0].matchActions[0].action:"},
		{"two actions", enforce(), func(p *tetragon.Policy) {
			selector(p).MatchActions = append(selector(p).MatchActions, tetragon.MatchAction{Action: "Post"})
		}, "spec.kprobes[0].selectors[0].matchActions:"},
		{"no binaries to kill", enforce(), func(p *tetragon.Policy) { selector(p).MatchBinaries = nil }, "spec.kprobes[0].selectors[0].matchBinaries:"},
		{"another comparison", enforce(), func(p *tetragon.Policy) { selector(p).MatchBinaries[0].Operator = "Postfix" }, "spec.kprobes[0].selectors[0].matchBinaries[0].operator:"},
		{"a relative path", enforce(), func(p *tetragon.Policy) { selector(p).MatchBinaries[0].Values = []string{"x"} }, "spec.kprobes[0].selectors[0].matchBinaries[0].values[0]:"},
		{"a long path", enforce(), func(p *tetragon.Policy) {
			selector(p).MatchBinaries[0].Values = []string{"/" + strings.Repeat("x", 255)}
		}, "spec.kprobes[0].selectors[0].matchBinaries[0].values[0]:"},
		{"a path twice", enforce(), func(p *tetragon.Policy) { selector(p).MatchBinaries[0].Values = []string{"/x", "/x"} }, "spec.kprobes[0].selectors[0].matchBinaries[0].values[1]:"},
		{"another namespace", enforce(), func(p *tetragon.Policy) { selector(p).MatchNamespaces[0].Namespace = "Net" }, "spec.kprobes[0].selectors[0].matchNamespaces:"},
		{"enforcing with an exec hook", enforce(), func(p *tetragon.Policy) { p.Spec.KProbes = append(p.Spec.KProbes, audit().Spec.KProbes[1]) }, "spec.kprobes:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.change(tc.policy)
			_, err := compilePolicy(t, tc.policy)
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("error %v, want InvalidArgument", err)
			}
			if msg := status.Convert(err).Message(); !strings.HasPrefix(msg, tc.field) {
				t.Errorf("refused with %q, want the field %q", msg, tc.field)
			}
		})
	}
}

func TestCompileRefusesTextThatItWouldIgnore(t *testing.T) {
	text, err := auditPolicy("profile-learn-x", cgroup.Group{Path: "/"}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	empty := `
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: x}
spec:
  kprobes:
  - call: security_socket_create
    syscall: false
    args: [{index: 0, type: int}, {index: 1, type: int}, {index: 2, type: int}, {index: 3, type: int}]
    selectors:
    - matchBinaries: [{operator: In, values: []}]
      matchArgs: [{index: 0, operator: Equal, values: ["2"]}, {index: 3, operator: Equal, values: ["0"]}]
      matchActions: [{action: Sigkill}]
`
	for name, tc := range map[string]struct{ text, want string }{
		"an empty list":     {empty, "spec.kprobes[0].selectors[0].matchBinaries[0].values: an empty list"},
		"a misspelt field":  {strings.Replace(string(text), "matchArgs", "matchArg", 1), "matchArg"},
		"a second document": {string(text) + "---\n" + string(text), "second YAML document"},
		"no YAML":           {"\t{", ""},
		"a field of theirs": {strings.Replace(string(text), "spec:", "spec:\n  podSelector: {}", 1), "podSelector"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(tc.text, sees)
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want InvalidArgument that says %q", err, tc.want)
			}
		})
	}
}
