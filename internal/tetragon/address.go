package tetragon

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// ErrPlaintext is returned for an address on another machine: an agent has
// neither TLS nor authentication of its own.
var ErrPlaintext = errors.New("events and policies would cross the network in plain text, and anyone on it could change them: forward the port (ssh -L, kubectl port-forward), or say --insecure")

// CheckAddress refuses an address that is none, or, unless insecure, one on
// another machine.
func CheckAddress(address string, insecure bool) error {
	if !strings.HasPrefix(address, "unix:") {
		if _, port, err := net.SplitHostPort(bare(address)); err != nil || port == "" {
			return fmt.Errorf("agent %q: an address is unix:///PATH or HOST:PORT", address)
		}
	}
	if !insecure && !isLocal(address) {
		return fmt.Errorf("agent %s: %w", address, ErrPlaintext)
	}
	return nil
}

// bare is an address without the scheme of a gRPC resolver.
func bare(address string) string {
	return strings.TrimPrefix(strings.TrimPrefix(address, "passthrough:///"), "dns:///")
}

func isLocal(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(bare(address))
	if err != nil {
		host = bare(address)
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
