package profiler

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"profile/internal/cgroup"
	"profile/internal/tetragon"
)

const wantSockets = `    - call: security_socket_create
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
`

const wantUses = `    - call: security_socket_connect
      syscall: false
      args:
        - index: 0
          type: socket
        - index: 1
          type: sockaddr
      selectors:
        - matchArgs:
            - index: 0
              operator: Family
              values:
                - "2"
                - "10"
          matchActions:
            - action: Post
    - call: security_socket_bind
      syscall: false
      args:
        - index: 0
          type: socket
        - index: 1
          type: sockaddr
      selectors:
        - matchArgs:
            - index: 0
              operator: Family
              values:
                - "2"
                - "10"
          matchActions:
            - action: Post
`

const wantExecs = `    - call: security_bprm_committing_creds
      syscall: false
      args:
        - index: 0
          type: linux_binprm
`

const wantNamespace = `      data:
        - index: 0
          type: uint32
          resolve: nsproxy.pid_ns_for_children.ns.inum
          label: profile-pidns
          source: current_task
`

const wantForks = `    - call: wake_up_new_task
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

const (
	wantHead = `apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: profile-learn-20260102t030405z-ab12cd%s
spec:
`
	wantDetails = `  options:
    - name: profile-details
      value: "true"
`
)

func TestAuditPolicies(t *testing.T) {
	const session = "20260102t030405z-ab12cd"
	sensor := &tetragon.Agent{Name: tetragon.SensorName, Families: []string{"inet", "inet6"}}
	agent := &tetragon.Agent{Name: "tetragon", Families: []string{"inet", "inet6"}}
	head := func(suffix, rest string) string { return strings.Replace(wantHead, "%s", suffix, 1) + rest }
	telling := &tetragon.Agent{Name: "tetragon", Families: []string{"inet", "inet6"}, Uses: []string{tetragon.CallConnect, tetragon.CallBind}}
	except := []string{"/usr/bin/curl", "/usr/bin/n: c"}
	narrow := func(hooks string) string {
		return strings.ReplaceAll(hooks, "        - matchArgs:\n", "        - matchBinaries:\n            - operator: NotIn\n              values:\n"+
			"                - /usr/bin/curl\n                - '/usr/bin/n: c'\n          matchArgs:\n")
	}
	families := func(operator string) string {
		short := "              operator: Equal\n              values:\n                - \"2\"\n                - \"10\"\n"
		long := strings.Replace(short, "Equal", operator, 1) + "                - \"17\"\n                - \"40\"\n                - \"44\"\n                - \"43\"\n"
		return strings.Replace(wantSockets, short, long, 1)
	}
	for _, c := range []struct {
		name string
		p    *tetragon.Policy
		want string
	}{
		{"the sensor", AuditPolicy(session, sensor, cgroup.Group{Path: "/"}), head("", wantDetails+"  kprobes:\n"+wantSockets+wantExecs+wantForks)},
		{"the sensor in a cgroup", AuditPolicy(session, sensor, cgroup.Group{Path: "/user: slice"}),
			head("", wantDetails+"    - name: profile-cgroup\n      value: '/user: slice'\n  kprobes:\n"+wantSockets+wantExecs+wantForks)},
		{"processes of a Tetragon", ProcessPolicy(session), head("", "  kprobes:\n"+wantExecs+wantNamespace+wantForks)},
		{"sockets of a Tetragon", SocketPolicy(session, agent, 1, nil), head("-sockets", "  kprobes:\n"+wantSockets)},
		{"narrowed", SocketPolicy(session, agent, 2, except), head("-narrowed-2", "  kprobes:\n"+narrow(wantSockets))},
		{"what sockets are used for", SocketPolicy(session, telling, 1, nil), head("-sockets", "  kprobes:\n"+wantSockets+wantUses)},
		{"narrowed too", SocketPolicy(session, telling, 9, except), head("-narrowed-1", "  kprobes:\n"+narrow(wantSockets+wantUses))},
		{"more families than Equal takes", SocketPolicy(session, &tetragon.Agent{Name: "tetragon", Families: tetragon.NetworkFamilies()}, 1, nil),
			head("-sockets", "  kprobes:\n"+families("InMap"))},
		{"more families, of the sensor", AuditPolicy(session, &tetragon.Agent{Name: tetragon.SensorName, Families: tetragon.NetworkFamilies()}, cgroup.Group{Path: "/"}),
			head("", wantDetails+"    - name: profile-vsock\n      value: \"true\"\n  kprobes:\n"+families("InMap")+wantExecs+wantForks)},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := c.p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(text)); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
			again, err := tetragon.ParsePolicy(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.p, again); diff != "" {
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
	if form := regexp.MustCompile(`^20261231t235959z-[0-9a-f]{16}$`); !form.MatchString(first) {
		t.Errorf("session %q is not of the form %s", first, form)
	}
}
