package agenttest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"profile/internal/sensor"
	"profile/internal/tetragon"
)

// A Tetragon has any number of audit policies, each of which posts an event of
// its own, where the sensor has one for each client. So the sensor under a
// Tetragon has one that tells all, and what it tells is posted again by each
// policy that is loaded.

// feedName is the name of that policy.
const feedName = "agenttest-feed"

// audits are the audit policies of a Tetragon.
type audits struct {
	mu       sync.Mutex
	all      []*auditPolicy
	fed      bool
	execs    map[uint32]string // by pid: what an exec under way runs
	binaries map[uint32]string // and what a process runs
}

type auditPolicy struct {
	name    string
	calls   []string // its hooks, functions or tracepoints
	except  []string // of a NotIn
	posted  uint64
	failure error // why it could not be loaded
	off     bool  // a person has disabled it
}

// dressed is a kernel whose events are posted by the audit policies.
type dressed struct {
	sensor.Kernel
	audits *audits
}

// Audit implements sensor.Kernel.
func (d dressed) Audit(p *sensor.Policy, publish func(*api.GetEventsResponse)) (sensor.Audit, error) {
	return d.Kernel.Audit(p, func(ev *api.GetEventsResponse) { d.audits.post(ev, publish) })
}

// feed loads what the policies are fed by.
func (s *server) feed(ctx context.Context) error {
	if !s.a.audits.needsFeed() {
		return nil
	}
	info, err := s.Server.GetInfo(ctx, &api.GetInfoRequest{})
	if err != nil {
		return err
	}
	var families []string
	var uses []tetragon.KProbe
	for _, probe := range info.GetProbes() {
		if !probe.GetEnabled().GetValue() {
			continue
		}
		name, is := strings.CutPrefix(probe.GetName(), tetragon.FamilyProbe)
		if number, known := tetragon.FamilyNumber(name); is && known {
			families = append(families, strconv.Itoa(int(number)))
		}
		if call, is := strings.CutPrefix(probe.GetName(), tetragon.UseProbe); is && call != tetragon.CallReceive {
			uses = append(uses, tetragon.KProbe{Call: call, Args: []tetragon.Arg{{Type: "socket"}, {Index: 1, Type: "sockaddr"}}})
		}
	}
	p := tetragon.NewPolicy(feedName)
	number := tetragon.Arg{Type: "int"}
	p.Spec.KProbes = []tetragon.KProbe{
		{Call: tetragon.CallSocketCreate, Args: []tetragon.Arg{number, {Index: 1, Type: "int"}, {Index: 2, Type: "int"}, {Index: 3, Type: "int"}},
			Selectors: []tetragon.Selector{{MatchArgs: []tetragon.MatchArgs{
				{Index: 0, Operator: "Equal", Values: families}, {Index: 3, Operator: "Equal", Values: []string{"0"}}}}}},
		{Call: tetragon.CallExec, Args: []tetragon.Arg{{Type: "linux_binprm"}}},
		{Call: tetragon.CallFork, Args: []tetragon.Arg{
			{Type: "int", BTFType: "task_struct", Resolve: "pid"}, {Type: "int", BTFType: "task_struct", Resolve: "tgid"}}},
	}
	p.Spec.KProbes = append(p.Spec.KProbes, uses...)
	text, err := p.Marshal()
	if err == nil {
		_, err = s.Server.AddTracingPolicy(ctx, &api.AddTracingPolicyRequest{Yaml: string(text)})
	}
	return err
}

func (a *audits) needsFeed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.fed
	a.fed = true
	return first
}

// forget is for an agent that is restarted.
func (a *audits) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all, a.fed, a.execs, a.binaries = nil, false, map[uint32]string{}, map[uint32]string{}
}

// acts reports whether a policy does more than to post.
func acts(p *tetragon.Policy) bool {
	return slices.ContainsFunc(p.Spec.KProbes, func(k tetragon.KProbe) bool {
		return slices.ContainsFunc(k.Selectors, func(s tetragon.Selector) bool {
			return slices.ContainsFunc(s.MatchActions, func(m tetragon.MatchAction) bool { return m.Action != "Post" })
		})
	})
}

