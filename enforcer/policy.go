package enforcer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"profile/internal/tetragon"
	"profile/store"
)

// PolicySpec is what the policies of one generation say.
type PolicySpec struct {
	Name     string // of the first; a number is put behind it for each other
	Stage    string // store.StageMonitor or store.StageEnforce
	Cgroup   string
	Families []string
	Paths    []string // listed, sorted
	Sensor   bool     // the agent is the embedded sensor
	// Limit is how many bytes of YAML one policy may have.
	Limit int
	// Canary gives one more path that the policy of a name lists; nil gives
	// none.
	Canary func(policy string) string
}

// Policies writes one policy that lists every path, or as few as the limit
// allows, each of which lists some: a socket is then looked up in each list.
// It refuses what Policy refuses.
func (s PolicySpec) Policies() ([]*tetragon.Policy, error) {
	for n := 1; ; {
		all, largest, err := s.inParts(n)
		if err != nil || largest <= s.Limit {
			return all, err
		}
		if n == len(s.Paths) {
			return nil, fmt.Errorf("policy %s: one path takes %d bytes, and the agent takes %d", s.Name, largest, s.Limit)
		}
		n = min(max(n+1, n*largest/s.Limit), len(s.Paths))
	}
}

// inParts writes n policies of about as many paths each, and says how many
// bytes the largest has of those that could be larger than the limit.
func (s PolicySpec) inParts(n int) (all []*tetragon.Policy, largest int, err error) {
	for i := range n {
		paths := s.Paths[i*len(s.Paths)/n : (i+1)*len(s.Paths)/n]
		name := s.Name
		if i > 0 {
			name = fmt.Sprintf("%s-%d", s.Name, i+1)
		}
		if len(paths) > 0 && s.Canary != nil {
			paths = append(slices.Clone(paths), s.Canary(name))
		}
		p, err := Policy(name, s.Stage, s.Cgroup, s.Families, paths, s.Sensor)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, p)
		if atMost(paths) <= s.Limit {
			continue // to write it only to measure it would take as long again
		}
		text, err := p.Marshal()
		if err != nil {
			return nil, 0, err
		}
		largest = max(largest, len(text))
	}
	return all, largest, nil
}

// atMost is more bytes than the YAML of a policy of the paths can have: each
// byte escaped, each path on a line of its own, and the rest of the policy.
func atMost(paths []string) int {
	n := 16 << 10
	for _, file := range paths {
		n += 4*len(file) + 64
	}
	return n
}

// Policy writes one enforcing policy: it kills, or in the monitor stage counts,
// every process of the host's pid namespace that runs one of the paths and
// opens a socket of one of the families, within the cgroup. Families are named
// as in tetragon.NetworkFamilies; sensor says that the agent is the embedded
// one, which alone can keep to a cgroup other than "/".
//
// It refuses what would match more than it names, or nothing at all: no paths,
// no families, and a path that the kernel could not match.
func Policy(name, stage, cgroup string, families, paths []string, sensor bool) (*tetragon.Policy, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("policy %s: it lists nothing, and most agents would match that against every process", name)
	}
	for _, file := range paths {
		if why := unenforceable(file); why != "" {
			return nil, fmt.Errorf("policy %s: %q: %s", name, file, why)
		}
	}
	if stage != store.StageMonitor && stage != store.StageEnforce {
		return nil, fmt.Errorf("policy %s: %w: %q is no stage", name, ErrUsage, stage)
	}
	numbers, err := familyNumbers(families)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", name, err)
	}
	p := tetragon.NewPolicy(name)
	p.Spec.Options = []tetragon.Option{{Name: tetragon.OptionMode, Value: stage}}
	if sensor && slices.Contains(families, "vsock") {
		p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: tetragon.OptionVsock, Value: "true"})
	}
	if cgroup != "/" {
		if !sensor {
			return nil, fmt.Errorf("policy %s for cgroup %s: %w", name, cgroup, tetragon.ErrOption)
		}
		p.Spec.Options = append(p.Spec.Options, tetragon.Option{Name: tetragon.OptionCgroup, Value: cgroup})
	}
	p.Spec.KProbes = []tetragon.KProbe{{
		Call: tetragon.CallSocketCreate,
		Args: []tetragon.Arg{{Index: 0, Type: "int"}, {Index: 1, Type: "int"}, {Index: 2, Type: "int"}, {Index: 3, Type: "int"}},
		Selectors: []tetragon.Selector{{
			MatchBinaries:   []tetragon.MatchBinaries{{Operator: "In", Values: slices.Clone(paths)}},
			MatchNamespaces: []tetragon.MatchNamespaces{{Namespace: "Pid", Operator: "In", Values: []string{"host_ns"}}},
			MatchArgs: []tetragon.MatchArgs{
				tetragon.MatchFamily(numbers),
				{Index: 3, Operator: "Equal", Values: []string{"0"}}, // not the kernel's own sockets
			},
			MatchActions: []tetragon.MatchAction{{Action: "Sigkill"}},
		}},
	}}
	return p, nil
}

func familyNumbers(families []string) ([]string, error) {
	if len(families) == 0 {
		return nil, fmt.Errorf("it names no socket family")
	}
	var numbers []string
	for _, family := range families {
		n, ok := tetragon.FamilyNumber(family)
		if !ok {
			return nil, fmt.Errorf("%q is no network family: they are %s", family, strings.Join(tetragon.NetworkFamilies(), ", "))
		}
		numbers = append(numbers, strconv.Itoa(int(n)))
	}
	return numbers, nil
}
