package tetragon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// SensorName is what the embedded sensor calls itself in GetInfo.
const SensorName = "profile-sensor"

// HookProbe, FamilyProbe and UseProbe are prefixes of the probes that the embedded
// sensor lists in GetInfo: which hook it uses, which families that one sees.
const (
	HookProbe   = "hook:"
	FamilyProbe = "family:"
	UseProbe    = "use:" // a call that says what a socket is used for, such as CallConnect
)

// Embedded is the address of the embedded sensor in process.
const Embedded = "embedded"

// ErrOption is returned for a policy with an option of ours that the agent has
// no word for: it would be ignored, and the policy would act on the whole
// machine.
var ErrOption = errors.New("the agent has no such option")

// ErrNoMonitor is returned for a policy in monitor mode where the agent would
// enforce it all the same.
var ErrNoMonitor = errors.New("this version of Tetragon has no monitor mode (it came with v1.4): it would kill")

// SensorRequest is how many bytes a request to the embedded sensor may have.
const SensorRequest = 64 << 20

// A Tetragon takes what gRPC takes by itself; a request has a few bytes more
// than the policy in it.
const (
	tetragonRequest = 4 << 20
	envelope        = 1 << 10
)

// Agent is a connection to an agent, with what it said of itself. It is safe
// for concurrent use.
type Agent struct {
	Address string
	Name    string // SensorName, or "tetragon"
	Version string
	Abilities

	// Hook is the socket hook, and Families are those that it sees, named as in
	// NetworkFamilies.
	Hook     string
	Families []string
	// Uses are the calls that tell what a socket is used for, which an audit
	// policy may hook. Of a Tetragon they are those that are not too many: it
	// tells of each call, where the embedded sensor tells the first of a kind.
	Uses []string
	// MaxPolicy is how many bytes of YAML one policy may have.
	MaxPolicy int

	Client tetragon.FineGuidanceSensorsClient
	close  func() error
	// headersWithin is how long the embedded sensor may take to say that one is
	// subscribed; 0 is as long as it takes.
	headersWithin time.Duration
}

// PolicyInfo is the JSON text that the embedded sensor gives as the info of a
// policy: the counts that the API has no field for.
type PolicyInfo struct {
	Cgroup string       `json:"cgroup,omitempty"`
	Kills  []PolicyKill `json:"kills,omitempty"`
	// Errors counts sockets that an enforcing policy could not judge.
	Errors uint64 `json:"errors,omitempty"`
	// Unseen says that the policy is in the kernel, pinned where the sensor does
	// not see it: for all that is known it acts.
	Unseen bool `json:"unseen,omitempty"`
}

// PolicyKill counts one executable's attempts. Path is base64 in JSON, being
// bytes.
type PolicyKill struct {
	Path      []byte    `json:"path"`
	Kills     uint64    `json:"kills,omitempty"`
	Would     uint64    `json:"would,omitempty"`
	LastKill  time.Time `json:"last_kill,omitzero"`
	LastWould time.Time `json:"last_would,omitzero"`
}

// Dial connects to the agent at an address: unix:///PATH or HOST:PORT. From
// then on no call of it but a stream goes on for ever: loading a policy has two
// minutes, any other call half of one, and say, if it is not nil, is told now
// and then of one that is waited for. It is called from any goroutine.
func Dial(ctx context.Context, address string, say func(string)) (*Agent, error) {
	return dial(ctx, address, patient(say))
}

func dial(ctx context.Context, address string, p *patience) (*Agent, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)), grpc.WithUnaryInterceptor(p.unary))
	if err != nil {
		return nil, fmt.Errorf("connect to agent %s: %w", address, err)
	}
	a, err := Connect(ctx, address, conn, conn.Close)
	if err != nil {
		conn.Close()
		return nil, err
	}
	a.headersWithin = p.answer
	return a, nil
}

