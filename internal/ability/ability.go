// Package ability tells from a program's file whether it could use the network
// at all: what it imports, or which packages a Go program is made of.
//
// What must not be in it: verdicts. What a program could do says nothing of
// what it does, and a program that seems unable may still find a way.
package ability

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"io"
	"slices"
	"strings"

	"profile/internal/regular"
)

// What a program could do.
const (
	Sockets  = "sockets"  // open sockets
	Resolver = "resolver" // resolve names
	TLS      = "tls"
	Loads    = "loads" // load more code as it runs, which could do anything
)

// Ability is what a file could do.
type Ability struct {
	Able []string // of the above, in that order; none is none
	// Unknown says in plain words why nothing could be told, "" if it could.
	Unknown string
}

// Has reports whether the file could do one of the above.
func (a Ability) Has(what string) bool { return slices.Contains(a.Able, what) }

// maxTable bounds how much of a file is read; a Go program of 300 MB has a
// table of 40.
const maxTable = 128 << 20

// Of reads the file. It fails only if that cannot be read; what cannot be told
// is unknown. Files are untrusted: what makes no sense in one is unknown.
func Of(path string) (Ability, error) {
	file, err := regular.Open(path)
	if errors.Is(err, regular.ErrOther) {
		return Ability{Unknown: "not a regular file"}, nil
	}
	if err != nil {
		return Ability{}, err
	}
	defer file.Close()
	f, err := elf.NewFile(file)
	if err != nil {
		return Ability{Unknown: "not an ELF file"}, nil
	}
	defer f.Close()
	if _, err := buildinfo.Read(file); err == nil {
		return ofGo(f), nil
	}
	if f.Section(".dynamic") == nil {
		return ofStatic(f), nil
	}
	return ofDynamic(f), nil
}

// able collects what a file could do, in the order of the constants.
func able(has map[string]bool) Ability {
	var a Ability
	for _, what := range []string{Sockets, Resolver, TLS, Loads} {
		if has[what] {
			a.Able = append(a.Able, what)
		}
	}
	return a
}

var calls = map[string]string{
	"socket": Sockets, "__socket": Sockets, "rcmd": Sockets,
	"getaddrinfo": Resolver, "gethostbyname": Resolver, "gethostbyname2": Resolver,
	"gethostbyname_r": Resolver, "gethostbyname2_r": Resolver, "gethostbyaddr": Resolver,
	"getaddrinfo_a": Resolver, "res_query": Resolver, "res_search": Resolver, "res_nsearch": Resolver,
	"__res_query": Resolver, "__res_search": Resolver, "__res_nsearch": Resolver, "res_nquery": Resolver,
	"SSL_new": TLS, "SSL_connect": TLS, "gnutls_init": TLS, "gnutls_handshake": TLS,
	"BIO_socket": Sockets, "BIO_connect": Sockets, "BIO_new_connect": Sockets, "BIO_new_accept": Sockets,
	"BIO_s_connect": Sockets, "BIO_s_accept": Sockets, "BIO_lookup": Resolver, "BIO_lookup_ex": Resolver,
	"mbedtls_ssl_setup": TLS, "wolfSSL_new": TLS, "SSL_ImportFD": TLS, "tls_connect": TLS,
	"dlopen": Loads, "dlmopen": Loads,
}

// libraries do for a program what it then need not call itself.
var libraries = []struct {
	prefix string
	does   []string
}{
	{"libcurl", []string{Sockets, Resolver, TLS}},
	{"libsoup", []string{Sockets, Resolver, TLS}},
	{"libgio-2.0", []string{Sockets, Resolver}},
	{"libQt5Network", []string{Sockets, Resolver, TLS}},
	{"libQt6Network", []string{Sockets, Resolver, TLS}},
	{"libssh", []string{Sockets, Resolver}},
	{"libneon", []string{Sockets, Resolver, TLS}},
	{"libserf", []string{Sockets, Resolver, TLS}},
	{"libpq.", []string{Sockets, Resolver, TLS}},
	{"libmysqlclient", []string{Sockets, Resolver, TLS}},
	{"libmariadb", []string{Sockets, Resolver, TLS}},
	{"libldap", []string{Sockets, Resolver, TLS}},
	{"libzmq", []string{Sockets, Resolver}},
	{"libpcap", []string{Sockets}},
	{"libtirpc", []string{Sockets, Resolver}},
	{"libpython", []string{Sockets, Resolver, Loads}},
	{"libperl", []string{Sockets, Resolver, Loads}},
	{"libruby", []string{Sockets, Resolver, Loads}},
	{"libnode", []string{Sockets, Resolver, TLS, Loads}},
	{"libtcl", []string{Sockets, Resolver, Loads}},
	{"libguile", []string{Sockets, Resolver, Loads}},
	{"libjli", []string{Sockets, Resolver, TLS, Loads}}, // what starts Java
	{"liblua", []string{Loads}},
	{"libpam.", []string{Loads}},
	{"libkrb5.", []string{Sockets, Resolver}},
	{"libcups.", []string{Sockets, Resolver, TLS}},
	{"libgit2", []string{Sockets, Resolver, TLS}},
	{"libsmbclient", []string{Sockets, Resolver}},
	{"libnetsnmp", []string{Sockets, Resolver}},
	{"libuv.", []string{Sockets, Resolver}},
	{"libresolv", []string{Resolver}},
	{"libcares", []string{Sockets, Resolver}},
	{"libssl.", []string{TLS}},
	{"libssl3.", []string{TLS}},
	{"libgnutls", []string{TLS}},
	{"libmbedtls", []string{TLS}},
	{"libwolfssl", []string{TLS}},
}

