// Package tetragon is the agent as a client sees it: how to reach one, what
// its version can do, its event stream and its policies, and the TracingPolicy
// types both sides of the API share. It knows nothing of evidence, verdicts or
// plans, and nothing of how the embedded sensor works inside.
package tetragon

import (
	"bytes"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

// Policy is a TracingPolicy of cilium.io/v1alpha1, as much of it as this
// project writes. Its YAML form is what AddTracingPolicy takes.
type Policy struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   Metadata `yaml:"metadata"`
	Spec       Spec     `yaml:"spec"`
}

// Metadata names a policy. Names are RFC 1123 subdomains of at most 253 bytes.
type Metadata struct {
	Name string `yaml:"name"`
}

// Spec is what a policy asks for.
type Spec struct {
	Options []Option `yaml:"options,omitempty"`
	// KProbes and TracePoints do not go together in one policy.
	KProbes     []KProbe     `yaml:"kprobes,omitempty"`
	TracePoints []TracePoint `yaml:"tracepoints,omitempty"`
}

// TracePoint is a hook at a tracepoint; Args are fields of its format.
type TracePoint struct {
	Subsystem string `yaml:"subsystem"`
	Event     string `yaml:"event"`
	Args      []Arg  `yaml:"args,omitempty"`
}

// Option is a named setting of a policy. A Tetragon ignores options that it
// does not know, so ours (see OptionCgroup) are never sent to one.
type Option struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

// KProbe is one hook. Syscall defaults to true in the agent, so it is always
// written.
type KProbe struct {
	Call      string     `yaml:"call"`
	Syscall   bool       `yaml:"syscall"`
	Args      []Arg      `yaml:"args,omitempty"`
	Data      []Arg      `yaml:"data,omitempty"` // told beside them
	Selectors []Selector `yaml:"selectors,omitempty"`
}

// Arg names one argument of the hooked function or, in its data, what of another
// Source is told under a Label.
type Arg struct {
	Index   uint32 `yaml:"index"`
	Type    string `yaml:"type"`
	BTFType string `yaml:"btfType,omitempty"`
	Resolve string `yaml:"resolve,omitempty"`
	Label   string `yaml:"label,omitempty"`
	Source  string `yaml:"source,omitempty"`
}

// Selector says when a hook acts, and how.
type Selector struct {
	MatchBinaries   []MatchBinaries   `yaml:"matchBinaries,omitempty"`
	MatchNamespaces []MatchNamespaces `yaml:"matchNamespaces,omitempty"`
	MatchArgs       []MatchArgs       `yaml:"matchArgs,omitempty"`
	MatchActions    []MatchAction     `yaml:"matchActions,omitempty"`
}

// MatchBinaries compares the resolved executable. An empty Values list matches
// every process on most agents (FACTS 4, 48): Marshal refuses it.
type MatchBinaries struct {
	Operator string   `yaml:"operator"`
	Values   []string `yaml:"values"`
}

// MatchNamespaces compares a namespace of the process.
type MatchNamespaces struct {
	Namespace string   `yaml:"namespace"`
	Operator  string   `yaml:"operator"`
	Values    []string `yaml:"values"`
}

// MatchArgs compares an argument. Values are strings, numbers quoted.
type MatchArgs struct {
	Index    uint32   `yaml:"index"`
	Operator string   `yaml:"operator"`
	Values   []string `yaml:"values"`
}

// MatchAction is what is done on a match.
type MatchAction struct {
	Action string `yaml:"action"`
}

// MaxEqual is how many values a Tetragon compares an argument with by Equal. Up
// to v1.3 it takes more, and heeds no more than these.
const MaxEqual = 4

// MatchFamily selects the sockets of some families, given by their numbers, at
// CallSocketCreate: by Equal, and where a Tetragon could not compare with all of
// them, by InMap, which takes any number (tried on v1.3.0, v1.6.1 and v1.7.0,
// read in the source from v1.1 on). The embedded sensor knows both.
func MatchFamily(families []string) MatchArgs {
	m := MatchArgs{Index: 0, Operator: "Equal", Values: families}
	if len(families) > MaxEqual {
		m.Operator = "InMap"
	}
	return m
}

// NewPolicy returns an empty policy of the given name.
func NewPolicy(name string) *Policy {
	return &Policy{APIVersion: "cilium.io/v1alpha1", Kind: "TracingPolicy", Metadata: Metadata{Name: name}}
}

// Option returns the value of the named option and whether it is there.
func (p *Policy) Option(name string) (string, bool) {
	for _, o := range p.Spec.Options {
		if o.Name == name {
			return o.Value, true
		}
	}
	return "", false
}

// Marshal writes the policy as YAML. It refuses a policy with an empty list of
// binaries, which most agents would match against every process.
func (p *Policy) Marshal() ([]byte, error) {
	for _, k := range p.Spec.KProbes {
		for _, s := range k.Selectors {
			for _, b := range s.MatchBinaries {
				if len(b.Values) == 0 {
					return nil, fmt.Errorf("policy %s: matchBinaries with an empty list matches every process", p.Metadata.Name)
				}
			}
		}
	}
	short, lists := p.withoutLists()
	text, err := encode(short)
	if err == nil && len(lists) > 0 {
		text, err = insertLists(text, lists)
	}
	if err != nil {
		return nil, fmt.Errorf("write policy %s: %w", p.Metadata.Name, err)
	}
	return text, nil
}

// ParsePolicy reads one YAML document. A field that Policy does not have, and
// a second document, are errors: nothing is accepted and ignored.
func ParsePolicy(text []byte) (*Policy, error) {
	if p, ok := parseWithoutLists(text); ok {
		return p, nil
	}
	return parse(text)
}

func parse(text []byte) (*Policy, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var p Policy
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); err != io.EOF {
		return nil, fmt.Errorf("read policy: a second YAML document would be ignored")
	}
	return &p, nil
}