// Connect asks the agent behind conn what it is. Close calls closer.
func Connect(ctx context.Context, address string, conn grpc.ClientConnInterface, closer func() error) (*Agent, error) {
	a := &Agent{Address: address, Client: tetragon.NewFineGuidanceSensorsClient(conn), close: closer}
	if err := a.ask(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// Again asks the agent anew what it can do, since one that was away may have
// been upgraded. What it gives shares the connection, and a is no longer to be
// used. One that is another sort of agent now is ErrOther.
func (a *Agent) Again(ctx context.Context) (*Agent, error) {
	again := &Agent{Address: a.Address, Client: a.Client, close: a.close, headersWithin: a.headersWithin}
	switch err := again.ask(ctx); {
	case err != nil:
		return nil, err
	case again.Name != a.Name:
		return nil, fmt.Errorf("agent %s was %s, and %s answers now: %w", a.Address, a.Name, again.Name, ErrOther)
	case a.IsSensor():
		return a, nil // what is watched was said when it was first asked
	}
	return again, nil
}

// ErrOther is returned where another sort of agent has taken the place of one.
var ErrOther = errors.New("what it watches is not the same")

// ask finds out what the agent is.
func (a *Agent) ask(ctx context.Context) error {
	version, err := a.Client.GetVersion(ctx, &tetragon.GetVersionRequest{})
	if err != nil {
		return fmt.Errorf("ask agent %s for its version: %w", a.Address, err)
	}
	a.Name, a.Version = "tetragon", version.GetVersion()
	a.MaxPolicy = tetragonRequest - envelope
	a.Hook, a.Families = "kprobe/"+CallSocketCreate, NetworkFamilies()
	info, err := a.Client.GetInfo(ctx, &tetragon.GetInfoRequest{})
	switch {
	case err == nil && info.GetName() == SensorName:
		a.Name, a.MaxPolicy = SensorName, SensorRequest-envelope
		a.readProbes(info.GetProbes())
	case err != nil && status.Code(err) != codes.Unimplemented:
		return fmt.Errorf("ask agent %s what it is: %w", a.Address, err)
	}
	a.Abilities = abilitiesOf(a.Version, err == nil)
	if !a.IsSensor() && a.Sockaddrs {
		a.Uses = []string{CallConnect, CallBind}
	}
	return nil
}

func (a *Agent) readProbes(probes []*tetragon.GetInfoResponse_Probe) {
	a.Hook, a.Families = "", nil
	for _, p := range probes {
		if !p.GetEnabled().GetValue() {
			continue
		}
		if name, ok := strings.CutPrefix(p.GetName(), HookProbe); ok {
			a.Hook = name
		}
		if name, ok := strings.CutPrefix(p.GetName(), UseProbe); ok {
			a.Uses = append(a.Uses, name)
		}
		if name, ok := strings.CutPrefix(p.GetName(), FamilyProbe); ok {
			a.Families = append(a.Families, name)
		}
	}
}

// WatchVsock adds AF_VSOCK to the families of the embedded sensor, whose hook
// may see it only at the price of one on every system call of the machine:
// some 50 ns each (FACTS 24), and blind to int 0x80 and io_uring (FACTS 37).
// It reports whether it is at that price.
func (a *Agent) WatchVsock() bool {
	if !a.IsSensor() || slices.Contains(a.Families, "vsock") {
		return false
	}
	a.Families = append(a.Families, "vsock")
	a.Hook += " tp_btf/sys_enter"
	return true
}

// IsSensor reports whether the agent is the embedded sensor, which alone knows
// the options of this project.
func (a *Agent) IsSensor() bool { return a.Name == SensorName }

// OnThisHost reports whether what runs here is the agent's to see: it is the
// embedded sensor, or its address is a unix socket or a loopback one.
func (a *Agent) OnThisHost() bool { return a.IsSensor() || isLocal(a.Address) }

// Close ends the connection.
func (a *Agent) Close() error { return a.close() }

// Add loads a policy and checks that it is there: enabled, with sensors, and
// in the mode it asked for. A policy that does not check out is deleted again.
func (a *Agent) Add(ctx context.Context, p *Policy) error {
	if !a.IsSensor() {
		for _, o := range p.Spec.Options {
			if o.Name != OptionMode {
				return fmt.Errorf("policy %s for agent %s: option %s: %w", p.Metadata.Name, a.Address, o.Name, ErrOption)
			}
		}
		var err error
		if p, err = a.withoutMode(p); err != nil {
			return err
		}
	}
	text, err := p.Marshal()
	if err != nil {
		return err
	}
	if _, err := a.Client.AddTracingPolicy(ctx, &tetragon.AddTracingPolicyRequest{Yaml: string(text)}); err != nil {
		switch status.Code(err) {
		case codes.InvalidArgument, codes.Unknown: // the second is all that a Tetragon says
			err = fmt.Errorf("the agent refused it: %w", err)
		}
		return fmt.Errorf("load policy %s: %w", p.Metadata.Name, err)
	}
	if err := a.check(ctx, p); err != nil {
		left := a.Delete(context.WithoutCancel(ctx), p.Metadata.Name)
		if status.Code(left) == codes.NotFound {
			left = nil
		}
		return errors.Join(err, left)
	}
	return nil
}

// withoutMode is the policy as an agent takes it that does not know modes. It
// enforces whatever mode it is asked for.
func (a *Agent) withoutMode(p *Policy) (*Policy, error) {
	mode, ok := p.Option(OptionMode)
	switch {
	case a.Monitor || !ok:
		return p, nil
	case mode == "monitor":
		return nil, fmt.Errorf("policy %s for agent %s: %w", p.Metadata.Name, a.Address, ErrNoMonitor)
	}
	plain := *p
	plain.Spec.Options = slices.DeleteFunc(slices.Clone(p.Spec.Options), func(o Option) bool { return o.Name == OptionMode })
	return &plain, nil
}

// modes are those that a policy can be switched between.
var modes = map[string]tetragon.TracingPolicyMode{
	"enforce": tetragon.TracingPolicyMode_TP_MODE_ENFORCE,
	"monitor": tetragon.TracingPolicyMode_TP_MODE_MONITOR,
}

// SetMode switches a loaded policy to monitor or to enforce, at once, and
// checks that it did.
func (a *Agent) SetMode(ctx context.Context, name, mode string) error {
	want, ok := modes[mode]
	if !ok || !a.Monitor {
		return fmt.Errorf("policy %s to mode %q: %w", name, mode, ErrNoMonitor)
	}
	if _, err := a.Client.ConfigureTracingPolicy(ctx, &tetragon.ConfigureTracingPolicyRequest{Name: name, Mode: &want}); err != nil {
		return fmt.Errorf("switch policy %s to mode %s: %w", name, mode, err)
	}
	st, err := a.Policy(ctx, name)
	if err == nil && (st.GetMode() != want || st.GetState() != tetragon.TracingPolicyState_TP_STATE_ENABLED) {
		err = fmt.Errorf("the agent lists it as %s, %s", st.GetState(), st.GetMode())
	}
	if err != nil {
		return fmt.Errorf("switch policy %s to mode %s: %w", name, mode, err)
	}
	return nil
}

func (a *Agent) check(ctx context.Context, p *Policy) error {
	st, err := a.Policy(ctx, p.Metadata.Name)
	if err != nil {
		return err
	}
	if st == nil {
		return fmt.Errorf("load policy %s: the agent does not list it afterwards", p.Metadata.Name)
	}
	if st.GetState() != tetragon.TracingPolicyState_TP_STATE_ENABLED || len(st.GetSensors()) == 0 {
		return fmt.Errorf("load policy %s: the agent lists it as %s with %d sensors: %s",
			p.Metadata.Name, st.GetState(), len(st.GetSensors()), cmp.Or(st.GetError(), "it acts on nothing then"))
	}
	if mode, ok := p.Option(OptionMode); ok && st.GetMode() != modes[mode] {
		return fmt.Errorf("load policy %s: asked for mode %s, the agent lists it as %s", p.Metadata.Name, mode, st.GetMode())
	}
	return nil
}

// Delete removes a policy.
func (a *Agent) Delete(ctx context.Context, name string) error {
	if _, err := a.Client.DeleteTracingPolicy(ctx, &tetragon.DeleteTracingPolicyRequest{Name: name}); err != nil {
		return fmt.Errorf("delete policy %s: %w", name, err)
	}
	return nil
}

// Policies lists the loaded policies whose names begin with prefix.
func (a *Agent) Policies(ctx context.Context, prefix string) ([]*tetragon.TracingPolicyStatus, error) {
	list, err := a.Client.ListTracingPolicies(ctx, &tetragon.ListTracingPoliciesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list policies of agent %s: %w", a.Address, err)
	}
	var found []*tetragon.TracingPolicyStatus
	for _, st := range list.GetPolicies() {
		if strings.HasPrefix(st.GetName(), prefix) {
			found = append(found, st)
		}
	}
	return found, nil
}

// Policy returns the status of one policy, nil if the agent does not list it.
func (a *Agent) Policy(ctx context.Context, name string) (*tetragon.TracingPolicyStatus, error) {
	all, err := a.Policies(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, st := range all {
		if st.GetName() == name {
			return st, nil
		}
	}
	return nil, nil
}

// Info reads the embedded sensor's counts from a policy's status. For another
// agent it is the zero value.
func (a *Agent) Info(st *tetragon.TracingPolicyStatus) (PolicyInfo, error) {
	var info PolicyInfo
	if !a.IsSensor() || st.GetInfo() == "" {
		return info, nil
	}
	if err := json.Unmarshal([]byte(st.GetInfo()), &info); err != nil {
		return info, fmt.Errorf("read counts of policy %s: %w", st.GetName(), err)
	}
	return info, nil
}
