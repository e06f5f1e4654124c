package tetragon

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzParsePolicy: whatever text comes, it is refused or read, without a panic,
// and what was read and can be written is read again as the same. A list is read
// as the library reads it.
func FuzzParsePolicy(f *testing.F) {
	for _, seed := range []string{
		"",
		"a: &a [*a]",
		"apiVersion: x\n---\nkind: y\n",
		"apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata:\n  name: n\nspec:\n  kprobes:\n" +
			"  - call: security_socket_create\n    syscall: false\n    args: [{index: 0, type: int}]\n    selectors:\n" +
			"    - matchBinaries: [{operator: In, values: [\"/bin/\\xff\", '/new\n\n      line', \"/\\t\", \"/\\u2028\", yes, 0x10, ~]}]\n" +
			"      matchArgs: [{index: 0, operator: Equal, values: [\"2\", 10]}]\n      matchActions: [{action: Sigkill}]\n",
		"spec: {kprobes: [{selectors: [{matchBinaries: [{operator: NotIn, values: []}]}]}]}",
		"spec:\n  kprobes:\n  - selectors:\n    - matchBinaries:\n      - values:\n        - /a\n        - /b\n      - values: &v\n        - /c\n        - /d\n",
		"spec: {options: [{name: policy-mode, value: on}], kprobes: [{syscall: y}]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		checkAsWhole(t, text)
		p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		written, err := p.Marshal()
		if err != nil {
			return // an empty list of binaries
		}
		again, err := ParsePolicy(written)
		if err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, written)
		}
		if diff := cmp.Diff(p, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("what was written is read as another policy:\n%s\n%s", written, diff)
		}
	})
}
