package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Listen opens a unix socket for root, and for the members of a group if one
// is named. Who connects is checked by the credentials that the kernel gives
// of the peer, not by the mode of the socket alone. A socket that a dead
// process left is replaced; one that answers is an error.
func Listen(path, group string, log *slog.Logger) (net.Listener, error) {
	gid := -1
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, fmt.Errorf("find group %q: %w", group, err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, fmt.Errorf("find group %q: %w", group, err)
		}
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	// Nobody may connect in the moment before the mode is set.
	old := unix.Umask(0o177)
	lis, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	if gid >= 0 {
		err = errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s to group %s: %w", path, group, err), lis.Close())
		}
	}
	return &peers{Listener: lis, gid: gid, log: log}, nil
}

// clearSocket removes a socket at which nobody answers.
func clearSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("an agent answers at %s already", path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, unix.ECONNREFUSED):
		// One that is too busy to answer would go on, where nobody finds it.
		return fmt.Errorf("an agent may be at %s already: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the socket of an agent that has gone: %w", err)
	}
	return nil
}

// peers lets in root and one group.
type peers struct {
	net.Listener
	gid int // -1 is none
	log *slog.Logger
}

// Accept implements net.Listener. Whoever may not connect is hung up on.
func (p *peers) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		cred, err := peerOf(conn)
		if err == nil && p.allows(cred) {
			return conn, nil
		}
		p.log.Warn("refused a connection", "cred", cred, "err", err)
		conn.Close()
	}
}

func peerOf(conn net.Conn) (*unix.Ucred, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, credErr)
}

func (p *peers) allows(cred *unix.Ucred) bool {
	if cred.Uid == 0 {
		return true
	}
	if p.gid < 0 {
		return false
	}
	if int(cred.Gid) == p.gid {
		return true
	}
	u, err := user.LookupId(strconv.Itoa(int(cred.Uid)))
	if err != nil {
		return false
	}
	groups, err := u.GroupIds()
	return err == nil && slices.Contains(groups, strconv.Itoa(p.gid))
}
