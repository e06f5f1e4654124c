package enforcer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func TestPathsThatChange(t *testing.T) {
	for path, want := range map[string]string{
		"/tmp/.mount_NextclXa9b2C/usr/bin/nextcloud":                              "/tmp/.mount_Nextcl*/usr/bin/nextcloud",
		"/home/u/tmp/.mount_abcdef/AppRun":                                        "/home/u/tmp/.mount_*/AppRun",
		"/.mount_KritaAbCd12/usr/bin/krita":                                       "/.mount_Krita*/usr/bin/krita",
		"/snap/firefox/4173/usr/lib/firefox/firefox":                              "/snap/firefox/*/usr/lib/firefox/firefox",
		"/var/lib/snapd/snap/jq/x1/bin/jq":                                        "/var/lib/snapd/snap/jq/*/bin/jq",
		"/nix/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-coreutils-9.5/bin/coreutils": "/nix/store/*-coreutils*/bin/coreutils",
		"/gnu/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-hello-2.12/bin/hello":        "/gnu/store/*-hello*/bin/hello",
		"/root/.pyenv/versions/3.11.7/bin/python3.11":                             "/root/.pyenv/versions/*/bin/python3.11",
		"/opt/node-v22.1.0-linux-x64/bin/node":                                    "/opt/node-*/bin/node",
		"/usr/local/lib/app/1.0/app":                                              "/usr/local/lib/app/*/app",
		"/opt/a-1.2/lib/b-3.4/c":                                                  "/opt/a-*/lib/b-*/c",
		"/usr/lib/llvm-14.0/bin/clang":                                            "",
		"/usr/bin/python3.11":                                                     "",
		"/usr/local/bin/python3.11":                                               "",
		"/opt/app/bin/tool-1.2.3":                                                 "",
		"/snap/bin/firefox":                                                       "",
		"/snap/core/current/usr/bin/x":                                            "",
		"/nix/store/short-coreutils-9.5/bin/coreutils":                            "/nix/store/short-coreutils-*/bin/coreutils",
		"/tmp/tmp.1a2b/x":                                                         "",
		"/tmp/Test123/001/x":                                                      "",
		"unresolved:/opt/a-1.2/b":                                                 "",
	} {
		got, ok := familyOf(path)
		if ok != (want != "") || ok && got.pattern != want {
			t.Errorf("%s is of the family %q (%v), want %q", path, got.pattern, ok, want)
		}
	}
}

func TestAFamilyIsShownAsOne(t *testing.T) {
	const old, now = "/snap/jq/1/bin/jq", "/snap/jq/2/bin/jq"
	s := database(t, func(tx *store.Tx) error {
		return putAll(tx, []store.Session{watched("a", 0, 10)}, nil,
			keyed("host", old, row("a", runs(1))), keyed("host", now, row("a", used(runs(1), "inet", "stream"))), keyed("host", "/usr/bin/jq", row("a", runs(1))))
	})
	rows, families := reportedFamilies(t, s, ReportOptions{})
	want := []Family{{Pattern: "/snap/jq/*/bin/jq", Why: "a snap has a directory for each revision", Verdict: Network,
		Members: []Member{{"host", old, Quiet}, {"host", now, Network}}}}
	if diff := cmp.Diff(want, families); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	for i, want := range []string{"/snap/jq/*/bin/jq", "/snap/jq/*/bin/jq", ""} {
		if rows[i].Family != want {
			t.Errorf("%s is of family %q, want %q", rows[i].Path, rows[i].Family, want)
		}
	}
}

func TestAPathThatChangesIsHeldUnlessItIsIncluded(t *testing.T) {
	s := newScene(t)
	one := s.learned("app-1.2/tool", runs(3))
	two := s.learned("app-1.3/tool", runs(3))
	plan := s.mustPlan()
	mustHold(t, plan, one, "its path changes: its directory has the name of a version")
	mustHold(t, plan, two, "its path changes")
	s.o.Include = []string{two}
	mustHold(t, s.mustPlan(two), one, "its path changes")
}
