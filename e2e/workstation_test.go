package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var shBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// The walk through the workstation is run as it is written, in one shell. It
// reaches the whole machine, and lists two copies in a directory of its own.
func TestWorkstationReadsAsItRuns(t *testing.T) {
	before := loaded(t)
	readme, err := os.ReadFile("../examples/workstation/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, block := range shBlock.FindAllStringSubmatch(string(readme), -1) {
		script.WriteString(block[1])
	}
	if n := strings.Count(string(readme), "\n```sh\n"); n < 2 || strings.Count(string(readme), "\n```")/2 != n {
		t.Fatalf("of the README's blocks %d are for a shell, want all", n)
	}
	temp := t.TempDir()
	t.Cleanup(func() {
		left, _ := filepath.Glob(filepath.Join(temp, "*", "profile.db"))
		for _, db := range left {
			if out, err := exec.Command(filepath.Join(built, "profile"), "--db", db, "release", "--yes").CombinedOutput(); err != nil {
				t.Errorf("release %s: %v: %s", db, err, out)
			}
		}
	})
	cmd := exec.Command("sh", "-eu", "-c", script.String())
	cmd.Dir = temp
	cmd.Env = append(os.Environ(), "PATH="+built+":"+os.Getenv("PATH"), "TMPDIR="+temp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`2 executables: each is killed`,                  // the plan
		`generation 1 is in force, stage enforce; tried`, // enforce
		"\nhello\n",                                  // jq
		`killed ×1, last .*/tools/curl`,              // status
		`released policy profile-enforce-.*-g1`,      // release
		`(?s)released policy.*\ncurl [0-9].*libcurl`, // and curl again
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v (%v)", left, err)
	}
	assertSame(t, before, loaded)
}
