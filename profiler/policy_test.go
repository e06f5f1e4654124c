package profiler

import (
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/internal/cgroup"
	"profile/internal/tetragon"
)

const wantHooks = `  kprobes:
    - call: security_socket_create
      syscall: false
      args:
        - index: 0
          type: int
        - index: 1
          type: int
        - index: 2
          type: int
        - index: 3
          type: int
      selectors:
        - matchArgs:
            - index: 0
              operator: Equal
              values:
                - "2"
                - "10"
            - index: 3
              operator: Equal
              values:
                - "0"
          matchActions:
            - action: Post
    - call: security_bprm_committing_creds
      syscall: false
      args:
        - index: 0
          type: linux_binprm
    - call: wake_up_new_task
      syscall: false
      args:
        - index: 0
          type: int
          btfType: task_struct
          resolve: pid
        - index: 0
          type: int
          btfType: task_struct
          resolve: tgid
`

const wantHead = `apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: profile-learn-20260102t030405z-ab12cd
spec:
`

func TestAuditPolicy(t *testing.T) {
	const details = `  options:
    - name: profile-details
      value: "true"
`
	for _, c := range []struct {
		name, agent, cgroup, options string
	}{
		{"a Tetragon is told nothing of ours", "tetragon", "/", ""},
		{"the sensor", tetragon.SensorName, "/", details},
		{"the sensor in a cgroup", tetragon.SensorName, "/user: slice", details + "    - name: profile-cgroup\n      value: '/user: slice'\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			agent := &tetragon.Agent{Name: c.agent, Families: []string{"inet", "inet6"}}
			p := AuditPolicy("20260102t030405z-ab12cd", agent, cgroup.Group{Path: c.cgroup})
			text, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wantHead+c.options+wantHooks, string(text)); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
			again, err := tetragon.ParsePolicy(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p, again); diff != "" {
				t.Errorf("read again (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSessionIDsSortAndFitAPolicyName(t *testing.T) {
	at := time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC)
	first, second, later := sessionID(at), sessionID(at), sessionID(at.Add(time.Second))
	if first == second {
		t.Errorf("two sessions of one second are both %s", first)
	}
	if first >= later {
		t.Errorf("%s sorts after %s", first, later)
	}
	if form := regexp.MustCompile(`^20261231t235959z-[0-9a-f]{6}$`); !form.MatchString(first) {
		t.Errorf("session %q is not of the form %s", first, form)
	}
}
