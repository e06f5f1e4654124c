package tetragon

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"gopkg.in/yaml.v3"
)

// The lists of binaries are all that is long in a policy, and the YAML library
// takes 3 µs for each value. So they are left out of what it writes, and put in
// afterwards, in the form that it would have given them.

// place stands for a list while the rest is written.
const place = "/list/%d"

// withoutLists copies a policy with a place for each list of binaries.
func (p *Policy) withoutLists() (*Policy, [][]string) {
	var lists [][]string
	short := *p
	short.Spec.KProbes = slices.Clone(p.Spec.KProbes)
	for i := range short.Spec.KProbes {
		k := &short.Spec.KProbes[i]
		k.Selectors = slices.Clone(k.Selectors)
		for j := range k.Selectors {
			s := &k.Selectors[j]
			s.MatchBinaries = slices.Clone(s.MatchBinaries)
			for n := range s.MatchBinaries {
				b := &s.MatchBinaries[n]
				lists, b.Values = append(lists, b.Values), []string{fmt.Sprintf(place, len(lists))}
			}
		}
	}
	return &short, lists
}

// insertLists puts each list in its place, which is a line of its own.
func insertLists(text []byte, lists [][]string) ([]byte, error) {
	var out bytes.Buffer
	next := 0
	for line := range bytes.Lines(text) {
		item := bytes.TrimSuffix(bytes.TrimLeft(line, " "), []byte("\n"))
		if next == len(lists) || string(item) != fmt.Sprintf("- "+place, next) {
			out.Write(line)
			continue
		}
		indent := line[:bytes.IndexByte(line, '-')]
		for _, value := range lists[next] {
			scalar, err := encodeScalar(value)
			if err != nil {
				return nil, err
			}
			out.Write(indent)
			out.WriteString("- ")
			out.WriteString(scalar)
			out.WriteByte('\n')
		}
		next++
	}
	if next < len(lists) {
		return nil, errors.New("a list of binaries has no place")
	}
	return out.Bytes(), nil
}

// plain are values that YAML takes as they are, whatever stands before them.
var plain = regexp.MustCompile(`^/[A-Za-z0-9_./+-]*$`)

func encodeScalar(value string) (string, error) {
	if plain.MatchString(value) {
		return value, nil
	}
	text, err := encode([]string{value})
	if err != nil {
		return "", err
	}
	scalar := bytes.TrimSuffix(bytes.TrimPrefix(text, []byte("- ")), []byte("\n"))
	if bytes.IndexByte(scalar, '\n') >= 0 { // a block of lines: quoted instead, on one
		node := yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: yaml.DoubleQuotedStyle}}}
		if text, err = encode(&node); err != nil {
			return "", err
		}
		scalar = bytes.TrimSuffix(bytes.TrimPrefix(text, []byte("- ")), []byte("\n"))
	}
	return string(scalar), nil
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	err := errors.Join(enc.Encode(v), enc.Close())
	return buf.Bytes(), err
}
