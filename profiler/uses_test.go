package profiler_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/agenttest"
	"profile/internal/tetragon"
	"profile/store"
)

// uses gives the event of a use of a socket of a family and type, as a
// Tetragon tells it.
func uses(call string, p *api.Process, family, typ, to string) *api.GetEventsResponse {
	addr := netip.MustParseAddrPort(to)
	return kprobe(call, p,
		&api.KprobeArgument{Arg: &api.KprobeArgument_SockArg{SockArg: &api.KprobeSock{Family: family, Type: typ, Saddr: "0.0.0.0", Daddr: "0.0.0.0"}}},
		&api.KprobeArgument{Arg: &api.KprobeArgument_SockaddrArg{SockaddrArg: &api.KprobeSockaddr{Family: family, Addr: addr.Addr().String(), Port: uint32(addr.Port())}}})
}

// connects posts a run that connects a socket of its own, or one that it was
// handed.
func (n *node) connects(pid uint32, path string, own bool, to string) {
	n.t.Helper()
	events := n.run(pid, path, own)
	end := len(events) - 1
	p := events[1].GetProcessExec().GetProcess()
	if !n.agent.Publish(slices.Insert(events, end, uses(tetragon.CallConnect, p, "AF_INET", "SOCK_STREAM", to))...) {
		n.t.Error("no audit policy is loaded")
	}
}

func usesOf(t *testing.T, rows map[string]store.Evidence, path string) []store.Use {
	t.Helper()
	files := rows[path].Files
	if len(files) != 1 {
		t.Fatalf("%s: %+v, want one file", path, files)
	}
	return files[0].Network
}

// asks reports whether a policy asks for what sockets are used for.
func asks(p *tetragon.Policy) bool {
	return slices.ContainsFunc(p.Spec.KProbes, func(k tetragon.KProbe) bool {
		return k.Call == tetragon.CallConnect || k.Call == tetragon.CallBind
	})
}

func TestATetragonTellsWhatSocketsAreUsedFor(t *testing.T) {
	rows, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.connects(100, "/usr/bin/local", true, "127.0.0.1:80")
		n.connects(101, "/usr/bin/out", true, "192.0.2.1:443")
		n.connects(102, "/usr/bin/handed", false, "192.0.2.2:443")
		n.runs(103, "/usr/bin/quiet", false)
		listener := n.run(104, "/usr/bin/listener", true)
		p := listener[1].GetProcessExec().GetProcess()
		n.agent.Publish(slices.Insert(listener, 3, uses(tetragon.CallBind, p, "AF_INET", "SOCK_STREAM", "0.0.0.0:80"))...)
		time.Sleep(idle)
	})
	if !session.Reach || !session.NoSendHook || session.Handed || len(session.Gaps) != 0 {
		t.Errorf("session %+v, want connects and binds watched, sends not, and no gap", session)
	}
	for path, want := range map[string]store.Use{
		"/usr/bin/local":    {Reach: store.ReachLoopback},
		"/usr/bin/out":      {Reach: store.ReachOut, Destinations: []string{"192.0.2.1:443"}},
		"/usr/bin/listener": {Reach: store.ReachListen},
		"/usr/bin/handed":   {Reach: store.ReachOut, Destinations: []string{"192.0.2.2:443"}, Inherited: 1},
	} {
		got := usesOf(t, rows, path)
		if len(got) != 1 || got[0].Runs != 1 || got[0].Reach != want.Reach || got[0].Inherited != want.Inherited || !slices.Equal(got[0].Destinations, want.Destinations) {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
	if got := usesOf(t, rows, "/usr/bin/quiet"); len(got) != 0 {
		t.Errorf("quiet: %+v", got)
	}
}

func TestAnAgentThatTakesNoUsesIsAskedForSocketsAlone(t *testing.T) {
	refuse := func(p *tetragon.Policy) error {
		if asks(p) {
			return errors.New("no such argument type")
		}
		return nil
	}
	for _, c := range []struct {
		name    string
		o       agenttest.Options
		refused int // policies
	}{
		{"of a version that cannot", agenttest.Options{Version: "v1.3.0"}, 0},
		{"that refuses them", agenttest.Options{Version: "v1.7.0", Refuse: refuse}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rows, session, fake := learnFrom(t, c.o, func(n *node) {
				n.connects(100, "/usr/bin/net", true, "192.0.2.1:443")
				n.until("a narrowed one", func(l []string) bool { return isNarrowed(l[len(l)-1]) })
				n.runs(101, "/usr/bin/other", true)
				time.Sleep(idle)
			}, hurry)
			if session.Reach || session.NoSendHook {
				t.Errorf("session %+v claims that uses were watched", session)
			}
			if got := usesOf(t, rows, "/usr/bin/net"); len(got) != 1 || got[0].Runs != 1 || got[0].Reach != 0 {
				t.Errorf("net: %+v, want a socket of which no more is known", got)
			}
			asked := 0
			for _, p := range fake.Added() {
				if asks(p) {
					asked++
				}
			}
			if asked != c.refused {
				t.Errorf("it was asked %d times, want %d", asked, c.refused)
			}
		})
	}
}

