package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/sensor/bpf"
	names "profile/internal/tetragon"
)

// Kernel is where policies act. NewServer takes this machine's; a test agent
// makes one up, and has the server's side of the API for nothing. The server
// calls it under a lock of its own, Hook excepted.
type Kernel interface {
	// Hook names the socket hook, the families that it sees, and the calls that
	// tell what a socket is used for.
	Hook() (name string, families []int32, uses []string, err error)
	// Audit loads an audit policy, and publishes its events until it is
	// stopped.
	Audit(p *Policy, publish func(*tetragon.GetEventsResponse)) (Audit, error)
	// Enforce loads an enforcing policy, which acts when this returns. On an
	// error nothing of it is left.
	Enforce(p *Policy) error
	// Enforced lists the enforcing policies, those that another process has
	// loaded too.
	Enforced() ([]Enforced, error)
	// Remove takes off an enforcing policy, and SetMode switches one. They
	// report whether there is one of the name.
	Remove(name string) (bool, error)
	SetMode(name string, mode tetragon.TracingPolicyMode) (bool, error)
	// Tidy removes what nobody uses, once the audit policies are off.
	Tidy() error
}

// Audit is an audit policy at work.
type Audit interface {
	// Sensors names what it is attached to.
	Sensors() []string
	// Posted counts the events of its hooks, those that were lost included.
	Posted() uint64
	// Err says why it works no longer, nil while it does.
	Err() error
	// Stop detaches it; what was seen before is published first.
	Stop() error
}

// Enforced describes an enforcing policy.
type Enforced struct {
	Name     string
	Mode     tetragon.TracingPolicyMode
	Programs []string // what it is attached to
	Err      error    // why it does not act, if it does not
	Info     names.PolicyInfo
}

// machine is this machine's kernel.
type machine struct {
	cfg   Config
	names *listNames
}

// Machine gives this machine's kernel.
func Machine(cfg Config) Kernel {
	if cfg.RingBytes == 0 {
		cfg.RingBytes = ringBytes
	}
	if cfg.probe == nil {
		cfg.probe = probe
	}
	if cfg.missed == nil {
		cfg.missed = (*observer).missed
	}
	return machine{cfg, &listNames{}}
}

func (m machine) Hook() (string, []int32, []string, error) {
	h, err := m.cfg.probe()
	return h.name, h.families, h.calls(), err
}

