package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sample is a package with a test for each fate that a test can have.
const sample = `package sample

import "testing"

func TestGood(t *testing.T) {}

func TestTable(t *testing.T) {
	t.Run("one", func(t *testing.T) {})
	t.Run("two", func(t *testing.T) {})
}
`

const skipping = `package sample

import "testing"

func TestNeedsMoon(t *testing.T) { t.Skip("no moon tonight") }
`

const failing = `package sample

import "testing"

func TestBad(t *testing.T) { t.Error("that is why") }

func TestHalfBad(t *testing.T) {
	t.Run("good", func(t *testing.T) {})
	t.Run("bad", func(t *testing.T) { t.Error("and this") })
}

func TestOwnError(t *testing.T) {
	t.Run("good", func(t *testing.T) {})
	t.Error("after its subtests")
}
`

const panicking = `package sample

import "testing"

func TestBoom(t *testing.T) { t.Run("sub", func(t *testing.T) { panic("boom") }) }
`

const broken = `package sample

func nonsense() { undeclared() }
`

const exiting = `package sample

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) { m.Run(); os.Stderr.WriteString("left a mess\n"); os.Exit(1) }
`

// goTest runs the real go test over a module made of the given files.
func goTest(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module sample\n\ngo 1.24\n"
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output() // fails where tests do, which the output tells
	if len(out) == 0 {
		t.Fatalf("go test -json printed nothing: %v", err)
	}
	return string(out)
}

func TestCounts(t *testing.T) {
	for _, c := range []struct {
		what  string
		files map[string]string
		ci    bool
		ok    bool
		last  string
		says  []string
	}{
		{"all pass, subtests counted once", map[string]string{"a_test.go": sample}, false, true,
			"3 passed, 0 failed", []string{"pass sample: 3 passed"}},
		{"a skip is named", map[string]string{"a_test.go": sample, "b_test.go": skipping}, false, true,
			"3 passed, 0 failed", []string{"1 not run:", "TestNeedsMoon", "no moon tonight"}},
		{"a skip fails in CI", map[string]string{"a_test.go": sample, "b_test.go": skipping}, true, false,
			"3 passed, 1 failed", []string{"CI counts as failed", "TestNeedsMoon", "no moon tonight"}},
		{"failures", map[string]string{"a_test.go": sample, "b_test.go": failing}, false, false,
			"5 passed, 3 failed", []string{"that is why", "and this", "after its subtests"}},
		{"a panic", map[string]string{"a_test.go": panicking}, false, false,
			"0 passed, 1 failed", []string{"boom"}},
		{"a build error", map[string]string{"a_test.go": sample, "b_test.go": broken}, false, false,
			"0 passed, 1 failed", []string{"undefined: undeclared"}},
		{"a failure outside any test", map[string]string{"a_test.go": sample, "b_test.go": exiting}, false, false,
			"3 passed, 1 failed", []string{"left a mess"}},
		{"nothing ran", map[string]string{"a.go": "package sample\n"}, false, false,
			"0 passed, 0 failed", nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			var out strings.Builder
			ok, err := summarise(strings.NewReader(goTest(t, c.files)), &out, c.ci)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; ok != c.ok || last != c.last {
				t.Errorf("ok %v, last line %q, want %v, %q; output:\n%s", ok, last, c.ok, c.last, out.String())
			}
			for _, want := range c.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("does not say %q; output:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestLinesThatAreNotJSONArePassedOn(t *testing.T) {
	var out strings.Builder
	in := "go: downloading x\n" + `{"Action":"run","Package":"p","Test":"T"}` + "\n" +
		`{"Action":"pass","Package":"p","Test":"T"}` + "\n" + "no newline at the end"
	ok, err := summarise(strings.NewReader(in), &out, false)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if want := regexp.MustCompile(`(?s)^go: downloading x\nno newline at the end\n\n1 passed, 0 failed\n$`); !want.MatchString(out.String()) {
		t.Errorf("output %q", out.String())
	}
}
