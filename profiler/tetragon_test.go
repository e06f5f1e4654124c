package profiler_test

import (
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/enforcer"
	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/store"
)

// idle is longer than what the meter takes for one moment.
const idle = 100 * time.Millisecond

func TestLearnFromATetragonThatLosesNothing(t *testing.T) {
	rows, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		for pid := range uint32(20) {
			n.runs(100+pid, "/usr/bin/quiet", false)
			n.runs(200+pid, "/usr/bin/net", true)
		}
		n.complete("/usr/bin/quiet", 20)
		n.complete("/usr/bin/net", 20)
	})
	if len(session.Gaps) != 0 || len(session.Windows) != 1 || session.BootID != "" {
		t.Errorf("session %+v, want one window and no gap", session)
	}
	if got := rows["/usr/bin/quiet"].Files[0]; got.Complete != 20 || got.Clean != 20 || len(got.Network) != 0 {
		t.Errorf("quiet: %+v", got)
	}
	if got := rows["/usr/bin/net"].Files[0]; got.Complete != 20 || len(got.Network) != 1 || got.Network[0].Runs != 20 {
		t.Errorf("net: %+v", got)
	}
}

func TestLossThatOnlyTheCounterTells(t *testing.T) {
	t.Parallel() // it waits as long as a Tetragon may hold an event back
	_, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.runs(99, "/usr/bin/net", true)
		n.runs(100, "/usr/bin/quiet", false)
		n.complete("/usr/bin/quiet", 1)
		n.agent.Lose(7)
		n.runs(101, "/usr/bin/quiet", false)
		time.Sleep(idle)
	})
	if len(session.Gaps) != 1 || session.Gaps[0].Count != 7 || !strings.Contains(session.Gaps[0].Cause, "posted more events than came") {
		t.Errorf("gaps %s, want 7 lost", gapsOf(t, session))
	}
}

func TestALossThatCannotBeAskedAboutAtTheEndIsAGap(t *testing.T) {
	t.Parallel() // it waits for an answer
	_, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.runs(99, "/usr/bin/net", true)
		n.runs(100, "/usr/bin/quiet", false)
		n.complete("/usr/bin/quiet", 1)
		n.agent.Lose(7)
		n.agent.Hang(true)
		time.AfterFunc(12*time.Second, func() { n.agent.Hang(false) }) // so that the policies can be taken off
	})
	if len(session.Gaps) != 1 || !strings.Contains(session.Gaps[0].Cause, "whether the last observations were lost is not known") {
		t.Errorf("gaps %s, want that it is not known what was lost", gapsOf(t, session))
	}
}

func TestAnAgentThatDoesNotCountIsAGap(t *testing.T) {
	_, session, fake := learnFrom(t, agenttest.Options{Version: "v1.3.0"}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		time.Sleep(idle)
	})
	if len(session.Gaps) != 1 || session.Gaps[0].Cause != "losses cannot be counted" {
		t.Errorf("gaps %s, want that losses cannot be counted", gapsOf(t, session))
	}
	for _, p := range fake.Added() {
		for _, k := range p.Spec.KProbes {
			for _, a := range k.Args {
				if a.BTFType != "" {
					t.Errorf("policy %s asks v1.3.0 for a btfType, which it refuses", p.Metadata.Name)
				}
			}
		}
	}
	if n := len(fake.Added()); n != 3 {
		t.Errorf("%d policies were added, want those for execs and sockets, and the tracepoint for forks", n)
	}
}

