package tetragon

import (
	"errors"
	"testing"
)

func TestAbilitiesOfVersions(t *testing.T) {
	all := Abilities{Monitor: true, Counters: true, TaskArgs: true, Sockaddrs: true}
	for _, c := range []struct {
		version string
		info    bool
		want    Abilities
	}{
		{"v1.3.0", false, Abilities{}},
		{"v1.4.1", false, Abilities{Monitor: true, Sockaddrs: true}},
		{"v1.5.0", false, Abilities{Monitor: true, Sockaddrs: true}},
		{"v1.6.1", false, all},
		{"v1.7.0", true, all},
		{"1.10.0-rc.1", false, all},
		{"v1.6.0-345-gabcdef0", false, all},
		{"v2.0.0", true, all},
		{"main", false, Abilities{}},
		{"", false, Abilities{}},
		{"a build of somebody's", true, all},
	} {
		if got := abilitiesOf(c.version, c.info); got != c.want {
			t.Errorf("%q (GetInfo %v): %+v, want %+v", c.version, c.info, got, c.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"unix:///run/tetragon.sock": "", "localhost:54321": "", "127.0.0.1:54321": "", "[::1]:54321": "",
		"10.0.0.7:54321": "plain", "node7:54321": "plain", "[2001:db8::1]:54321": "plain", "localhost.example.org:1": "plain",
		"node7": "none", "/run/tetragon.sock": "none", "": "none", "::1": "none",
	} {
		err := CheckAddress(address, false)
		if (err != nil) != (want != "") || errors.Is(err, ErrPlaintext) != (want == "plain") {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
		if err := CheckAddress(address, true); (err != nil) != (want == "none") {
			t.Errorf("%q, insecure: %v", address, err)
		}
	}
}

func TestAMonitorPolicyIsNotSentToAnAgentThatWouldKill(t *testing.T) {
	p := NewPolicy("p")
	p.Spec.Options = []Option{{Name: OptionMode, Value: "monitor"}}
	old := &Agent{Name: "tetragon"}
	if _, err := old.withoutMode(p); !errors.Is(err, ErrNoMonitor) {
		t.Errorf("error %v, want ErrNoMonitor", err)
	}
	p.Spec.Options[0].Value = "enforce"
	plain, err := old.withoutMode(p)
	if err != nil || len(plain.Spec.Options) != 0 || len(p.Spec.Options) != 1 {
		t.Errorf("policy %+v, error %v; want a copy without the option", plain, err)
	}
}
