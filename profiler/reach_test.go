package profiler

import (
	"testing"
	"time"

	api "github.com/cilium/tetragon/api/v1/tetragon"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"profile/internal/tetragon"
	"profile/store"
)

func TestReachSaysWhatSocketsAreUsedFor(t *testing.T) {
	const out = "192.0.2.1:443"
	for name, tc := range map[string]struct {
		do   func(w *world)
		want []store.Use
	}{
		"opened and no more": {
			func(w *world) {},
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}}},
		},
		"loopback": {
			func(w *world) {
				w.uses(10, tetragon.CallConnect, "AF_INET", "SOCK_STREAM", "127.0.0.1:80")
				w.uses(10, tetragon.CallConnect, "AF_INET", "SOCK_STREAM", "0.0.0.0:80")
			},
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}, Reach: store.ReachLoopback}},
		},
		"listening and out": {
			func(w *world) {
				w.uses(10, tetragon.CallBind, "AF_INET", "SOCK_STREAM", "0.0.0.0:0")
				w.uses(10, tetragon.CallConnect, "AF_INET", "SOCK_STREAM", out)
				w.uses(10, tetragon.CallConnect, "AF_INET", "SOCK_STREAM", out)
			},
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}, Reach: store.ReachListen | store.ReachOut, Destinations: []string{out}}},
		},
		"a socket that another opened": {
			func(w *world) {
				w.uses(10, tetragon.CallSend, "AF_INET6", "SOCK_DGRAM", "[2001:db8::1]:53")
			},
			[]store.Use{
				{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}},
				{Family: "inet6", Type: "dgram", Runs: 1, Inherited: 1, Reach: store.ReachOut, Destinations: []string{"[2001:db8::1]:53"}},
			},
		},
		"an address to send from": {
			func(w *world) {
				w.socket(10, unix.AF_INET, unix.SOCK_DGRAM)
				w.uses(10, tetragon.CallBind, "AF_INET", "SOCK_DGRAM", "0.0.0.0:0")
			},
			[]store.Use{
				{Family: "inet", Type: "dgram", Runs: 1, Protocols: []uint32{0}},
				{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}},
			},
		},
		"the same for a socket that another opened": {
			func(w *world) { w.uses(10, tetragon.CallBind, "AF_INET", "SOCK_DGRAM", "0.0.0.0:0") },
			[]store.Use{
				{Family: "inet", Type: "dgram", Runs: 1, Inherited: 1},
				{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}},
			},
		},
		"a listed process with a socket that another opened": {
			func(w *world) {
				w.uses(10, tetragon.CallConnect, "AF_INET", "SOCK_DGRAM", out, as{listed: store.StageMonitor})
			},
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}}},
		},
		"a connection that was handed over": {
			func(w *world) {
				w.handed(10, tetragon.CallSend, "AF_INET6", "SOCK_STREAM", "[::1]:80")
				w.handed(10, tetragon.CallReceive, "AF_INET6", "SOCK_STREAM", "[2001:db8::1]:5000")
			},
			[]store.Use{
				{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}},
				{Family: "inet6", Type: "stream", Runs: 1, Inherited: 1, Reach: store.ReachLoopback | store.ReachPeer, Destinations: []string{"[2001:db8::1]:5000"}},
			},
		},
		"handed over and not connected": {
			func(w *world) {
				w.handed(10, tetragon.CallReceive, "AF_INET6", "SOCK_DGRAM", "")
				w.handed(10, tetragon.CallReceive, "AF_INET6", "SOCK_RAW", "")
				w.handed(10, tetragon.CallSend, "AF_PACKET", "SOCK_DGRAM", "")
				w.handed(10, tetragon.CallSend, "AF_UNIX", "SOCK_DGRAM", "")
			},
			[]store.Use{
				{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}},
				{Family: "inet6", Type: "dgram", Runs: 1, Inherited: 1, Reach: store.ReachListen},
				{Family: "inet6", Type: "raw", Runs: 1, Inherited: 1},
				{Family: "packet", Type: "dgram", Runs: 1, Inherited: 1},
			},
		},
		"its own, told as handed over": { // as the sensor does after a fork
			func(w *world) { w.handed(10, tetragon.CallSend, "AF_INET", "SOCK_STREAM", "127.0.0.1:80") },
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}, Reach: store.ReachLoopback}},
		},
		"a listed process with a connection that was handed over": {
			func(w *world) {
				w.handed(10, tetragon.CallReceive, "AF_INET6", "SOCK_DGRAM", "", as{listed: store.StageEnforce})
			},
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).open()
			w.exec(10, "/bin/a")
			w.socket(10, unix.AF_INET, unix.SOCK_STREAM)
			tc.do(w)
			got := w.tally("/bin/a").Network
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(store.Use{}, "First", "Last")); diff != "" {
				t.Errorf("network use (-want +got):\n%s", diff)
			}
		})
	}
}