func (m machine) Audit(p *Policy, publish func(*tetragon.GetEventsResponse)) (Audit, error) {
	h, err := m.cfg.probe()
	if err != nil {
		return nil, err
	}
	// What it acts on would be taken for a use of the network.
	news, err := m.newcomers()
	if err != nil {
		return nil, err
	}
	_, far, err := m.all()
	if err != nil {
		return nil, err
	}
	if len(far) > 0 {
		return nil, fmt.Errorf("policy %s: %w", far[0].Name, far[0].err)
	}
	a, err := startAudit(p, h.seeing(p.Families), m.cfg, news, publish)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (m machine) Enforce(p *Policy) error {
	h, err := m.cfg.probe()
	if err != nil {
		return err
	}
	return loadEnforcement(p, h.seeing(p.Families), m.cfg.Name, m.names)
}

// each calls do for each pinned policy, under the lock that every change
// takes. It is no error that there is none.
func (m machine) each(do func(*enforcement, *sharedMaps) error) error {
	dir, shared, unlock, err := lockPins(m.cfg.Name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := enforcements(dir, shared)
	for _, e := range all {
		if err = do(e, shared); err != nil {
			break
		}
	}
	return errors.Join(err, unlock())
}

func (m machine) Enforced() ([]Enforced, error) {
	pinned, far, err := m.all()
	var all []Enforced
	for _, e := range append(pinned, far...) {
		all = append(all, e.describe())
	}
	return all, err
}

// What is not among the pins is looked for several times, each after a longer
// while: half a second in all, where most machines have nothing of the kind.
const (
	lookTimes = 5
	lookPause = 50 * time.Millisecond
)

// all lists the policies that are pinned, and those that are where this process
// does not see them.
func (m machine) all() (pinned, far []*enforcement, err error) {
	before := map[ebpf.MapID]bool{}
	for round := range lookTimes {
		time.Sleep(lookPause * time.Duration(round))
		pinned = nil
		var found []ebpf.MapID
		err = m.each(func(e *enforcement, _ *sharedMaps) error {
			if e.Name != "" {
				if err := e.readStats(m.names); e.err == nil {
					e.err = err
				}
			}
			pinned, found = append(pinned, e), append(found, e.metaID)
			return nil
		})
		if err != nil {
			return pinned, nil, err
		}
		if far, err = unseen(m.cfg.Name, found); err != nil || len(far) == 0 {
			return pinned, nil, err
		}
		// One that another process was loading is found the next time, and one that
		// was removed is there for as long as another process looks at it, as this does.
		if round > 0 {
			far = slices.DeleteFunc(far, func(e *enforcement) bool { return !before[e.metaID] })
		}
		for _, e := range far {
			before[e.metaID] = true
		}
		if round > 0 && len(far) == 0 {
			break
		}
	}
	for _, e := range far {
		e.err = errors.New(whoSees(m.cfg.Name))
	}
	return pinned, far, nil
}

// refuseFar is the error for a policy that is not pinned here, if it is
// elsewhere.
func (m machine) refuseFar(name string) error {
	_, far, err := m.all()
	for _, e := range far {
		if e.Name == name {
			return fmt.Errorf("policy %s: %w", name, e.err)
		}
	}
	return err
}

func (m machine) Remove(name string) (found bool, err error) {
	err = m.each(func(e *enforcement, shared *sharedMaps) error {
		if e.label() != name {
			return nil
		}
		found = true
		return e.remove(shared)
	})
	switch {
	case err == nil && found:
		err = sweep(m.cfg.Name)
	case err == nil:
		err = m.refuseFar(name)
	}
	return found, err
}

func (m machine) SetMode(name string, mode tetragon.TracingPolicyMode) (found bool, err error) {
	to := bpf.SensorModeMODE_MONITOR
	if mode == tetragon.TracingPolicyMode_TP_MODE_ENFORCE {
		to = bpf.SensorModeMODE_ENFORCE
	}
	err = m.each(func(e *enforcement, shared *sharedMaps) error {
		if e.Name != name {
			return nil
		}
		found = true
		return e.setMode(shared, to)
	})
	if err == nil && !found {
		err = m.refuseFar(name)
	}
	return found, err
}

func (m machine) Tidy() error { return sweep(m.cfg.Name) }

// describe gives what is asked about a policy.
func (e *enforcement) describe() Enforced {
	d := Enforced{Name: e.label(), Programs: e.Programs, Err: e.err,
		Info: names.PolicyInfo{Cgroup: e.Cgroup, Errors: e.failed, Unseen: e.dir == ""}}
	switch e.mode {
	case bpf.SensorModeMODE_ENFORCE:
		d.Mode = tetragon.TracingPolicyMode_TP_MODE_ENFORCE
	case bpf.SensorModeMODE_MONITOR:
		d.Mode = tetragon.TracingPolicyMode_TP_MODE_MONITOR
	}
	for _, t := range e.stats {
		if t.tally.Kills+t.tally.Would == 0 {
			continue
		}
		kill, would := t.times()
		d.Info.Kills = append(d.Info.Kills, names.PolicyKill{
			Path: []byte(t.path), Kills: t.tally.Kills, Would: t.tally.Would, LastKill: kill, LastWould: would})
	}
	return d
}

// label is the policy's name, or one made up for pins that do not tell it.
func (e *enforcement) label() string {
	if e.Name == "" {
		return fmt.Sprintf("%s%d", names.BrokenPrefix, e.slot)
	}
	return e.Name
}