// add loads a policy, or lists it as one that could not be.
func (a *audits) add(p *tetragon.Policy, failure error) error {
	one := &auditPolicy{name: p.Metadata.Name, failure: failure}
	for _, k := range p.Spec.KProbes {
		one.calls = append(one.calls, k.Call)
		for _, s := range k.Selectors {
			for _, m := range s.MatchBinaries {
				if m.Operator != "NotIn" {
					return errors.New("this test agent takes NotIn alone")
				}
				one.except = append(one.except, m.Values...)
			}
		}
	}
	for _, t := range p.Spec.TracePoints {
		one.calls = append(one.calls, t.Event)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.all, func(o *auditPolicy) bool { return o.name == one.name })
	if i >= 0 && a.all[i].failure == nil {
		return errors.New("failed to add tracing policy: a sensor collection with the key already exists")
	}
	if i >= 0 {
		a.all = slices.Delete(a.all, i, i+1)
	}
	a.all = append(a.all, one)
	return failure
}

func (a *audits) remove(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := len(a.all)
	a.all = slices.DeleteFunc(a.all, func(o *auditPolicy) bool { return o.name == name })
	return len(a.all) < before
}

func (a *audits) names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for _, one := range a.all {
		names = append(names, one.name)
	}
	return names
}

func (a *audits) lose(name string, n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, one := range a.all {
		if one.name == name || name == "" && i == len(a.all)-1 {
			one.posted += n
		}
	}
}

func (a *audits) disable(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.all, func(o *auditPolicy) bool { return o.name == name })
	if i >= 0 {
		a.all[i].off = true
	}
	return i >= 0
}

func (a *audits) list() []*api.TracingPolicyStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []*api.TracingPolicyStatus
	for _, one := range a.all {
		st := &api.TracingPolicyStatus{Name: one.name, Sensors: []string{"generic_kprobe"},
			State: api.TracingPolicyState_TP_STATE_ENABLED, Mode: api.TracingPolicyMode_TP_MODE_MONITOR_ONLY,
			Stats: &api.TracingPolicyStats{ActionCounters: &api.TracingPolicyActionCounters{Post: one.posted}}}
		if one.failure != nil {
			st.State, st.Sensors, st.Error = api.TracingPolicyState_TP_STATE_LOAD_ERROR, nil, one.failure.Error()
		}
		if one.off {
			st.State = api.TracingPolicyState_TP_STATE_DISABLED
		}
		list = append(list, st)
	}
	return list
}

// post publishes an event once for each policy that posts it, or as it is if
// it is of none.
func (a *audits) post(ev *api.GetEventsResponse, publish func(*api.GetEventsResponse)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch e := ev.GetEvent().(type) {
	case *api.GetEventsResponse_ProcessKprobe:
		pid := e.ProcessKprobe.GetProcess().GetPid().GetValue()
		if args := e.ProcessKprobe.GetArgs(); e.ProcessKprobe.GetFunctionName() == tetragon.CallExec && len(args) > 0 {
			a.execs[pid] = args[0].GetLinuxBinprmArg().GetPath()
		}
		for i, one := range a.posting(e.ProcessKprobe.GetFunctionName(), a.binaries[pid]) {
			if i > 0 { // the one before may be on its way
				ev = proto.Clone(ev).(*api.GetEventsResponse)
			}
			ev.GetProcessKprobe().PolicyName = one.name
			publish(ev)
		}
		return
	case *api.GetEventsResponse_ProcessTracepoint:
		for i, one := range a.posting(e.ProcessTracepoint.GetEvent(), "") {
			if i > 0 {
				ev = proto.Clone(ev).(*api.GetEventsResponse)
			}
			ev.GetProcessTracepoint().PolicyName = one.name
			publish(ev)
		}
		return
	case *api.GetEventsResponse_ProcessExec:
		pid := e.ProcessExec.GetProcess().GetPid().GetValue()
		a.binaries[pid] = a.execs[pid]
	}
	publish(ev)
}

// posting gives the policies that post what a binary does, and counts it.
func (a *audits) posting(call, binary string) []*auditPolicy {
	var all []*auditPolicy
	for _, one := range a.all {
		if one.failure == nil && !one.off && slices.Contains(one.calls, call) && !slices.Contains(one.except, binary) {
			one.posted++
			all = append(all, one)
		}
	}
	return all
}
