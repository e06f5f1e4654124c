package e2e

import (
	"strings"
	"testing"

	"profile/internal/tetragon"
	"profile/profiler"
)

func TestTheAuditPoliciesAreOnesThatTetragonTakes(t *testing.T) {
	agent := &tetragon.Agent{Families: tetragon.NetworkFamilies()[:4]}
	telling := &tetragon.Agent{Families: agent.Families, Uses: []string{tetragon.CallConnect, tetragon.CallBind}}
	except := []string{"/usr/bin/curl", "/opt/a b: #c", "on"}
	for name, p := range map[string]*tetragon.Policy{
		"execs and forks":   profiler.ProcessPolicy("20260102t030405z-abcdef"),
		"forks":             profiler.ForkPolicy("20260102t030405z-abcdef"),
		"sockets":           profiler.SocketPolicy("20260102t030405z-abcdef", agent, 1, nil),
		"sockets, narrowed": profiler.SocketPolicy("20260102t030405z-abcdef", agent, 2, except),
		"uses":              profiler.SocketPolicy("20260102t030405z-abcdef", telling, 1, nil),
		"uses, narrowed":    profiler.SocketPolicy("20260102t030405z-abcdef", telling, 2, except),
	} {
		text, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkCRD(text); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		if strings.Contains(string(text), "Sigkill") || strings.Contains(string(text), "Override") {
			t.Errorf("%s does more than look:\n%s", name, text)
		}
		if err := checkCRD([]byte(strings.Replace(string(text), "call:", "cal:", 1))); err == nil && strings.Contains(string(text), "call:") {
			t.Errorf("%s: a misspelt field is not found", name)
		}
	}
}