// Of a process that ran before, nobody knows which sockets it opened itself.
func TestWhatRanBeforeWasNotHandedItsSockets(t *testing.T) {
	w := newWorld(t)
	w.before(10, "/bin/a")
	w.open()
	w.handed(10, tetragon.CallSend, "AF_INET", "SOCK_STREAM", "127.0.0.1:80")
	got := w.tally("/bin/a").Network
	want := []store.Use{{Family: "inet", Type: "stream", Runs: 1, Reach: store.ReachLoopback}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(store.Use{}, "First", "Last")); diff != "" {
		t.Errorf("network use (-want +got):\n%s", diff)
	}
}

func TestExampleDestinationsAreBounded(t *testing.T) {
	w := newWorld(t).open()
	w.exec(10, "/bin/a")
	for _, port := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		w.uses(10, tetragon.CallConnect, "AF_INET", "SOCK_STREAM", "192.0.2.1:"+port)
	}
	if got := w.tally("/bin/a").Network[0].Destinations; len(got) != store.MaxDestinations {
		t.Errorf("%d destinations kept, want %d", len(got), store.MaxDestinations)
	}
}

// tetragonUses tells it as a Tetragon does: the address has a family of its own.
func (w *world) tetragonUses(pid uint32, call, family, typ, addressFamily, addr string, port uint32) {
	w.kprobe(call, w.who(pid), []*api.KprobeArgument{
		{Arg: &api.KprobeArgument_SockArg{SockArg: &api.KprobeSock{Family: family, Type: typ, Protocol: "IPPROTO_TCP", Daddr: "0.0.0.0"}}},
		{Arg: &api.KprobeArgument_SockaddrArg{SockaddrArg: &api.KprobeSockaddr{Family: addressFamily, Addr: addr, Port: port}}},
	}, nil, testPolicy+tetragon.SocketsSuffix)
}

func TestReachAsATetragonTellsIt(t *testing.T) {
	const stream = "SOCK_STREAM"
	handed := func(u store.Use) []store.Use { u.Runs, u.Inherited = 1, 1; return []store.Use{u} }
	own := store.Use{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}}
	for name, tc := range map[string]struct {
		do   func(w *world)
		want []store.Use
	}{
		"an address of IPv4 in one of IPv6": {
			func(w *world) {
				w.tetragonUses(10, tetragon.CallConnect, "AF_INET6", stream, "AF_INET6", "::ffff:127.0.0.1", 80)
			},
			handed(store.Use{Family: "inet6", Type: "stream", Reach: store.ReachLoopback}),
		},
		"a connection that ends": {
			func(w *world) {
				w.tetragonUses(10, tetragon.CallConnect, "AF_INET", "SOCK_DGRAM", "AF_UNSPEC", "invalid IP", 0)
			},
			nil,
		},
		"bound by an address without a family": {
			func(w *world) {
				w.tetragonUses(10, tetragon.CallBind, "AF_INET", stream, "AF_UNSPEC", "invalid IP", 0)
			},
			handed(store.Use{Family: "inet", Type: "stream", Reach: store.ReachListen}),
		},
		"a family without addresses of IP": {
			func(w *world) {
				w.tetragonUses(10, tetragon.CallBind, "AF_PACKET", "SOCK_RAW", "AF_PACKET", "invalid IP", 0)
			},
			handed(store.Use{Family: "packet", Type: "raw"}),
		},
		"where to is not told": {
			func(w *world) {
				w.kprobe(tetragon.CallConnect, w.who(10), []*api.KprobeArgument{
					{Arg: &api.KprobeArgument_SockArg{SockArg: &api.KprobeSock{Family: "AF_INET", Type: stream, Daddr: "0.0.0.0"}}}}, nil, testPolicy)
			},
			handed(store.Use{Family: "inet", Type: "stream"}),
		},
		"not of IP": {
			func(w *world) { w.tetragonUses(10, tetragon.CallConnect, "AF_UNIX", stream, "AF_UNIX", "", 0) },
			nil,
		},
		"its own, told late": {
			func(w *world) {
				late := w.now.Add(2 * time.Millisecond)
				w.pass(3 * time.Millisecond)
				w.tetragonUses(10, tetragon.CallConnect, "AF_INET", stream, "AF_INET", "127.0.0.1", 80)
				w.now = late.Add(-time.Millisecond)
				w.socket(10, unix.AF_INET, unix.SOCK_STREAM)
			},
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}, Reach: store.ReachLoopback}},
		},
		"one that it was handed, and then its own": {
			func(w *world) {
				w.tetragonUses(10, tetragon.CallConnect, "AF_INET", stream, "AF_INET", "127.0.0.1", 80)
				w.socket(10, unix.AF_INET, unix.SOCK_STREAM)
			},
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}, Reach: store.ReachLoopback, Inherited: 1}},
		},
		"its own, of which nothing is told": {
			func(w *world) { w.socket(10, unix.AF_INET, unix.SOCK_STREAM) },
			[]store.Use{own},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Labels = false }).open()
			w.exec(10, "/bin/a")
			tc.do(w)
			got := w.tally("/bin/a").Network
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(store.Use{}, "First", "Last")); diff != "" {
				t.Errorf("network use (-want +got):\n%s", diff)
			}
		})
	}
}