func TestLiesOfAnAgentAreNeverQuiet(t *testing.T) {
	long := "/usr/bin/" + strings.Repeat("x", 291)
	for _, c := range []struct {
		name string
		lie  func(n *node)
		path string
		want string // network, complete, gap, or less
	}{
		{"events told twice", func(n *node) {
			run := n.run(101, "/usr/bin/tool", true)
			n.agent.Publish(append(run, run...)...)
		}, "/usr/bin/tool", "network"},
		{"a socket before its exec", func(n *node) {
			n.agent.Publish(jumble(n.run(101, "/usr/bin/tool", true), 2, 0, 1, 3)...)
		}, "/usr/bin/tool", "network"},
		{"a socket before its exec, by a symlink's name", func(n *node) {
			run := n.run(101, "/usr/bin/tool", true)
			run[1].GetProcessExec().Process.Binary = "/usr/bin/alias"
			n.agent.Publish(jumble(run, 2, 0, 1, 3)...)
		}, "/usr/bin/tool", "network"},
		{"a socket whose exec never came", func(n *node) {
			n.agent.Publish(jumble(n.run(101, "/usr/bin/alias", true), 2, 3)...)
			n.runs(102, "/usr/bin/tool", false)
		}, "/usr/bin/tool", "gap"},
		{"the exec before its kprobe", func(n *node) {
			n.agent.Publish(jumble(n.run(101, "/usr/bin/tool", true), 1, 2, 0, 3)...)
		}, "/usr/bin/tool", "network"},
		{"the kprobe after the exit", func(n *node) {
			n.agent.Publish(jumble(n.run(101, "/usr/bin/tool", true), 1, 2, 3, 0)...)
		}, "/usr/bin/tool", "network"},
		{"all turned round", func(n *node) {
			n.agent.Publish(jumble(n.run(101, "/usr/bin/tool", true), 3, 2, 1, 0)...)
		}, "/usr/bin/tool", "network"},
		{"the exit before its exec", func(n *node) {
			n.agent.Publish(jumble(n.run(101, "/usr/bin/tool", false), 2, 0, 1)...)
		}, "/usr/bin/tool", "less"},
		{"a path of 300 bytes", func(n *node) { n.runs(101, long, false) }, long, "complete"},
		{"a pid used again at once, its exit lost", func(n *node) {
			n.agent.Publish(n.run(101, "/usr/bin/tool", false)[:2]...)
			time.Sleep(5 * time.Millisecond)
			n.runs(101, "/usr/bin/other", true)
		}, "/usr/bin/tool", "less"},
		{"an exec without a process", func(n *node) {
			n.agent.Publish(stamped(&api.GetEventsResponse{Event: &api.GetEventsResponse_ProcessExec{ProcessExec: &api.ProcessExec{}}}))
			n.runs(101, "/usr/bin/tool", true)
		}, "/usr/bin/tool", "network"},
		{"nothing at all in an event", func(n *node) {
			n.agent.Publish(&api.GetEventsResponse{}, kprobe(tetragon.CallSocketCreate, nil), kprobe(tetragon.CallExec, nil), kprobe(tetragon.CallFork, nil))
			n.runs(101, "/usr/bin/tool", true)
		}, "/usr/bin/tool", "network"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
				n.runs(99, "/usr/bin/first", true)
				c.lie(n)
				n.runs(300, "/usr/bin/last", true)
				time.Sleep(idle)
			})
			row, ok := rows[c.path]
			if !ok || len(row.Files) != 1 {
				t.Fatalf("%d tallies of %s; gaps %s", len(row.Files), c.path, gapsOf(t, session))
			}
			got := row.Files[0]
			switch {
			case c.want == "network" && len(got.Network) == 0:
				t.Errorf("%+v, want a network user; gaps %s", got, gapsOf(t, session))
			case c.want == "complete" && got.Complete != 1:
				t.Errorf("%+v, want a complete run", got)
			case c.want == "gap" && len(session.Gaps) == 0:
				t.Error("no gap, and nobody knows whose the socket was")
			case c.want == "less" && got.Complete > 0 && len(session.Gaps) == 0:
				t.Errorf("%+v, want no complete run", got)
			}
		})
	}
}

func TestLearnFromATetragonOfThisHost(t *testing.T) {
	needKernel(t)
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0", Real: true, Send: func(ev *api.GetEventsResponse) []*api.GetEventsResponse {
		if strings.Contains(ev.GetProcessExec().GetProcess().GetFlags(), "procFS") {
			return nil // a Tetragon tells of these as it starts, and not again
		}
		return []*api.GetEventsResponse{ev}
	}})
	group, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	o := options(t, fake.Local(t), s, group)
	own, idle := copied(t, "/bin/true"), copied(t, "/bin/sleep")
	before := exec.Command(idle, "600")
	if err := before.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = before.Process.Kill(); _ = before.Wait() })
	time.Sleep(time.Second)
	o.Only = []string{own, idle}
	l := start(t, o)
	for range 5 {
		if err := exec.Command(own).Run(); err != nil {
			t.Fatal(err)
		}
	}
	// The next canary proves them, however late the events of a busy machine come.
	for range 600 {
		if files := readRows(t, s)[own].Files; len(files) == 1 && files[0].Complete == 5 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	session := l.end(t)
	if len(session.Windows) != 1 || session.BootID == "" {
		t.Errorf("session %+v, want one window", session)
	}
	row := readRows(t, s)[own]
	if len(row.Files) != 1 || row.Files[0].Seen != 5 || row.Files[0].Complete != 5 {
		t.Errorf("%+v, want five complete runs; gaps %s", row, gapsOf(t, session))
	}
	there := readRows(t, s)[idle]
	if len(there.Files) != 1 || len(there.Files[0].Unseen) != 1 || int(there.Files[0].Unseen[0].PID) != before.Process.Pid || !there.Files[0].File.Known() {
		t.Errorf("%+v, want process %d that was there before", there, before.Process.Pid)
	}
}

