package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"profile/enforcer"
)

// enters is how a pod becomes one with its node: its files, the name by which
// the node's agent goes, and the whole of its cgroups, without which nothing is
// planned. Its processes it has already.
const enters = "nsenter --target=1 --mount --uts --cgroup -- "

// What the example applies is of the form that a cluster takes, and says what
// its README rests on.
func TestTheLearnerOfTheKubernetesExample(t *testing.T) {
	raw, err := os.ReadFile("../examples/kubernetes/learn.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var set apps.DaemonSet
	if err := yaml.UnmarshalStrict(raw, &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template
	for label, value := range set.Spec.Selector.MatchLabels {
		if pod.Labels[label] != value {
			t.Errorf("the selector's %s=%s is not the pods'", label, value)
		}
	}
	learn := pod.Spec.Containers[0]
	if set.Kind != "DaemonSet" || !pod.Spec.HostPID || learn.SecurityContext == nil || !*learn.SecurityContext.Privileged {
		t.Errorf("%s, hostPID %v, %+v: without these the learner is not a process of the node", set.Kind, pod.Spec.HostPID, learn.SecurityContext)
	}
	command := strings.Join(learn.Command, " ")
	if want := enters + "/opt/profile/profile learn --agent=unix:///var/run/tetragon/tetragon.sock"; command != want {
		t.Errorf("it runs %q, want %q", command, want)
	}
	installed := pod.Spec.InitContainers[0].Command
	if installed[len(installed)-1] != "/opt/profile/profile" || pod.Spec.Volumes[0].HostPath.Path != "/opt/profile" {
		t.Errorf("the program is put to %q, in a volume of %q", installed, pod.Spec.Volumes[0].HostPath.Path)
	}
}

func TestTheKubernetesExampleIsStrict(t *testing.T) {
	text, err := os.ReadFile("../examples/kubernetes/README.md")
	if err != nil {
		t.Fatal(err)
	}
	applies := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "nsenter") && !strings.Contains(line, enters) {
			t.Errorf("on a node this is not of the node: %s", line)
		}
		if strings.Contains(line, "kubectl apply") {
			applies++
			if !strings.Contains(line, "--validate=strict") {
				t.Errorf("a cluster would drop what it does not know: %s", line)
			}
		}
	}
	if applies != 2 {
		t.Errorf("%d lines apply something, want 2", applies)
	}
}

// Each of several policies is one that a cluster takes; what it would drop is
// found.
func TestEachOfSeveralPoliciesIsOneForACluster(t *testing.T) {
	spec := enforcer.PolicySpec{Name: "profile-enforce", Stage: "monitor", Cgroup: "/", Families: []string{"inet", "inet6", "packet", "vsock"}, Limit: 4 << 10}
	for i := range 100 {
		spec.Paths = append(spec.Paths, fmt.Sprintf("/usr/lib/some where/%s/%03d", strings.Repeat("x", 100), i))
	}
	all, err := spec.Policies()
	if err != nil || len(all) < 3 {
		t.Fatalf("%d policies, error %v", len(all), err)
	}
	var names []string
	for _, p := range all {
		text, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkCRD(text); err != nil {
			t.Errorf("%s: %v", p.Metadata.Name, err)
		}
		if slices.Contains(names, p.Metadata.Name) {
			t.Errorf("two are named %s", p.Metadata.Name)
		}
		names = append(names, p.Metadata.Name)
		if err := checkCRD([]byte(strings.Replace(string(text), "matchBinaries", "matchBinarys", 1))); err == nil {
			t.Error("a misspelt matchBinaries is not found")
		}
	}
}
