// Package agenttest is an agent that a test makes up: the sensor's own server
// over a kernel that does nothing, or over this machine's, dressed as a
// Tetragon of some version, that lies where it is told to. Only tests import
// it. It has no server of its own.
package agenttest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"profile/internal/sensor"
	"profile/internal/tetragon"
)

// Options say what the agent pretends to be.
type Options struct {
	// Version of Tetragon, such as v1.7.0; "" is the sensor itself.
	Version string
	// Kernel acts; nil is one that does nothing.
	Kernel sensor.Kernel
	// Real takes this machine's kernel in place of Kernel.
	Real bool
	// Send is what is sent in place of each event; nil sends it as it is. It is
	// called by one goroutine at a time.
	Send func(*api.GetEventsResponse) []*api.GetEventsResponse
	// Refuse is the error of AddTracingPolicy for a policy; nil refuses none.
	Refuse func(*tetragon.Policy) error
	// RefuseDelete is the error of DeleteTracingPolicy for a policy's name.
	RefuseDelete func(string) error
	// RefuseMode is the error of ConfigureTracingPolicy for a policy's name.
	RefuseMode func(string) error
	// Group is the cgroup that enforcing policies of a Tetragon on this
	// machine's kernel are kept to, though the policies know nothing of it: a
	// test must not enforce on the whole machine. Without it they are refused.
	Group string
	// Uncounted is one that lists no counters, which are optional in the API,
	// whatever its version.
	Uncounted bool
	// PolicyDir is the directory whose policies a Tetragon loads as it starts,
	// before it answers; "" is none. It does not start if it cannot load one.
	PolicyDir string
}

// Agent is a running agent. It is safe for concurrent use.
type Agent struct {
	o    Options
	dir  string
	fake *nothing

	audits *audits // of a Tetragon

	mu      sync.Mutex
	srv     *grpc.Server
	served  chan error
	server  *server
	hung    chan struct{} // not nil while it hangs
	adds    []*tetragon.Policy
	modes   []string // names of the policies whose modes were switched
	lastReq *api.GetEventsRequest
	senders map[*sender]bool
}

// Start serves an agent until the test ends.
func Start(t testing.TB, o Options) *Agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "agenttest-") // a test's own directory may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{o: o, dir: dir}
	if o.Kernel == nil && !o.Real {
		a.fake = &nothing{enforced: map[string]*sensor.Enforced{}}
		a.o.Kernel = a.fake
	}
	if o.Version != "" {
		if o.Real {
			a.o.Kernel = sensor.Machine(sensor.Config{Name: filepath.Base(dir), Node: "node"})
		}
		a.audits = &audits{}
		a.o.Kernel = dressed{a.o.Kernel, a.audits}
	}
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(a.stop(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *Agent) start() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.senders = map[*sender]bool{}
	if a.audits != nil {
		a.audits.forget()
	}
	a.server = &server{Server: sensor.NewServer(sensor.Config{Name: filepath.Base(a.dir), Node: "node", Kernel: a.o.Kernel}), a: a}
	a.srv, a.served = grpc.NewServer(grpc.MaxRecvMsgSize(4<<20), grpc.WaitForHandlers(true)), make(chan error, 1)
	if a.o.Version == "" {
		a.srv = grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	}
	api.RegisterFineGuidanceSensorsServer(a.srv, a.server)
	if err := a.loadDir(); err != nil {
		return err
	}
	lis, err := net.Listen("unix", a.socket())
	if err != nil {
		return err
	}
	go func(srv *grpc.Server, served chan error) { served <- srv.Serve(lis) }(a.srv, a.served)
	return nil
}

func (a *Agent) socket() string { return filepath.Join(a.dir, "agent.sock") }

func (a *Agent) stop() error {
	a.mu.Lock()
	srv, served, server := a.srv, a.served, a.server
	a.mu.Unlock()
	a.Hang(false)
	srv.Stop()
	var err error
	if a.o.Version != "" {
		err = server.forget()
	}
	return errors.Join(<-served, err, server.Close())
}

// Restart ends every connection and forgets the policies, as a Tetragon that is
// restarted does; the sensor forgets the audit policies alone. For so long it
// cannot be reached.
func (a *Agent) Restart(t testing.TB, gone time.Duration) {
	t.Helper()
	a.Upgrade(t, a.o.Version, gone)
}

// Upgrade restarts a Tetragon as one of another version.
func (a *Agent) Upgrade(t testing.TB, version string, gone time.Duration) {
	t.Helper()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	a.o.Version = version
	time.Sleep(gone)
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
}

// Hang makes every call wait until it no longer hangs.
func (a *Agent) Hang(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case on && a.hung == nil:
		a.hung = make(chan struct{})
	case !on && a.hung != nil:
		close(a.hung)
		a.hung = nil
	}
}

func (a *Agent) wait(ctx context.Context) error {
	a.mu.Lock()
	hung := a.hung
	a.mu.Unlock()
	if hung == nil {
		return nil
	}
	select {
	case <-hung:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Publish posts events of the audit policies; the kprobe events among them are
// posted by each policy that has their hook, under its name. It reports whether
// any policy is loaded.
func (a *Agent) Publish(events ...*api.GetEventsResponse) bool {
	return a.fake.publish(events) && (a.audits == nil || len(a.audits.names()) > 0)
}

// Lose posts events that are never sent, by the policy that was loaded last.
func (a *Agent) Lose(n uint64) { a.audits.lose("", n) }

// LoseOf does so by the policy of a name.
func (a *Agent) LoseOf(policy string, n uint64) { a.audits.lose(policy, n) }

// Disable is what a person does to an audit policy with a client of their own. It
// reports whether there is one of the name.
func (a *Agent) Disable(policy string) bool { return a.audits.disable(policy) }

// Added are the policies that were added, in order, those that were refused
// too.
func (a *Agent) Added() []*tetragon.Policy {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.adds)
}

// Switched names the policies whose modes were switched, in order.
func (a *Agent) Switched() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.modes)
}

// Loaded names the audit policies that are loaded, or that failed to and are
// listed all the same.
func (a *Agent) Loaded() []string {
	if a.audits != nil {
		return a.audits.names()
	}
	return a.fake.loaded()
}

// Request is the last subscription.
func (a *Agent) Request() *api.GetEventsRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lastReq
}

// Local connects as to an agent of this host, Remote as to one of another.
func (a *Agent) Local(t testing.TB) *tetragon.Agent { return a.connect(t, "unix://"+a.socket()) }

// Remote connects as to an agent of another host.
func (a *Agent) Remote(t testing.TB) *tetragon.Agent { return a.connect(t, "node.example:54321") }

// Address is that of Local.
func (a *Agent) Address() string { return "unix://" + a.socket() }

// Dial connects as if the agent were at an address.
func (a *Agent) Dial(ctx context.Context, address string) (*tetragon.Agent, error) {
	conn, err := grpc.NewClient("unix://"+a.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	var once sync.Once
	closer := func() (err error) {
		once.Do(func() { err = conn.Close() })
		return err
	}
	agent, err := tetragon.Connect(ctx, address, conn, closer)
	if err != nil {
		return nil, errors.Join(err, closer())
	}
	return agent, nil
}

func (a *Agent) connect(t testing.TB, address string) *tetragon.Agent {
	t.Helper()
	agent, err := a.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
	})
	return agent
}

// before reports whether the agent is a Tetragon older than a version of the
// form 1.N.
func (a *Agent) before(minor string) bool {
	if a.o.Version == "" {
		return false
	}
	return strings.TrimPrefix(a.o.Version, "v")[:3] < minor
}