func ofDynamic(f *elf.File) Ability {
	has := map[string]bool{}
	symbols, err := f.ImportedSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return Ability{Unknown: "what it imports cannot be read"}
	}
	for _, s := range symbols {
		if what := calls[s.Name]; what != "" {
			has[what] = true
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return Ability{Unknown: "which libraries it needs cannot be read"}
	}
	for _, library := range needed {
		for _, known := range libraries {
			if strings.HasPrefix(library, known.prefix) {
				for _, what := range known.does {
					has[what] = true
				}
			}
		}
	}
	if len(needed) == 0 && len(symbols) == 0 {
		return ofStatic(f) // a static program that can be placed anywhere
	}
	return able(has)
}

// ofStatic looks for the functions by name, which a stripped file has not. That
// it loads more does not count: the C library brings that along.
func ofStatic(f *elf.File) Ability {
	symbols, err := f.Symbols()
	if err != nil || len(symbols) == 0 {
		return Ability{Unknown: "static, without symbols"}
	}
	has := map[string]bool{}
	for _, s := range symbols {
		if what := calls[s.Name]; what != "" && what != Loads && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			has[what] = true
		}
	}
	return able(has)
}

// functions of Go's own packages: what is never called is not linked in. Their
// names stay in a stripped file, since a stack trace needs them.
var functions = map[string]string{
	"syscall.socket": Sockets, "golang.org/x/sys/unix.socket": Sockets, "golang.org/x/sys/unix.Socket": Sockets,
	"net.(*netFD).connect": Sockets, "net.(*netFD).listenStream": Sockets,
	"net.(*Resolver).lookupIPAddr": Resolver, "net.(*Resolver).goLookupIPCNAMEOrder": Resolver,
	"crypto/tls.(*Conn).HandshakeContext": TLS, "crypto/tls.(*Conn).clientHandshake": TLS,
	"plugin.Open": Loads,
	"crosscall2":  cgo,
}

// cgo is no ability: the program has C in it, whose functions have no names
// among Go's.
const cgo = "cgo"

// tables are the sections that the names of functions may be in. A linker that
// is not Go's may have put them into the larger ones.
var tables = [][]string{{".gopclntab", ".data.rel.ro.gopclntab"}, {".data.rel.ro", ".rodata"}}

func ofGo(f *elf.File) Ability {
	has := map[string]bool{}
	for _, names := range tables {
		found, err := lookFor(f, names, has)
		if err != nil {
			return Ability{Unknown: "a Go program whose functions cannot be read"}
		}
		if !found {
			continue
		}
		var c Ability // what its C could do, if it has any
		switch {
		case f.Section(".dynamic") != nil:
			c = ofDynamic(f)
		case has[cgo]:
			c = ofStatic(f)
		}
		for _, what := range c.Able {
			has[what] = true
		}
		if all := able(has); len(all.Able) > 0 || c.Unknown == "" {
			return all
		}
		return Ability{Unknown: "a Go program with C in it: " + c.Unknown}
	}
	return Ability{Unknown: "a Go program whose functions are not named"}
}

// lookFor looks for functions in the sections of some names, and reports
// whether there was the one that every Go program has.
func lookFor(f *elf.File, sections []string, has map[string]bool) (found bool, err error) {
	for _, section := range f.Sections {
		if !slices.Contains(sections, section.Name) || section.Type == elf.SHT_NOBITS || section.Size > maxTable {
			continue
		}
		table := make([]byte, section.Size)
		if _, err := io.ReadFull(section.Open(), table); err != nil {
			return false, err
		}
		named := func(function string) bool { return bytes.Contains(table, []byte("\x00"+function+"\x00")) }
		if !named("runtime.main") {
			continue
		}
		found = true
		for name, what := range functions {
			if !has[what] && named(name) {
				has[what] = true
			}
		}
	}
	return found, nil
}
