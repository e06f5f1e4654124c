package agenttest

import (
	"slices"
	"sync"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"profile/internal/sensor"
	"profile/internal/tetragon"
)

// nothing is a kernel in which nothing happens but what the test publishes. It
// takes enforcing policies, lists them as in force, and kills nothing.
type nothing struct {
	mu       sync.Mutex
	audits   []*quietAudit
	enforced map[string]*sensor.Enforced
}

// Hook implements sensor.Kernel.
func (n *nothing) Hook() (string, []int32, []string, error) {
	return "made up", []int32{unix.AF_INET, unix.AF_INET6, unix.AF_PACKET, unix.AF_VSOCK, unix.AF_XDP, unix.AF_SMC},
		[]string{tetragon.CallConnect, tetragon.CallBind, tetragon.CallSend, tetragon.CallReceive}, nil
}

// Audit implements sensor.Kernel.
func (n *nothing) Audit(p *sensor.Policy, publish func(*api.GetEventsResponse)) (sensor.Audit, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := &quietAudit{n: n, name: p.Name, publish: publish}
	n.audits = append(n.audits, a)
	return a, nil
}

// Enforce implements sensor.Kernel.
func (n *nothing) Enforce(p *sensor.Policy) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	mode := api.TracingPolicyMode_TP_MODE_ENFORCE
	if p.Monitor {
		mode = api.TracingPolicyMode_TP_MODE_MONITOR
	}
	n.enforced[p.Name] = &sensor.Enforced{Name: p.Name, Mode: mode, Programs: []string{"generic_kprobe"}}
	return nil
}

// count counts a kill in a policy, if it is there.
func (n *nothing) count(policy, binary string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, found := n.enforced[policy]
	if !found {
		return
	}
	kill := tetragon.PolicyKill{Path: []byte(binary), Kills: 1, LastKill: time.Now()}
	if e.Mode == api.TracingPolicyMode_TP_MODE_MONITOR {
		kill = tetragon.PolicyKill{Path: []byte(binary), Would: 1, LastWould: time.Now()}
	}
	e.Info.Kills = append(slices.Clone(e.Info.Kills), kill)
}

// Enforced implements sensor.Kernel.
func (n *nothing) Enforced() ([]sensor.Enforced, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []sensor.Enforced
	for _, e := range n.enforced {
		all = append(all, *e)
	}
	return all, nil
}

// Remove implements sensor.Kernel.
func (n *nothing) Remove(name string) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, found := n.enforced[name]
	delete(n.enforced, name)
	return found, nil
}

// SetMode implements sensor.Kernel.
func (n *nothing) SetMode(name string, mode api.TracingPolicyMode) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, found := n.enforced[name]
	if found {
		e.Mode = mode
	}
	return found, nil
}

// Tidy implements sensor.Kernel.
func (n *nothing) Tidy() error { return nil }

// publish is one moment for who asks what was posted.
func (n *nothing) publish(events []*api.GetEventsResponse) bool {
	own := make([]*api.GetEventsResponse, len(events))
	for i, ev := range events {
		own[i] = proto.Clone(ev).(*api.GetEventsResponse)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.audits) == 0 {
		return false
	}
	a := n.audits[len(n.audits)-1]
	for _, ev := range own {
		if k := ev.GetProcessKprobe(); k != nil {
			k.PolicyName = a.name
			a.posted++
		}
		a.publish(ev)
	}
	return true
}

func (n *nothing) loaded() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for _, a := range n.audits {
		names = append(names, a.name)
	}
	return names
}

// quietAudit is an audit policy of nothing.
type quietAudit struct {
	n       *nothing
	name    string
	publish func(*api.GetEventsResponse)
	posted  uint64
}

// Sensors implements sensor.Audit.
func (a *quietAudit) Sensors() []string { return []string{"generic_kprobe"} }

// Posted implements sensor.Audit.
func (a *quietAudit) Posted() uint64 {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	return a.posted
}

// Err implements sensor.Audit.
func (a *quietAudit) Err() error { return nil }

// Stop implements sensor.Audit.
func (a *quietAudit) Stop() error {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	for i, other := range a.n.audits {
		if other == a {
			a.n.audits = append(a.n.audits[:i], a.n.audits[i+1:]...)
			break
		}
	}
	return nil
}

var _ sensor.Kernel = (*nothing)(nil)
