package export

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// rowWriter writes rows by their yaml tags, as the library would: through it,
// 100,000 of them take half a minute. What a string looks like the library
// alone decides where it is not plain at first sight.
type rowWriter struct {
	out    []byte
	quoted map[string]string // what the library made of some strings
}

// maxQuoted bounds the strings that are remembered.
const maxQuoted = 1 << 12

// writeList writes row by row: nobody holds them all as text.
func writeList[T any](w *bufio.Writer, name string, rows []T) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintf(w, "%s: []\n", name)
		return err
	}
	fmt.Fprintf(w, "%s:\n", name)
	rw := &rowWriter{quoted: map[string]string{}}
	for i := range rows {
		rw.out = rw.out[:0]
		if err := rw.item(reflect.ValueOf(&rows[i]).Elem(), 0); err != nil {
			return fmt.Errorf("write an export: %w", err)
		}
		if _, err := w.Write(rw.out); err != nil {
			return err
		}
	}
	return nil
}

// textOf is a row as it is written.
func textOf[T any](row T) (string, error) {
	rw := &rowWriter{quoted: map[string]string{}}
	err := rw.item(reflect.ValueOf(&row).Elem(), 0)
	return string(rw.out), err
}

func (w *rowWriter) indent(n int) {
	for range n {
		w.out = append(w.out, ' ')
	}
}

// item writes an element of a list whose dash is at a column.
func (w *rowWriter) item(v reflect.Value, column int) error {
	w.indent(column)
	w.out = append(w.out, "- "...)
	if isScalar(v) {
		return w.scalar(v)
	}
	start := len(w.out)
	if err := w.fields(v, column+2, start); err != nil {
		return err
	}
	if len(w.out) == start {
		w.out = append(w.out, "{}\n"...)
	}
	return nil
}

// fields writes those of a struct at a column; what begins at start is there
// already.
func (w *rowWriter) fields(v reflect.Value, column, start int) error {
	for _, f := range fieldsOf(v.Type()) {
		one := v.FieldByIndex(f.index)
		if f.omitEmpty && empty(one) {
			continue
		}
		if len(w.out) != start {
			w.indent(column)
		}
		w.out = append(append(w.out, f.name...), ':')
		if err := w.value(one, column); err != nil {
			return err
		}
	}
	return nil
}

// value writes what stands behind a key at a column.
func (w *rowWriter) value(v reflect.Value, column int) error {
	switch {
	case isScalar(v):
		w.out = append(w.out, ' ')
		return w.scalar(v)
	case v.Kind() == reflect.Struct:
		w.out = append(w.out, '\n')
		return w.fields(v, column+2, 0)
	case v.Kind() == reflect.Slice:
		w.out = append(w.out, '\n')
		for i := range v.Len() {
			if err := w.item(v.Index(i), column+2); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("a %s has no form in an export", v.Type())
}

var (
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
)

func isScalar(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String, reflect.Bool, reflect.Int64, reflect.Uint64, reflect.Uint32, reflect.Uint8:
		return true
	}
	return v.Type() == timeType
}

func (w *rowWriter) scalar(v reflect.Value) error {
	switch {
	case v.Type() == timeType:
		at := v.Addr().Interface().(*time.Time)
		w.out = at.UTC().AppendFormat(w.out, time.RFC3339Nano)
	case v.Type() == durationType:
		w.out = append(w.out, time.Duration(v.Int()).String()...)
	case v.Kind() == reflect.String:
		text, err := w.text(v.String())
		if err != nil {
			return err
		}
		w.out = append(w.out, text...)
	case v.Kind() == reflect.Bool:
		w.out = strconv.AppendBool(w.out, v.Bool())
	case v.Kind() == reflect.Int64:
		w.out = strconv.AppendInt(w.out, v.Int(), 10)
	default:
		w.out = strconv.AppendUint(w.out, v.Uint(), 10)
	}
	w.out = append(w.out, '\n')
	return nil
}

func (w *rowWriter) text(s string) (string, error) {
	if isPlain(s) {
		return s, nil
	}
	if quoted, ok := w.quoted[s]; ok {
		return quoted, nil
	}
	raw, err := yaml.Marshal(text(s))
	quoted := strings.TrimSuffix(string(raw), "\n")
	if len(w.quoted) < maxQuoted {
		w.quoted[s] = quoted
	}
	return quoted, err
}

// isPlain reports whether a string can stand as it is: what it surely is not
// is anything else to a reader of YAML. Not all that are plain are known here.
func isPlain(s string) bool {
	if s == "" || !(s[0] == '/' || 'a' <= s[0]|0x20 && s[0]|0x20 <= 'z') {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("/-_.+,@~=%", c) < 0 {
			return false
		}
	}
	return len(s) > len("false") || !words[strings.ToLower(s)]
}

// words are those that YAML takes for no string, or some version of it.
var words = map[string]bool{"y": true, "n": true, "yes": true, "no": true, "on": true, "off": true, "true": true, "false": true, "null": true}

// text is a string as the library is to write it. By itself it writes text of
// several lines as a block, and reads some blocks back as another text. Bytes
// that are not UTF-8 are base64.
func text(s string) *yaml.Node {
	if !utf8.ValidString(s) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!binary", Style: yaml.TaggedStyle, Value: base64.StdEncoding.EncodeToString([]byte(s))}
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// field is one that a row has in an export; those of an inlined struct are
// among its own.
type field struct {
	name      string
	index     []int
	omitEmpty bool
}

var knownFields sync.Map // of []field, by reflect.Type

func fieldsOf(t reflect.Type) []field {
	if known, ok := knownFields.Load(t); ok {
		return known.([]field)
	}
	var all []field
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			for _, f := range fieldsOf(t.Field(i).Type) {
				f.index = append([]int{i}, f.index...)
				all = append(all, f)
			}
		case name != "-":
			all = append(all, field{name, []int{i}, options == "omitempty"})
		}
	}
	knownFields.Store(t, all)
	return all
}

func empty(v reflect.Value) bool {
	return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
}
