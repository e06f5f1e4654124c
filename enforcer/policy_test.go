package enforcer

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"profile/internal/tetragon"
)

var threeFamilies = []string{"inet", "inet6", "packet"}

func TestPoliciesListEachPathOnceWithinTheLimit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		paths := rapid.SliceOfNDistinct(rapid.StringMatching(`/[ -~]{1,60}`), 1, 60, rapid.ID).Draw(rt, "paths")
		slices.Sort(paths)
		spec := PolicySpec{Name: "profile-enforce-x-g7", Stage: "enforce", Cgroup: "/", Families: threeFamilies, Paths: paths, Limit: rapid.IntRange(1200, 4000).Draw(rt, "limit")}
		if rapid.Bool().Draw(rt, "canary") {
			spec.Canary = func(policy string) string { return "/canary of " + policy }
		}
		all, err := spec.Policies()
		if err != nil {
			rt.Fatal(err)
		}
		var listed []string
		names := map[string]bool{}
		for i, p := range all {
			text, err := p.Marshal()
			if err != nil || len(text) > spec.Limit {
				rt.Fatalf("%d bytes, more than %d, error %v", len(text), spec.Limit, err)
			}
			values := p.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values
			if spec.Canary != nil {
				if last := values[len(values)-1]; last != spec.Canary(p.Metadata.Name) {
					rt.Fatalf("%s lists %q last, not its own canary", p.Metadata.Name, last)
				}
				values = values[:len(values)-1]
			}
			if len(values) == 0 || names[p.Metadata.Name] || i == 0 && p.Metadata.Name != spec.Name {
				rt.Fatalf("policy %d, %s, lists %q", i, p.Metadata.Name, values)
			}
			names[p.Metadata.Name] = true
			listed = append(listed, values...)
		}
		if diff := cmp.Diff(paths, listed); diff != "" {
			rt.Fatalf("listed (-want +got):\n%s", diff)
		}
	})
}

func TestPoliciesRefuseWhatCannotBeSplit(t *testing.T) {
	spec := PolicySpec{Name: "p", Stage: "enforce", Cgroup: "/", Families: threeFamilies, Limit: 100}
	if _, err := spec.Policies(); err == nil || !strings.Contains(err.Error(), "lists nothing") {
		t.Errorf("no paths: error %v", err)
	}
	spec.Paths = []string{"/a", "/b"}
	if _, err := spec.Policies(); err == nil || !strings.Contains(err.Error(), "the agent takes 100") {
		t.Errorf("a limit for less than one path: error %v", err)
	}
}

