package export

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// errOdd says that a text is not just as Write writes it. It may be YAML, and an
// export, all the same.
var errOdd = errors.New("it is not of the usual form")

// rowReader reads what Write writes, line by line and ten times as fast as the
// library does, and nothing else: whatever it is not sure of is errOdd, and the
// library's to read.
type rowReader struct {
	rest   []byte // after the line
	line   []byte // what is left of it, behind its indent
	column int    // where that begins; -1 at the end

	quoted map[string]string // what the library made of some strings
}

// readUsual reads a whole export.
func readUsual(all []byte) (*file, error) {
	if bytes.IndexByte(all, 0) >= 0 || bytes.IndexByte(all, '\r') >= 0 || bytes.IndexByte(all, '\t') >= 0 {
		return nil, errOdd
	}
	r := &rowReader{rest: all, quoted: map[string]string{}}
	r.next()
	f := new(file)
	err := r.fields(reflect.ValueOf(f).Elem(), 0)
	if err == nil && r.column >= 0 {
		err = errOdd
	}
	return f, err
}

// next goes to the next line.
func (r *rowReader) next() {
	if len(r.rest) == 0 {
		r.line, r.column = nil, -1
		return
	}
	line, rest, _ := bytes.Cut(r.rest, []byte("\n"))
	text := bytes.TrimLeft(line, " ")
	r.rest, r.line, r.column = rest, text, len(line)-len(text)
}

// fields reads those of a struct whose keys are at a column.
func (r *rowReader) fields(to reflect.Value, column int) error {
	known := fieldsOf(to.Type())
	var seen uint64
	for r.column == column {
		key, rest, ok := bytes.Cut(r.line, []byte(":"))
		i := 0
		for ; i < len(known) && known[i].name != string(key); i++ {
		}
		if !ok || i == len(known) || seen&(1<<i) != 0 {
			return errOdd
		}
		seen |= 1 << i
		if err := r.value(to.FieldByIndex(known[i].index), rest, column); err != nil {
			return err
		}
	}
	if r.column > column {
		return errOdd
	}
	return nil
}

// value reads what stands behind a key at a column, or on the lines below it.
func (r *rowReader) value(to reflect.Value, rest []byte, column int) error {
	list := to.Kind() == reflect.Slice
	switch {
	case len(rest) > 0 && (rest[0] != ' ' || len(rest) == 1):
		return errOdd
	case list && string(rest) == " []":
		to.Set(reflect.MakeSlice(to.Type(), 0, 0))
		r.next()
		return nil
	case isScalar(to) && len(rest) > 0:
		err := r.scalar(to, string(rest[1:]))
		r.next()
		return err
	case isScalar(to) || len(rest) > 0:
		return errOdd
	}
	r.next()
	if r.column < column || r.column == column && !list {
		return errOdd // it is null
	}
	if list {
		return r.items(to, r.column)
	}
	return r.fields(to, r.column)
}

// items reads those of a list whose dashes are at a column.
func (r *rowReader) items(to reflect.Value, column int) error {
	some := false
	for r.column == column && bytes.HasPrefix(r.line, []byte("- ")) {
		to.Grow(1)
		to.SetLen(to.Len() + 1)
		one := to.Index(to.Len() - 1)
		one.SetZero()
		r.line, r.column = r.line[2:], column+2
		switch {
		case isScalar(one):
			if err := r.scalar(one, string(r.line)); err != nil {
				return err
			}
			r.next()
		case string(r.line) == "{}":
			r.next()
		default:
			if err := r.fields(one, column+2); err != nil {
				return err
			}
		}
		some = true
	}
	if !some || r.column > column {
		return errOdd
	}
	return nil
}

// scalar reads one value.
func (r *rowReader) scalar(to reflect.Value, s string) error {
	ok := false
	switch {
	case to.Type() == timeType:
		at, err := time.Parse(time.RFC3339Nano, s)
		if ok = err == nil && strings.HasSuffix(s, "Z"); ok {
			*to.Addr().Interface().(*time.Time) = at
		}
	case to.Type() == durationType:
		d, err := time.ParseDuration(s)
		if ok = err == nil && s[len(s)-1] == 's'; ok {
			to.SetInt(int64(d))
		}
	case to.Kind() == reflect.String:
		return r.text(to, s)
	case to.Kind() == reflect.Bool:
		if ok = s == "true" || s == "false"; ok {
			to.SetBool(s == "true")
		}
	case to.Kind() == reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if ok = err == nil && strconv.FormatInt(n, 10) == s; ok {
			to.SetInt(n)
		}
	default:
		n, err := strconv.ParseUint(s, 10, to.Type().Bits())
		if ok = err == nil && strconv.FormatUint(n, 10) == s; ok {
			to.SetUint(n)
		}
	}
	if !ok {
		return errOdd
	}
	return nil
}

func (r *rowReader) text(to reflect.Value, s string) error {
	if isPlain(s) {
		to.SetString(s)
		return nil
	}
	known, ok := r.quoted[s]
	if !ok {
		var err error
		if known, err = unquote(s); err != nil {
			return err
		}
		if len(r.quoted) < maxQuoted {
			r.quoted[s] = known
		}
	}
	to.SetString(known)
	return nil
}

// unquote has the library read one string.
func unquote(s string) (string, error) {
	if encoded, binary := strings.CutPrefix(s, "!!binary "); binary {
		raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if err != nil {
			return "", errOdd
		}
		return string(raw), nil
	}
	// One scalar on one line, with an end that the library sees too.
	var n yaml.Node
	if err := yaml.Unmarshal([]byte("a: "+s+"\nb: 0\n"), &n); err != nil || len(n.Content) != 1 || len(n.Content[0].Content) != 4 {
		return "", errOdd
	}
	for _, part := range n.Content[0].Content {
		if part.HeadComment+part.LineComment+part.FootComment != "" {
			return "", errOdd
		}
	}
	one := n.Content[0].Content[1]
	if one.Kind != yaml.ScalarNode || one.Tag != "!!str" || one.Anchor != "" || n.Content[0].Content[2].Value != "b" ||
		one.Style&(yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) != 0 {
		return "", errOdd
	}
	return one.Value, nil
}
