package enforcer

import (
	"fmt"
	"strings"

	"profile/internal/ability"
	"profile/internal/owner"
)

// tellAbility tells what the file there now could do.
func tellAbility(path string) string {
	can, err := ability.Of(path)
	switch {
	case err != nil:
		return fmt.Sprintf("what it could do cannot be told: %v", err)
	case can.Unknown != "":
		return "what it could do cannot be told: " + can.Unknown
	case len(can.Able) == 0:
		return "it imports nothing that opens a network socket"
	}
	words := map[string]string{ability.Sockets: "open sockets", ability.Resolver: "resolve names", ability.TLS: "speak TLS",
		ability.Loads: "load more code as it runs"}
	var told []string
	for _, one := range can.Able {
		told = append(told, words[one])
	}
	text := "by what it imports it could " + strings.Join(told, ", ")
	if can.Has(ability.Resolver) {
		text += "; " + fallsBack
	}
	return text
}

// members tells of the family of a path: which others of it were learned.
func (x *explainer) members(path string) ([]string, error) {
	f, ok := familyOf(path)
	if !ok {
		return nil, nil
	}
	pattern, _ := printable(f.pattern)
	told := []string{fmt.Sprintf("one of the family %s: %s", pattern, f.why)}
	for rows, err := range x.tx.Executables() {
		if err != nil {
			return nil, err
		}
		key := rows[0].Key
		if other, ok := familyOf(key.Path); !ok || other != f || key.Path == path {
			continue
		}
		v, err := x.c.judge(rows)
		if err != nil {
			return nil, err
		}
		text, _ := printable(key.Path)
		told = append(told, fmt.Sprintf("  another is %s: %s", text, v.Kind))
	}
	return told, nil
}

func tellOwners(owners []owner.Package) string {
	var told []string
	for _, p := range owners {
		told = append(told, strings.TrimSpace(p.Name+" "+p.Version))
	}
	if len(told) == 1 {
		return "the package " + told[0]
	}
	return "the packages " + strings.Join(told, " and ")
}
