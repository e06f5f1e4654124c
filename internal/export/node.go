package export

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// marshal writes a row by its yaml tags. The library alone would not do: it
// writes text of several lines as a block, and reads some blocks back as
// another text.
func marshal(row any) ([]byte, error) {
	n, err := node(reflect.ValueOf(row))
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(n)
}

func node(v reflect.Value) (*yaml.Node, error) {
	switch one := v.Interface().(type) {
	case time.Time:
		return scalar("!!timestamp", one.UTC().Format(time.RFC3339Nano)), nil
	case time.Duration:
		return text(one.String()), nil
	}
	switch v.Kind() {
	case reflect.String:
		return text(v.String()), nil
	case reflect.Bool:
		return scalar("!!bool", strconv.FormatBool(v.Bool())), nil
	case reflect.Int64:
		return scalar("!!int", strconv.FormatInt(v.Int(), 10)), nil
	case reflect.Uint64, reflect.Uint32, reflect.Uint8:
		return scalar("!!int", strconv.FormatUint(v.Uint(), 10)), nil
	case reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n, err := node(v.Index(i))
			if err != nil {
				return nil, err
			}
			list.Content = append(list.Content, n)
		}
		return list, nil
	case reflect.Struct:
		fields := &yaml.Node{Kind: yaml.MappingNode}
		return fields, addFields(fields, v)
	}
	return nil, fmt.Errorf("a %s has no form in an export", v.Type())
}

func addFields(to *yaml.Node, v reflect.Value) error {
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			if err := addFields(to, v.Field(i)); err != nil {
				return err
			}
		case name != "-" && !(options == "omitempty" && empty(v.Field(i))):
			n, err := node(v.Field(i))
			if err != nil {
				return err
			}
			to.Content = append(to.Content, text(name), n)
		}
	}
	return nil
}

func empty(v reflect.Value) bool {
	return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
}

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// text quotes what is not plain, and gives bytes that are not UTF-8 as base64.
func text(s string) *yaml.Node {
	if !utf8.ValidString(s) {
		n := scalar("!!binary", base64.StdEncoding.EncodeToString([]byte(s)))
		n.Style = yaml.TaggedStyle
		return n
	}
	n := scalar("!!str", s)
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
