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
	if len(k.GetArgs()) < 2 {
		return
	}
	sock, to := k.Args[0].GetSockArg(), k.Args[1].GetSockaddrArg()
	familyName, typeName := tetragon.FromSock(sock.GetFamily(), sock.GetType())
	family := slices.Index(f.names, familyName)
	typ, ok := tetragon.TypeNumber(typeName)
	ip, err := netip.ParseAddr(to.GetAddr())
	if family < 0 || !ok || err != nil {
		return
	}
	u := use{at: at, typ: socketType(family)*typeCount + socketType(typ)}
	u.reach, u.destination = judgeReach(k.GetFunctionName(), typeName, netip.AddrPortFrom(ip.Unmap(), uint16(to.GetPort())))
	stage, path := readLabels(k)
	if u.reach == 0 || stage != "" {
		return
	}
	if r := f.opener(k, path, at); r != nil {
		f.note(r, u)
	}
}

// judgeReach says how far a use goes; 0 is nowhere. A datagram socket that is
// bound to no port of its own choice only gets an address to send from.
func judgeReach(call, typ string, to netip.AddrPort) (reach store.Reach, destination string) {
	switch {
	case call == tetragon.CallBind && (typ == "stream" || to.Port() != 0):
		return store.ReachListen, ""
	case call == tetragon.CallBind:
		return 0, ""
	case to.Addr().IsLoopback() || to.Addr().IsUnspecified():
		return store.ReachLoopback, ""
	}
	return store.ReachOut, to.String()
}

// notice adds what one socket tells beside its family and type.
func (n *tallyUse) notice(u use) {
	n.reach |= u.reach
	if u.reach == 0 && len(n.protocols) < store.MaxProtocols && !slices.Contains(n.protocols, u.protocol) {
		n.protocols = append(n.protocols, u.protocol)
		slices.Sort(n.protocols)
	}
	if u.destination != "" && len(n.destinations) < store.MaxDestinations && !slices.Contains(n.destinations, u.destination) {
		n.destinations = append(n.destinations, u.destination)
		slices.Sort(n.destinations)
	}
}
