// Testsum reads what go test -json prints and ends with the plain line
// "N passed, N failed". It prints the output of what failed, the name and the
// reason of what did not run, and a line for each package. Where the
// environment has CI=true, a test that did not run has failed. It exits 1 if
// anything failed, or if nothing passed. It runs no test itself.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	ok, err := summarise(os.Stdin, os.Stdout, os.Getenv("CI") == "true")
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// event is a line of go test -json, as go doc test2json has it.
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

// id names a test, or with an empty test its package.
type id struct{ pkg, test string }

type sums struct {
	out            io.Writer
	ci             bool
	output         map[id]*strings.Builder // of what is still running
	parents        map[id]bool
	failedParents  map[id]bool // a subtest has failed
	passed, failed map[string]int
	skipped        []string
}

// summarise reports whether tests ran and none failed.
func summarise(in io.Reader, out io.Writer, ci bool) (bool, error) {
	s := &sums{
		out: out, ci: ci,
		output:  map[id]*strings.Builder{},
		parents: map[id]bool{}, failedParents: map[id]bool{},
		passed: map[string]int{}, failed: map[string]int{},
	}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				s.add(e)
			} else {
				fmt.Fprintf(out, "%s\n", strings.TrimRight(string(line), "\n"))
			}
		}
		if errors.Is(err, io.EOF) {
			return s.end(), nil
		}
		if err != nil {
			return false, err
		}
	}
}

func (s *sums) add(e event) {
	k := id{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "run":
		s.output[k] = new(strings.Builder)
		if parent, ok := parentOf(k); ok {
			s.parents[parent] = true
		}
	case "output":
		if s.output[k] == nil {
			s.output[k] = new(strings.Builder)
		}
		s.output[k].WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(k, e.Action)
		}
	}
}

func (s *sums) endTest(k id, action string) {
	var text string
	if b := s.output[k]; b != nil {
		text = b.String()
	}
	delete(s.output, k)
	switch action {
	case "pass":
		if !s.parents[k] {
			s.passed[k.pkg]++
		}
		return
	case "skip":
		s.skipped = append(s.skipped, fmt.Sprintf("%s %s: %s", k.pkg, k.test, reason(text)))
		if !s.ci {
			return
		}
	}
	fmt.Fprint(s.out, text)
	if !s.failedParents[k] {
		s.failed[k.pkg]++
	}
	if parent, ok := parentOf(k); ok {
		s.failedParents[parent] = true
	}
}

// endPackage settles what a package leaves open: tests that a panic or the
// time limit cut off, and a failure outside any test.
func (s *sums) endPackage(e event) {
	own := id{e.Package, ""}
	open := slices.SortedFunc(maps.Keys(s.output), func(a, b id) int {
		return strings.Compare(b.test, a.test) // subtests before their parents
	})
	for _, k := range open {
		if k.pkg == e.Package && k != own {
			fmt.Fprintf(s.out, "%s %s did not end\n", k.pkg, k.test)
			s.endTest(k, "fail")
		}
	}
	if e.Action == "fail" && s.failed[e.Package] == 0 {
		s.failed[e.Package]++
	}
	if e.Action == "fail" && s.output[own] != nil {
		fmt.Fprint(s.out, s.output[own].String())
	}
	delete(s.output, own)
	if n, bad := s.passed[e.Package], s.failed[e.Package]; n+bad > 0 {
		fmt.Fprintf(s.out, "%-4s %s: %d passed, %d failed, %.1fs\n", e.Action, e.Package, n, bad, e.Elapsed)
	}
}

func (s *sums) end() bool {
	passed, failed := total(s.passed), total(s.failed)
	if len(s.skipped) > 0 {
		word := "not run"
		if s.ci {
			word = "not run, which CI counts as failed"
		}
		fmt.Fprintf(s.out, "\n%d %s:\n", len(s.skipped), word)
		for _, line := range s.skipped {
			fmt.Fprintf(s.out, "  %s\n", line)
		}
	}
	fmt.Fprintf(s.out, "\n%d passed, %d failed\n", passed, failed)
	return failed == 0 && passed > 0
}

func parentOf(k id) (id, bool) {
	i := strings.LastIndexByte(k.test, '/')
	if i < 0 {
		return id{}, false
	}
	return id{k.pkg, k.test[:i]}, true
}

// reason takes the message of t.Skip out of a test's output.
func reason(text string) string {
	var said []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
