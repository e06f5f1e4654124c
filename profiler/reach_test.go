package profiler

import (
	"testing"

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
			func(w *world) { w.uses(10, tetragon.CallBind, "AF_INET", "SOCK_DGRAM", "0.0.0.0:0") },
			[]store.Use{{Family: "inet", Type: "stream", Runs: 1, Protocols: []uint32{0}}},
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