// What is lost as soon as the window is open is not taken for what the counter
// held before.
func TestALossAtTheOpeningOfTheWindowIsAGap(t *testing.T) {
	needKernel(t)
	t.Parallel() // it waits as long as a Tetragon may hold an event back
	var fake *agenttest.Agent
	var once sync.Once
	dir := t.TempDir() // other learners' canaries are told of too
	fake = agenttest.Start(t, agenttest.Options{Version: "v1.7.0", Real: true, Send: func(ev *api.GetEventsResponse) []*api.GetEventsResponse {
		if strings.HasPrefix(ev.GetProcessExit().GetProcess().GetBinary(), dir) {
			once.Do(func() { fake.Lose(1000) })
		}
		return []*api.GetEventsResponse{ev}
	}})
	group, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, fake.Local(t), newStore(t), group)
	o.Only, o.CanaryDir = []string{"/nowhere"}, dir
	session := start(t, o).end(t)
	var lost uint64
	for _, g := range session.Gaps {
		if g.Cause == "the agent posted more events than came" { // others are this machine's own: an exec of a memfd has no name
			lost += g.Count
		}
	}
	// Its counter goes up in a process, not in the kernel: where that has to wait
	// for a busy machine, what it counts late is taken for lost too.
	if lost < 1000 || lost > 1100 {
		t.Errorf("gaps %s, want 1000 lost", gapsOf(t, session))
	}
}

func TestARefusedExecHookLeavesNamesUnresolved(t *testing.T) {
	rows, session, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0", Refuse: func(p *tetragon.Policy) error {
		for _, k := range p.Spec.KProbes {
			if k.Call == tetragon.CallExec {
				return errors.New("no such hook")
			}
		}
		return nil
	}}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		n.runs(101, "/usr/bin/quiet", false)
		n.runs(102, "/usr/bin/net", true)
		time.Sleep(idle)
	})
	row, ok := rows[store.Unresolved+"/usr/bin/quiet"]
	if !ok || len(rows) != 2 {
		t.Fatalf("%d rows, want those of two names that are not resolved", len(rows))
	}
	v := judged(t, session, row)
	if v.Kind != enforcer.Unproven || !strings.Contains(strings.Join(v.Reasons, " "), "name not resolved") {
		t.Errorf("quiet: %+v, want unproven, since its name is not resolved", v)
	}
	if got := judged(t, session, rows[store.Unresolved+"/usr/bin/net"]); got.Kind != enforcer.Network {
		t.Errorf("net: %+v, want network", got)
	}
	last := fake.Added()[len(fake.Added())-1]
	if !strings.HasSuffix(last.Metadata.Name, tetragon.SocketsSuffix) {
		t.Errorf("policy %s was loaded last, want that for sockets", last.Metadata.Name)
	}
}

// An agent that cannot tell of the pid namespace tells of forks all the same.
func TestARefusedNamespaceLeavesTheRest(t *testing.T) {
	rows, session, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0", Refuse: func(p *tetragon.Policy) error {
		for _, k := range p.Spec.KProbes {
			if len(k.Data) > 0 {
				return errors.New(`unknown field "spec.kprobes[0].data"`)
			}
		}
		return nil
	}}, func(n *node) {
		n.runs(100, "/usr/bin/net", true)
		n.runs(101, "/usr/bin/quiet", false)
		time.Sleep(idle)
	})
	if len(session.Gaps) != 0 || rows["/usr/bin/quiet"].Files[0].Complete != 1 {
		t.Errorf("gaps %s, quiet %+v: want none, and a complete run", gapsOf(t, session), rows["/usr/bin/quiet"])
	}
	if added := fake.Added(); len(added) != 3 || len(added[1].Spec.KProbes) != 2 {
		t.Errorf("%d policies were added, want one that was refused, the same without data, and that for sockets", len(added))
	}
}
