package profiler_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"profile/internal/agenttest"
	"profile/internal/cgroup"
	"profile/internal/tetragon"
	"profile/profiler"
)

func TestAnAgentThatRestartsIsUnwatchedMeanwhile(t *testing.T) {
	t.Parallel()
	rows, session, fake := learnFrom(t, agenttest.Options{Version: "v1.7.0"}, func(n *node) {
		n.runs(99, "/usr/bin/net", true)
		n.runs(100, "/usr/bin/quiet", false)
		span := n.run(101, "/usr/bin/span", false)
		n.agent.Publish(span[:2]...)
		n.complete("/usr/bin/quiet", 1)
		n.agent.Restart(t, 300*time.Millisecond)
		for deadline := time.Now().Add(time.Minute); len(n.agent.Loaded()) < 2; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the audit policy was not deployed again")
			}
		}
		n.runs(102, "/usr/bin/quiet", false)
		n.agent.Publish(span[2:]...)
		n.complete("/usr/bin/quiet", 2)
	})
	if len(session.Windows) != 2 {
		t.Errorf("windows %v, want two", session.Windows)
	}
	if got := rows["/usr/bin/span"].Files[0]; got.Crossed != 1 || got.Complete != 0 {
		t.Errorf("span: %+v, want a run that crosses unwatched time", got)
	}
	if got := rows["/usr/bin/quiet"].Files[0]; got.Complete != 2 {
		t.Errorf("quiet: %+v, want two complete runs", got)
	}
	if n := len(fake.Added()); n != 4 {
		t.Errorf("%d policies were added, want the same two twice", n)
	}
}

// A disabled policy is listed, and its counter stands still: on another host, where
// no canary runs, nothing else tells.
func TestAnAuditPolicyThatIsDisabledIsUnwatchedTime(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1.7.0", "v1.4.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			rows, session, _ := learnFrom(t, agenttest.Options{Version: version}, func(n *node) {
				n.runs(99, "/usr/bin/net", true)
				if flushed(t, n.store, 1); version == "v1.7.0" {
					n.complete("/usr/bin/net", 1)
				}
				was := len(n.agent.Added())
				loaded := n.agent.Loaded()
				if sockets := loaded[len(loaded)-1]; !strings.HasSuffix(sockets, tetragon.SocketsSuffix) || !n.agent.Disable(sockets) {
					t.Fatalf("policies %q, want the last to be of sockets", loaded)
				}
				n.runs(100, "/usr/bin/lost", true)
				n.until("new ones", func(l []string) bool {
					return len(n.agent.Added()) > was+1 && strings.HasSuffix(l[len(l)-1], tetragon.SocketsSuffix)
				})
				n.runs(101, "/usr/bin/net", true)
				time.Sleep(idle)
			})
			if len(session.Windows) != 2 {
				t.Errorf("windows %v, want two", session.Windows)
			}
			if row := rows["/usr/bin/lost"]; len(row.Files) == 1 && row.Files[0].Clean != 0 {
				t.Errorf("%+v, want no run that nothing has touched: its socket was not seen", row.Files[0])
			}
		})
	}
}

func TestAnAgentThatComesBackAsAnotherVersionIsAskedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		was, is string
		taskArg bool // the fork hook is asked for at last
	}{{"v1.3.0", "v1.7.0", true}, {"v1.7.0", "v1.3.0", false}} {
		t.Run(c.was+" to "+c.is, func(t *testing.T) {
			t.Parallel()
			rows, session, fake := learnFrom(t, agenttest.Options{Version: c.was}, func(n *node) {
				n.runs(98, "/usr/bin/net", true)
				n.runs(99, "/usr/bin/net", true)
				if flushed(t, n.store, 2); c.was != "v1.3.0" { // which cannot be asked what was lost
					n.complete("/usr/bin/net", 1)
				}
				n.agent.Upgrade(t, c.is, 100*time.Millisecond)
				n.until("those of the new version", func(l []string) bool {
					return len(l) >= 2 && strings.HasSuffix(l[len(l)-1], tetragon.SocketsSuffix)
				})
				n.runs(100, "/usr/bin/net", true)
				n.runs(101, "/usr/bin/quiet", false)
				n.runs(102, "/usr/bin/net", true)
				time.Sleep(idle)
			})
			if len(session.Windows) != 2 {
				t.Errorf("windows %v, want two: it was away", session.Windows)
			}
			if len(session.Gaps) != 1 || session.Gaps[0].Cause != "losses cannot be counted" {
				t.Errorf("gaps %s, want that losses cannot be counted: one of the two does not", gapsOf(t, session))
			}
			if got := rows["/usr/bin/quiet"].Files[0]; got.Complete != 1 {
				t.Errorf("quiet: %+v, want a complete run", got)
			}
			var last *tetragon.Policy
			for _, p := range fake.Added() {
				if p.Metadata.Name == profiler.PolicyName(session.ID) {
					last = p
				}
			}
			if asked := len(last.Spec.KProbes) == 2; asked != c.taskArg {
				t.Errorf("a fork hook is asked for: %v, want %v", asked, c.taskArg)
			}
		})
	}
}

func TestAnAgentThatComesBackAsAnotherSortEndsTheSession(t *testing.T) {
	t.Parallel()
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	n := &node{t: t, agent: fake}
	s := newStore(t)
	l := start(t, profiler.Options{Agent: fake.Remote(t), Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	n.runs(99, "/usr/bin/net", true)
	fake.Upgrade(t, "", 100*time.Millisecond)
	select {
	case <-l.done:
		if !errors.Is(l.err, tetragon.ErrOther) {
			t.Errorf("error %v, want that another sort of agent answers", l.err)
		}
	case <-time.After(time.Minute):
		t.Error("it learns on from another sort of agent")
	}
}

func TestAnAgentThatHangsEndsNothing(t *testing.T) {
	t.Parallel()
	fake := agenttest.Start(t, agenttest.Options{Version: "v1.7.0"})
	s := newStore(t)
	agent := fake.Remote(t)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	fake.Hang(true)
	_, err := profiler.Learn(ctx, profiler.Options{Agent: agent, Store: s, Group: cgroup.Group{Path: "/"}, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("no error, and the agent never answered")
	}
}

// Its version has counters, but the API promises none.
func TestAnAgentThatListsNoCountersCannotCountItsLosses(t *testing.T) {
	t.Parallel()
	rows, session, _ := learnFrom(t, agenttest.Options{Version: "v1.7.0", Uncounted: true}, func(n *node) {
		n.runs(99, "/usr/bin/net", true)
		n.runs(100, "/usr/bin/quiet", false)
		flushed(t, n.store, 2)
	})
	if len(rows["/usr/bin/net"].Files[0].Network) == 0 || rows["/usr/bin/quiet"].Files[0].Complete != 1 {
		t.Errorf("rows %+v, want what each did", rows)
	}
	if len(session.Gaps) != 1 || session.Gaps[0].Cause != "losses cannot be counted" {
		t.Errorf("gaps %s, want that losses cannot be counted", gapsOf(t, session))
	}
}
