package sensor

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"profile/internal/cgroup"
	"profile/internal/tetragon"
)

// FuzzCompile: whatever text comes, it is refused as an invalid argument, or it
// is a policy that the sensor can do, whole: for families that are seen, and if
// it kills, for paths that a kernel can match.
func FuzzCompile(f *testing.F) {
	audit := auditPolicy("profile-learn-x", cgroup.Group{Path: "/a"})
	enforce := enforcingPolicy("profile-enforce-x", "monitor", cgroup.Group{Path: "/"}, "/bin/x", "/bin/new\nline")
	for _, op := range []string{"NotIn", "Prefix", "NotPrefix"} {
		other := enforcingPolicy("profile-enforce-x", "enforce", cgroup.Group{Path: "/"}, "/usr/")
		other.Spec.KProbes[0].Selectors[0].MatchBinaries[0].Operator = op
		f.Add(seed(f, other))
	}
	f.Add(seed(f, audit))
	f.Add(seed(f, enforce))
	f.Add(strings.Replace(seed(f, enforce), "/bin/x", "", 1))
	f.Add(strings.Replace(seed(f, enforce), `"2"`, `"-2"`, 1))
	f.Fuzz(func(t *testing.T, text string) {
		p, err := compile(text, sees)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("refused with code %s: %v", status.Code(err), err)
			}
			return
		}
		switch {
		case !strings.HasPrefix(p.Cgroup, "/"):
			t.Fatalf("acts in cgroup %q", p.Cgroup)
		case (p.Sockets || p.Enforcing) && len(p.Families) == 0:
			t.Fatal("watches sockets of no family")
		case p.Enforcing && len(p.Paths) == 0:
			t.Fatal("kills, and names nobody")
		case !p.Enforcing && (len(p.Paths) > 0 || p.Monitor):
			t.Fatal("kills nobody, and yet has a list or a mode")
		}
		for _, family := range p.Families {
			if !slices.Contains(sees, family) {
				t.Fatalf("watches family %d, which is not seen", family)
			}
		}
		for _, path := range p.Paths {
			if len(path) > 255 || !strings.HasPrefix(path, "/") || !utf8.ValidString(path) || strings.Contains(path, "\x00") {
				t.Fatalf("lists %q, which no kernel matches", path)
			}
		}
	})
}

func seed(f *testing.F, p *tetragon.Policy) string {
	text, err := p.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	return string(text)
}