// An agent that does not compare with more than four families is asked for
// four, and the session does not claim the others; nor does it once the agent
// has come back and takes them.
func TestAnAgentThatTakesFewFamiliesIsAskedForFew(t *testing.T) {
	t.Parallel()
	var willing atomic.Bool
	o := agenttest.Options{Version: "v1.7.0", Refuse: func(p *tetragon.Policy) error {
		for _, k := range p.Spec.KProbes {
			for _, s := range k.Selectors {
				if len(s.MatchArgs) > 0 && s.MatchArgs[0].Operator == "InMap" && !willing.Load() {
					return errors.New("no such operator")
				}
			}
		}
		return nil
	}}
	_, session, fake := learnFrom(t, o, func(n *node) {
		n.connects(100, "/usr/bin/net", true, "127.0.0.1:80")
		n.complete("/usr/bin/net", 1)
		willing.Store(true)
		n.agent.Restart(t, 100*time.Millisecond)
		n.until("those of the restarted agent", func(l []string) bool { return len(l) >= 2 })
		n.connects(101, "/usr/bin/net", true, "127.0.0.1:80")
		time.Sleep(idle)
	})
	want := []string{"inet", "inet6", "packet", "vsock"}
	if !slices.Equal(session.Families, want) || !slices.Equal(session.Unwatched, []string{"xdp", "smc"}) || !session.Reach {
		t.Errorf("session %+v, want %v and uses watched, and the others named as not", session, want)
	}
	var asked [][]string
	for _, p := range fake.Added() {
		if asks(p) {
			asked = append(asked, p.Spec.KProbes[0].Selectors[0].MatchArgs[0].Values)
		}
	}
	if len(asked) != 3 || len(asked[0]) != 6 || len(asked[1]) != 4 || len(asked[2]) != 6 {
		t.Errorf("it was asked for %v beside uses, want six families, four, and six of the restarted", asked)
	}
}

// A session in which an agent of a version that cannot had its turn has not
// watched the uses of sockets.
func TestUsesAreNotWatchedByAnAgentThatOnceCouldNot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ was, is string }{{"v1.3.0", "v1.7.0"}, {"v1.7.0", "v1.3.0"}} {
		_, session, _ := learnFrom(t, agenttest.Options{Version: c.was}, func(n *node) {
			n.connects(100, "/usr/bin/net", true, "127.0.0.1:80")
			n.agent.Upgrade(t, c.is, 100*time.Millisecond)
			n.until("those of the new version", func(l []string) bool {
				return len(l) >= 2 && strings.HasSuffix(l[len(l)-1], tetragon.SocketsSuffix)
			})
			n.connects(101, "/usr/bin/net", true, "127.0.0.1:80")
			time.Sleep(idle)
		})
		if session.Reach {
			t.Errorf("from %s to %s: uses are said to have been watched", c.was, c.is)
		}
	}
}

func TestALostUseIsAGap(t *testing.T) {
	t.Parallel() // it waits as long as a Tetragon may hold an event back
	lost := 0
	_, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0", Send: func(ev *api.GetEventsResponse) []*api.GetEventsResponse {
		if ev.GetProcessKprobe().GetFunctionName() == tetragon.CallConnect && lost < 3 {
			lost++
			return nil
		}
		return []*api.GetEventsResponse{ev}
	}}, func(n *node) {
		n.runs(99, "/usr/bin/net", true)
		n.complete("/usr/bin/net", 1)
		for pid := range uint32(4) {
			n.connects(100+pid, "/usr/bin/handed", false, "192.0.2.1:443")
		}
		n.runs(104, "/usr/bin/quiet", false)
		time.Sleep(idle)
	})
	if len(session.Gaps) != 1 || session.Gaps[0].Count != 3 || !strings.Contains(session.Gaps[0].Cause, "posted more events than came") {
		t.Errorf("gaps %s, want 3 lost", gapsOf(t, session))
	}
}

func TestUsesAreNarrowedWithTheSockets(t *testing.T) {
	t.Parallel()
	rows, session, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.connects(100, "/usr/bin/net", true, "127.0.0.1:80")
		n.both()
		n.proveNext()
		n.narrowed()
		n.connects(101, "/usr/bin/net", true, "192.0.2.1:443") // not told any more
		n.connects(102, "/usr/bin/late", true, "192.0.2.1:443")
		time.Sleep(idle)
	}, hurry)
	if got := usesOf(t, rows, "/usr/bin/net"); len(got) != 1 || got[0].Reach != store.ReachLoopback || got[0].Runs != 1 {
		t.Errorf("net: %+v, want what was told before it was left out", got)
	}
	if v := judged(t, session, rows["/usr/bin/net"]); !v.AtLeast {
		t.Errorf("net: %+v, want that this is the least that it did", v)
	}
	if got := usesOf(t, rows, "/usr/bin/late"); len(got) != 1 || got[0].Reach != store.ReachOut {
		t.Errorf("late: %+v, want that it went out", got)
	}
	if v := judged(t, session, rows["/usr/bin/late"]); v.AtLeast && len(session.Narrowed) < 2 {
		t.Errorf("late: %+v, and it was never left out", v)
	}
	for _, p := range fake.Added() {
		for _, k := range p.Spec.KProbes {
			if isNarrowed(p.Metadata.Name) && (len(k.Selectors) != 1 || len(k.Selectors[0].MatchBinaries) != 1) {
				t.Errorf("policy %s leaves nobody out at %s", p.Metadata.Name, k.Call)
			}
		}
	}
}