func TestPolicyText(t *testing.T) {
	p, err := Policy("profile-enforce-x-g1", "enforce", "/user.slice", threeFamilies, []string{"/usr/bin/curl", "/opt/a b"}, true)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: profile-enforce-x-g1
spec:
  options:
    - name: policy-mode
      value: enforce
    - name: profile-cgroup
      value: /user.slice
  kprobes:
    - call: security_socket_create
      syscall: false
      args:
        - index: 0
          type: int
        - index: 1
          type: int
        - index: 2
          type: int
        - index: 3
          type: int
      selectors:
        - matchBinaries:
            - operator: In
              values:
                - /usr/bin/curl
                - /opt/a b
          matchNamespaces:
            - namespace: Pid
              operator: In
              values:
                - host_ns
          matchArgs:
            - index: 0
              operator: Equal
              values:
                - "2"
                - "10"
                - "17"
            - index: 3
              operator: Equal
              values:
                - "0"
          matchActions:
            - action: Sigkill
`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
}

func TestPolicyForTheWholeMachineHasNoOptionOfOurs(t *testing.T) {
	p, err := Policy("x", "monitor", "/", threeFamilies, []string{"/usr/bin/curl"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]tetragon.Option{{Name: "policy-mode", Value: "monitor"}}, p.Spec.Options); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}

// By Equal a Tetragon compares with four families, and an old one heeds no more
// of those that it is given.
func TestPolicyComparesWithEveryFamily(t *testing.T) {
	all := []string{"2", "10", "17", "40", "44", "43"}
	for _, c := range []struct {
		name   string
		many   int
		sensor bool
		want   string
	}{
		{"four", 4, false, "Equal"},
		{"five", 5, false, "InMap"},
		{"all", len(all), false, "InMap"},
		{"all, of the sensor", len(all), true, "InMap"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Policy("x", "enforce", "/", tetragon.NetworkFamilies()[:c.many], []string{"/usr/bin/curl"}, c.sensor)
			if err != nil {
				t.Fatal(err)
			}
			got := p.Spec.KProbes[0].Selectors[0].MatchArgs[0]
			if want := (tetragon.MatchArgs{Operator: c.want, Values: all[:c.many]}); !cmp.Equal(want, got) {
				t.Errorf("it matches %+v, want %+v", got, want)
			}
		})
	}
}

func TestPolicyRefuses(t *testing.T) {
	curl := []string{"/usr/bin/curl"}
	for _, c := range []struct {
		name          string
		stage, cgroup string
		families      []string
		paths         []string
		sensor        bool
		says          string
	}{
		{"no paths", "enforce", "/", threeFamilies, nil, true, "lists nothing"},
		{"no families", "enforce", "/", nil, curl, true, "no socket family"},
		{"a family that is not network", "enforce", "/", []string{"unix"}, curl, true, `"unix" is no network family`},
		{"no stage", "none", "/", threeFamilies, curl, true, `"none" is no stage`},
		{"256 bytes", "enforce", "/", threeFamilies, []string{"/" + strings.Repeat("a", 255)}, true, "256 bytes"},
		{"bytes that are not UTF-8", "enforce", "/", threeFamilies, []string{"/usr/bin/\xff"}, true, "not UTF-8"},
		{"what an agent puts in their place", "enforce", "/", threeFamilies, []string{"/usr/bin/\uFFFD"}, true, "not UTF-8"},
		{"a relative path", "enforce", "/", threeFamilies, []string{"bin/curl"}, true, "no path"},
		{"an empty path", "enforce", "/", threeFamilies, []string{"/usr/bin/curl", ""}, true, "no path"},
		{"a NUL", "enforce", "/", threeFamilies, []string{"/usr/bin/a\x00b"}, true, "NUL"},
		{"a cgroup on an agent that has no word for it", "enforce", "/a", threeFamilies, curl, false, "no such option"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Policy("x", c.stage, c.cgroup, c.families, c.paths, c.sensor)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
	if _, err := Policy("x", "enforce", "/a", threeFamilies, curl, false); !errors.Is(err, tetragon.ErrOption) {
		t.Errorf("error %v, want ErrOption", err)
	}
	if _, err := Policy("x", "enforce", "/", threeFamilies, []string{"/" + strings.Repeat("a", 254)}, true); err != nil {
		t.Errorf("255 bytes: %v", err)
	}
}

// reread is what an agent reads of a policy for these paths.
func reread(t interface{ Fatal(...any) }, paths []string) []string {
	p, err := Policy("x", "enforce", "/", threeFamilies, paths, true)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := tetragon.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return back.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Values
}

func TestPolicyGivesOddPathsBack(t *testing.T) {
	paths := []string{"/opt/a b", "/opt/'single'", `/opt/"double"`, "/opt/two\nlines", "/opt/\n", "/opt/a: b", "/opt/ # no comment", "/opt/-dash", "/-", "/opt/{x}",
		"/opt/[x]", "/opt/\ttab", `/opt/back\slash`, "/opt/größe", "/opt/😀", "/opt/ trailing ", "/opt/\r", "/opt/\x01\x7f", "/opt/\u0085\u2028", "/opt/%s", "/null", "/opt/&a*b!c", "/"}
	if diff := cmp.Diff(paths, reread(t, paths)); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

func TestPolicyGivesAnyPathBack(t *testing.T) {
	odd := rapid.StringOfN(rapid.SampledFrom([]rune("\n\t\r :-#{}[]\\'\"a|>&*!%@`,?=~\u0085\u2028\ufeffé\x01\x7f")), 0, 40, 200)
	name := rapid.OneOf(odd, rapid.StringN(0, 60, 200)).Filter(func(s string) bool { return unenforceable("/"+s) == "" })
	rapid.Check(t, func(t *rapid.T) {
		paths := rapid.SliceOfN(rapid.Map(name, func(s string) string { return "/" + s }), 1, 5).Draw(t, "paths")
		if diff := cmp.Diff(paths, reread(t, paths)); diff != "" {
			t.Fatalf("paths (-want +got):\n%s", diff)
		}
	})
}