// A Tetragon does not say who is listed. What the listed open is an attempt;
// what they do with it, or with what they are handed, is neither an attempt nor
// evidence.
func TestWhatTheListedUseIsNoAttempt(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Labels = false }).open()
	w.f.SetListed([]listing{{1, []string{"/bin/a"}, store.StageMonitor}})
	w.exec(10, "/bin/a")
	w.socket(10, unix.AF_INET, unix.SOCK_STREAM)
	w.tetragonUses(10, tetragon.CallConnect, "AF_INET", "SOCK_STREAM", "AF_INET", "192.0.2.1", 80)
	w.tetragonUses(10, tetragon.CallConnect, "AF_INET", "SOCK_DGRAM", "AF_INET", "192.0.2.1", 53)
	w.flush()
	row := w.rows["/bin/a"]
	if len(row.Attempts) != 1 || row.Attempts[0].Count != 1 || row.Attempts[0].Type != "stream" {
		t.Errorf("attempts %+v, want the one socket", row.Attempts)
	}
	if uses := row.Files[0].Network; len(uses) != 0 {
		t.Errorf("network use %+v, and it is listed", uses)
	}
}

func TestWhetherUsesWereWatched(t *testing.T) {
	connect := func(w *world) {
		w.exec(10, "/bin/a")
		w.tetragonUses(10, tetragon.CallConnect, "AF_INET", "SOCK_STREAM", "AF_INET", "127.0.0.1", 80)
	}
	bind := func(w *world) {
		w.exec(11, "/bin/b")
		w.tetragonUses(11, tetragon.CallBind, "AF_INET", "SOCK_STREAM", "AF_INET", "127.0.0.1", 80)
	}
	canary := func(without ...string) func(*world) { return func(w *world) { w.canary(without...) } }
	// late is a canary of which an event is told after its end.
	late := func(w *world) {
		p := w.process(w.next, testCanary, "execve clone")
		w.canary("connect")
		w.live[77] = p
		w.uses(77, tetragon.CallConnect, "AF_INET", "SOCK_DGRAM", "127.0.0.1:9")
		delete(w.live, 77)
	}
	sensor := func(c *Config) { c.Uses = true }
	agent := func(c *Config) { c.Labels, c.Uses = false, true }
	remote := func(c *Config) { c.Labels, c.Uses, c.Canary = false, true, "" }
	recording := func(c *Config) { c.Labels, c.Policy, c.Canary = false, "", "" }
	all := []func(*world){connect, bind}
	for _, c := range []struct {
		name   string
		change func(*Config)
		told   []func(*world)
		want   bool
	}{
		{"the sensor has told nothing", sensor, nil, false},
		{"the sensor has told of a canary", sensor, []func(*world){canary()}, true},
		{"the sensor tells no more of them", sensor, []func(*world){canary(), canary("bind"), canary("bind")}, false},
		{"a Tetragon has told nothing", agent, nil, false},
		{"a Tetragon has told of a canary", agent, []func(*world){canary()}, true},
		{"a Tetragon has told of a stranger alone", agent, []func(*world){canary("connect", "bind"), connect, bind}, false},
		{"of a canary's connect alone", agent, []func(*world){canary("bind"), canary("bind")}, false},
		{"of its bind alone", agent, []func(*world){canary("connect"), canary("connect")}, false},
		{"of a canary's connect late", agent, []func(*world){late, canary()}, true},
		{"always late", agent, []func(*world){late, late, late}, true},
		{"of one canary's not", agent, []func(*world){canary(), canary("connect"), canary()}, true},
		{"of the last canaries' no more", agent, []func(*world){canary(), canary("connect"), canary("connect")}, false},
		{"of the canaries' for a while not", agent, []func(*world){canary(), canary("connect"), canary("connect"), canary(), canary()}, false},
		{"of none before it was away, and of none after", agent, []func(*world){canary(), canary("connect"), func(w *world) { w.f.Interrupt() }, canary("connect"), canary()}, true},
		{"a Tetragon that refused them", func(c *Config) { c.Labels = false }, append(all, canary()), false},
		{"one of another host has told nothing", remote, nil, false},
		{"one of another host has told something", remote, []func(*world){bind}, true},
		{"a recording without them", recording, nil, false},
		{"a recording of one of them", recording, []func(*world){connect}, false},
		{"a recording of both", recording, all, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.change)
			for _, tell := range c.told {
				tell(w)
			}
			s := w.session()
			if s.Reach != c.want || s.NoSendHook != (c.want && !w.f.cfg.Labels) {
				t.Errorf("watched %v, but not sends %v; want %v", s.Reach, s.NoSendHook, c.want)
			}
			if n := w.f.unknownUse; n != 0 {
				t.Errorf("%d processes opened a socket that are not known", n)
			}
			if w.flush(); len(w.rows[testCanary].Files) != 0 {
				t.Errorf("the canary is told of: %+v", w.rows[testCanary])
			}
		})
	}
}
