package enforcer

import (
	"fmt"
	"strings"

	"profile/store"
)

// tellScope names the scope of a container.
func tellScope(scope string) string {
	if scope == store.OtherContainers {
		return "containers beyond those that are kept apart"
	}
	text, _ := printable(scope)
	sort, name, _ := strings.Cut(text, ":")
	switch sort {
	case "pod":
		return "pod " + name
	case "pidns":
		return "container without a name (pid namespace " + name + ")"
	case "container":
		text = name
	}
	return "container " + text
}

// fewScopes is how many containers a reason names.
const fewScopes = 3

// notQuiet gives, as reasons to hold a path, the containers in which it is not
// quiet.
func (p *planner) notQuiet(containers [][]store.Evidence) []string {
	var why []string
	more := 0
	for _, rows := range containers {
		if len(kept(rows, p.c.has)) == 0 {
			continue
		}
		v, _ := p.c.judge(rows)
		reason := tellVerdict(v)
		switch {
		case reason == "":
		case len(why) == fewScopes:
			more++
		default:
			why = append(why, "not quiet in "+tellScope(rows[0].Key.Scope)+": "+reason)
		}
	}
	if more > 0 {
		why = append(why, fmt.Sprintf("nor in %d more", more))
	}
	return why
}
