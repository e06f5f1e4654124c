package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"sigs.k8s.io/yaml"
)

// checkCRD says how a policy differs from what Tetragon's custom resource
// definition allows. A field that it does not know is an error too: a cluster
// would drop it, and with a misspelt matchBinaries kill everything.
func checkCRD(text []byte) error {
	raw, err := os.ReadFile("testdata/crds/cilium.io_tracingpolicies.yaml")
	if err != nil {
		return err
	}
	var crd v1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(raw, &crd); err != nil {
		return err
	}
	var props apiextensions.JSONSchemaProps
	if err := v1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, &props, nil); err != nil {
		return err
	}
	structural, err := schema.NewStructural(&props)
	if err != nil {
		return err
	}
	validator, _, err := validation.NewSchemaValidator(&props)
	if err != nil {
		return err
	}
	var policy map[string]any
	if err := yaml.UnmarshalStrict(text, &policy); err != nil {
		return err
	}
	if errs := validation.ValidateCustomResource(nil, policy, validator); len(errs) > 0 {
		return errs.ToAggregate()
	}
	if pruned := pruning.PruneWithOptions(policy, structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}); len(pruned) > 0 {
		return fmt.Errorf("a cluster would drop %q", pruned)
	}
	return nil
}

// policy FLAG…: enforce -o yaml prints a policy that Tetragon takes, and that
// lists what the plan does.
func cmdPolicy(ts *testscript.TestScript, neg bool, args []string) {
	cmd := exec.Command(filepath.Join(built, "profile"), append([]string{"--db", ts.Getenv("DB"), "enforce", "-o", "yaml"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	text, err := cmd.Output()
	ts.Check(err)
	ts.Logf("%s", text)
	if err := checkCRD(text); err != nil {
		ts.Fatalf("Tetragon does not take it: %v", err)
	}
	var policy struct {
		Spec struct {
			KProbes []struct {
				Selectors []struct {
					MatchBinaries []struct {
						Operator string
						Values   []string
					}
				}
			}
		}
	}
	ts.Check(yaml.Unmarshal(text, &policy))
	binaries := policy.Spec.KProbes[0].Selectors[0].MatchBinaries[0]
	var doc planDoc
	ask(ts, &doc, append([]string{"enforce", "-o", "json"}, args...)...)
	if diff := cmp.Diff(doc.Enforce, binaries.Values); diff != "" || binaries.Operator != "In" {
		ts.Fatalf("the policy lists %s other executables than the plan (-plan +policy):\n%s", binaries.Operator, diff)
	}
	if slices.ContainsFunc(binaries.Values, func(p string) bool { return strings.Contains(p, "canary") }) {
		ts.Fatalf("a canary is listed: %q", binaries.Values)
	}
}
