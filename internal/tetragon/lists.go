package tetragon

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"gopkg.in/yaml.v3"
)

// The lists of binaries are all that is long in a policy, and the YAML library
// takes 3 µs for each value. So they are left out of what it writes and reads,
// and put in afterwards: in the form that it would have given them, and as it
// would have read them.

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

// isPlain reports whether YAML takes a value as it is, a string, whatever stands
// before it: it begins with a slash and is of letters, digits and a few others.
func isPlain[T string | []byte](value T) bool {
	if len(value) == 0 || value[0] != '/' {
		return false
	}
	for i := range len(value) {
		if !plain[value[i]] {
			return false
		}
	}
	return true
}

var plain = func() (is [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-") {
		is[c] = true
	}
	return is
}()

func encodeScalar(value string) (string, error) {
	if isPlain(value) {
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

// parseWithoutLists reads a policy as parse does, and in a tenth of the time
// where it has long lists. It gives up where it could differ from it.
//
// Lines of one indent that hold "- " and a plain value are entries of one
// sequence if the first of them is an entry of a block sequence at all: in a
// quoted or a block scalar they are not. Whether it is one the library says, of
// a line of the same form that stands for all of them. Nobody can have guessed
// that line's value, so it is met elsewhere only where an alias repeats it; then,
// and where it is no whole entry of a list of binaries, the text is read whole.
func parseWithoutLists(text []byte) (*Policy, bool) {
	short, lists := cutLists(text)
	if len(lists) == 0 {
		return nil, false
	}
	p, err := parse(short)
	if err != nil {
		return nil, false // what is wrong is to be told of the text as it is
	}
	used := 0
	for i := range p.Spec.KProbes {
		for j := range p.Spec.KProbes[i].Selectors {
			match := p.Spec.KProbes[i].Selectors[j].MatchBinaries
			for n := range match {
				values, stood := putBack(match[n].Values, lists)
				if stood > 0 { // else it stays as it was read, empty or not there
					match[n].Values = values
				}
				used += stood
			}
		}
	}
	return p, used == len(lists)
}

// putBack puts the lists in the place of the values that stand for them, and
// counts those.
func putBack(read []string, lists map[string][]string) (values []string, stood int) {
	for _, value := range read {
		if list, ok := lists[value]; ok {
			values = append(values, list...)
			stood++
		} else {
			values = append(values, value)
		}
	}
	return values, stood
}

// cutLists puts one line in the place of each run of lines that could be entries
// of a list, and gives the values of the run by the value of that line.
func cutLists(text []byte) (short []byte, lists map[string][]string) {
	lists = map[string][]string{}
	var values []string // of the run so far, each cut from text
	var indent, first []byte
	flush := func() {
		switch {
		case len(values) == 1:
			short = append(short, first...)
		case len(values) > 1:
			stand := "/" + rand.Text()
			lists[stand] = values
			short = fmt.Appendf(short, "%s- %s\n", indent, stand)
		}
		values = nil
	}
	for line := range bytes.Lines(text) {
		before, value, ok := plainEntry(line)
		if !ok {
			flush()
			short = append(short, line...)
			continue
		}
		if len(values) > 0 && !bytes.Equal(before, indent) {
			flush()
		}
		if len(values) == 0 {
			indent, first = before, line
		}
		values = append(values, string(value))
	}
	flush()
	return short, lists
}

// plainEntry takes a line apart that is an indent, "- ", a plain value and the
// end of the line, and nothing else.
func plainEntry(line []byte) (indent, value []byte, ok bool) {
	n := 0
	for n < len(line) && line[n] == ' ' {
		n++
	}
	value, ok = bytes.CutPrefix(line[n:], []byte("- "))
	if ok {
		value, ok = bytes.CutSuffix(value, []byte("\n"))
	}
	return line[:n], value, ok && isPlain(value)
}
