package ability

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"profile/internal/regular/regulartest"
)

// built compiles a program for the test; CI has both compilers.
func built(t *testing.T, source string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "main"+args[0])
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "program")
	command := []string{"go", "build", "-o", out}
	if args[0] == ".c" {
		command = []string{"gcc", "-o", out}
	}
	if _, err := exec.LookPath(command[0]); err != nil && os.Getenv("CI") == "" {
		t.Skipf("no %s to build the program with", command[0])
	}
	command = append(append(command, args[1:]...), file)
	cmd := exec.Command(command[0], command[1:]...)
	withC := "CGO_ENABLED=0"
	if strings.Contains(source, `import "C"`) {
		withC = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), withC, "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

const (
	silentC  = "int main(void) { return 0; }"
	socketC  = "#include <sys/socket.h>\nint main(void) { return socket(AF_INET, SOCK_STREAM, 0); }"
	lookupC  = "#include <netdb.h>\nint main(void) { struct addrinfo *a; return getaddrinfo(\"a\", 0, 0, &a); }"
	bioC     = "int BIO_socket(int, int, int, int); int BIO_lookup_ex(void);\nint main(void) { BIO_lookup_ex(); return BIO_socket(2, 1, 0, 0); }"
	loadsC   = "#include <dlfcn.h>\nint main(void) { return !dlopen(\"libcurl.so\", RTLD_NOW); }"
	silent   = "package main\nfunc main() { println() }"
	http     = "package main\nimport \"net/http\"\nfunc main() { http.Get(\"https://localhost/\") }"
	lookupGo = "package main\n// #include <netdb.h>\n// static int lookup(void) { struct addrinfo *a; return getaddrinfo(\"a\", 0, 0, &a); }\nimport \"C\"\nfunc main() { println(C.lookup()) }"
	raw      = "package main\nimport \"syscall\"\nfunc main() { syscall.Socket(2, 1, 0) }"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		name, source string
		build        []string
		want         []string
		unknown      string
	}{
		{"dynamic and silent", silentC, []string{".c"}, nil, ""},
		{"dynamic with a socket", socketC, []string{".c"}, []string{Sockets}, ""},
		{"dynamic with a resolver", lookupC, []string{".c", "-s"}, []string{Resolver}, ""},
		{"dynamic that loads more", loadsC, []string{".c"}, []string{Loads}, ""},
		{"dynamic with OpenSSL's sockets", bioC, []string{".c", "-shared", "-fPIC"}, []string{Sockets, Resolver}, ""},
		{"static and silent", silentC, []string{".c", "-static"}, nil, ""},
		{"static with a socket", socketC, []string{".c", "-static", "-nostartfiles", "-Wl,-e,main"}, []string{Sockets}, ""},
		{"static and stripped", socketC, []string{".c", "-static", "-s"}, nil, "static, without symbols"},
		{"static, placed anywhere", socketC, []string{".c", "-static-pie"}, []string{Sockets}, ""},
		{"static, placed anywhere and stripped", socketC, []string{".c", "-static-pie", "-s"}, nil, "static, without symbols"},
		{"Go, silent", silent, []string{".go"}, nil, ""},
		{"Go, with net/http, stripped", http, []string{".go", "-ldflags=-s -w"}, []string{Sockets, Resolver, TLS}, ""},
		{"Go with C, static", lookupGo, []string{".go", "-ldflags=-linkmode external -extldflags -static"}, []string{Sockets, Resolver}, ""},
		{"Go with C, static and stripped", lookupGo, []string{".go", "-ldflags=-s -w -linkmode external -extldflags -static"}, nil, "a Go program with C in it: static, without symbols"},
		{"Go with C, dynamic and stripped", lookupGo, []string{".go", "-ldflags=-s -w"}, []string{Resolver}, ""},
		{"Go, with a system call of its own", raw, []string{".go", "-buildmode=pie"}, []string{Sockets}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Of(built(t, c.source, c.build...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Ability{Able: c.want, Unknown: c.unknown}, got); diff != "" {
				t.Errorf("ability (-want +got):\n%s", diff)
			}
		})
	}
}

// A linker that is not Go's may leave no section of that name.
func TestAGoProgramWhoseTableHasNoSectionOfItsOwn(t *testing.T) {
	for source, want := range map[string][]string{silent: nil, http: {Sockets, Resolver, TLS}} {
		file := built(t, source, ".go", "-ldflags=-s -w")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, unknown := range map[string]string{".rodata": "", ".nowhere": "a Go program whose functions are not named"} {
			other := bytes.ReplaceAll(text, []byte("\x00.gopclntab\x00"), []byte("\x00"+name+strings.Repeat("\x00", len(".gopclntab\x00")-len(name))))
			if bytes.Equal(other, text) {
				t.Fatal("it has no such section")
			}
			if err := os.WriteFile(file, other, 0o755); err != nil {
				t.Fatal(err)
			}
			wanted := Ability{Able: want}
			if unknown != "" {
				wanted = Ability{Unknown: unknown}
			}
			got, err := Of(file)
			if diff := cmp.Diff(wanted, got); err != nil || diff != "" {
				t.Errorf("ability with the table in %s (%v, -want +got):\n%s", name, err, diff)
			}
		}
	}
}

func TestWhatIsNoProgramIsUnknown(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"script": "#!/bin/sh\n", "empty": "", "cut": "\x7fELF\x02\x01\x01", "long": "\x7fELF" + strings.Repeat("\xff", 4096)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if got, err := Of(file); err != nil || got.Unknown == "" || got.Able != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if regulartest.Opened(t, pipe, func() {
		if got, err := Of(pipe); err != nil || got.Unknown == "" {
			t.Errorf("a pipe: %+v, %v", got, err)
		}
	}) {
		t.Error("a pipe was opened")
	}
	if _, err := Of(filepath.Join(dir, "missing")); !os.IsNotExist(err) {
		t.Errorf("error %v of a missing file", err)
	}
}
