package profiler

import (
	"net/netip"
	"slices"

	api "github.com/cilium/tetragon/api/v1/tetragon"

	"profile/internal/tetragon"
	"profile/store"
)

// reach notes what a socket is used for. A socket that the run did not open is
// network use all the same; a listed process is killed for opening one, and
// what it does with others makes it no network user.
func (f *Fold) reach(k *api.ProcessKprobe, at int64) {
	if len(k.GetArgs()) < 1 {
		return
	}
	sock := k.Args[0].GetSockArg()
	familyName, typeName := tetragon.FromSock(sock.GetFamily(), sock.GetType())
	family := slices.Index(f.names, familyName)
	typ, ok := tetragon.TypeNumber(typeName)
	stage, path := readLabels(k)
	if family < 0 || !ok || stage != "" {
		return
	}
	if f.isOwnCanary(k.GetProcess()) {
		f.windows.uses.since.saw(k.GetFunctionName())
		return // its run may have ended
	}
	u := use{at: at, typ: socketType(family)*typeCount + socketType(typ), used: true}
	switch call := k.GetFunctionName(); {
	case len(k.Args) > 1:
		to := k.Args[1].GetSockaddrArg()
		if call == tetragon.CallConnect && to.GetFamily() == noFamily {
			return // it ends a connection
		}
		u.reach, u.destination = judgeReach(call, typeName, addressOf(to))
	case call == tetragon.CallSend || call == tetragon.CallReceive:
		u.reach, u.destination = judgeHanded(call, typeName, address(sock.GetDaddr(), sock.GetDport()))
	}
	if r := f.opener(k, path, at); r != nil {
		f.note(r, u)
	}
}

// isOwnCanary reports whether a process runs the session's canary, which is
// started by its path.
func (f *Fold) isOwnCanary(p *api.Process) bool {
	return f.cfg.Canary != "" && p.GetBinary() == f.cfg.Canary
}

// noFamily is how a Tetragon names AF_UNSPEC.
const noFamily = "AF_UNSPEC"

// addressOf is not valid where the address is not one of IP.
func addressOf(to *api.KprobeSockaddr) netip.AddrPort {
	if family := to.GetFamily(); family != "AF_INET" && family != "AF_INET6" {
		return netip.AddrPort{}
	}
	return address(to.GetAddr(), to.GetPort())
}

// address is not valid if the text is none.
func address(ip string, port uint32) netip.AddrPort {
	addr, _ := netip.ParseAddr(ip)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port))
}

// judgeReach says how far a use goes; 0 is nowhere that is known. A datagram
// socket that is bound to no port of its own choice only gets an address to
// send from.
func judgeReach(call, typ string, to netip.AddrPort) (reach store.Reach, destination string) {
	switch {
	case call == tetragon.CallBind && (typ == "stream" || to.Port() != 0):
		return store.ReachListen, ""
	case call == tetragon.CallBind || !to.IsValid():
		return 0, ""
	case to.Addr().IsLoopback() || to.Addr().IsUnspecified():
		return store.ReachLoopback, ""
	}
	return store.ReachOut, to.String()
}

// judgeHanded does so for a socket that another has opened, by its peer, which
// is not valid where it is not connected. Which side of a connection began it
// is not to be seen.
func judgeHanded(call, typ string, peer netip.AddrPort) (reach store.Reach, destination string) {
	switch {
	case !peer.IsValid() && call == tetragon.CallReceive && typ == "dgram":
		return store.ReachListen, ""
	case !peer.IsValid():
		return 0, ""
	case peer.Addr().IsLoopback():
		return store.ReachLoopback, ""
	}
	return store.ReachPeer, peer.String()
}

// useHooks are those of the hooks that tell what sockets are used for of which
// an event came.
type useHooks struct{ connect, bind bool }

func (h *useHooks) saw(call string) {
	h.connect = h.connect || call == tetragon.CallConnect
	h.bind = h.bind || call == tetragon.CallBind
}

// useProof is what the session's canaries, each of which connects and binds,
// prove of these hooks.
type useProof struct {
	since  useHooks // events of canaries since the last one came back
	missed int      // canaries in a row that came back without both
	shown  bool     // both were seen of one
	failed bool     // and once they were not
}

// back takes a canary that has come back. What it does may be told only after
// its end: it has until the next one is back.
func (p *useProof) back() {
	if p.since == (useHooks{true, true}) {
		p.shown, p.missed = true, 0
	} else {
		p.missed++
		p.failed = p.failed || p.missed > 1
	}
	p.since = useHooks{}
}

// watchesUses reports whether it is watched what sockets are used for. That the
// agent has the hooks its canaries must show, or where there are none an event
// of one, and that a recording was made with both of them an event of each.
func (f *Fold) watchesUses() bool {
	switch {
	case f.cfg.Policy == "":
		return f.useHooks.connect && f.useHooks.bind
	case f.cfg.Canary == "":
		return f.cfg.Uses && f.useHooks != useHooks{}
	}
	return f.cfg.Uses && f.windows.uses.shown && !f.windows.uses.failed
}

// notice adds what one socket tells beside its family and type.
func (n *tallyUse) notice(u use) {
	n.reach |= u.reach
	if !u.used && len(n.protocols) < store.MaxProtocols && !slices.Contains(n.protocols, u.protocol) {
		n.protocols = append(n.protocols, u.protocol)
		slices.Sort(n.protocols)
	}
	if u.destination != "" && len(n.destinations) < store.MaxDestinations && !slices.Contains(n.destinations, u.destination) {
		n.destinations = append(n.destinations, u.destination)
		slices.Sort(n.destinations)
	}
}
