package enforcer

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"profile/store"
)

func TestPathsThatChange(t *testing.T) {
	commit, sum := strings.Repeat("1a5daa3a02", 4), strings.Repeat("5ed21fc3", 8)
	for path, want := range map[string]string{
		"/tmp/.mount_NextclXa9b2C/usr/bin/nextcloud":                                    "/tmp/.mount_Nextcl*/usr/bin/nextcloud",
		"/home/u/tmp/.mount_abcdef/AppRun":                                              "/home/u/tmp/.mount_*/AppRun",
		"/.mount_KritaAbCd12/usr/bin/krita":                                             "/.mount_Krita*/usr/bin/krita",
		"/snap/firefox/4173/usr/lib/firefox/firefox":                                    "/snap/firefox/*/usr/lib/firefox/firefox",
		"/var/lib/snapd/snap/jq/x1/bin/jq":                                              "/var/lib/snapd/snap/jq/*/bin/jq",
		"/nix/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-coreutils-9.5/bin/coreutils":       "/nix/store/*-coreutils*/bin/coreutils",
		"/gnu/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-hello-2.12/bin/hello":              "/gnu/store/*-hello*/bin/hello",
		"/root/.pyenv/versions/3.11.7/bin/python3.11":                                   "/root/.pyenv/versions/*/bin/python3.11",
		"/opt/node-v22.1.0-linux-x64/bin/node":                                          "/opt/node-*/bin/node",
		"/usr/local/lib/app/1.0/app":                                                    "/usr/local/lib/app/*/app",
		"/opt/a-1.2/lib/b-3.4/c":                                                        "/opt/a-*/lib/b-*/c",
		"/tmp/appimage_extracted_0a5daa3a0231a0fbba4f14db7ec463cf/usr/bin/krita":        "/tmp/appimage_extracted_*/usr/bin/krita",
		"/home/u/.nvm/versions/node/v20.1.0/bin/node":                                   "/home/u/.nvm/versions/node/*/bin/node",
		"/home/u/.sdkman/candidates/java/17.0.2-open/bin/java":                          "/home/u/.sdkman/candidates/java/*/bin/java",
		"/home/u/.rustup/toolchains/1.75.0-x86_64-unknown-linux-gnu/bin/rustc":          "/home/u/.rustup/toolchains/*/bin/rustc",
		"/home/u/go/pkg/mod/golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64/bin/go":    "/home/u/go/pkg/mod/golang.org/toolchain@*/bin/go",
		"/home/u/.local/share/JetBrains/Toolbox/apps/IDEA-U/ch-0/231.8109.175/bin/idea": "/home/u/.local/share/JetBrains/Toolbox/apps/IDEA-U/ch-0/*/bin/idea",
		"/home/u/.config/discord/app-1.0.9/Discord":                                     "/home/u/.config/discord/app-*/Discord",
		"/home/u/.cache/puppeteer/chrome/linux-119.0.6045.105/chrome-linux64/chrome":    "/home/u/.cache/puppeteer/chrome/linux-*/chrome-linux64/chrome",
		"/home/u/.vscode-server/bin/" + commit + "/node":                                "/home/u/.vscode-server/bin/*/node",
		"/home/u/.vscode-server/cli/servers/Stable-" + commit + "/server/node":          "/home/u/.vscode-server/cli/servers/Stable-*/server/node",
		"/var/lib/flatpak/app/org.a.B/x86_64/stable/" + sum + "/files/bin/b":            "/var/lib/flatpak/app/org.a.B/x86_64/stable/*/files/bin/b",
		"/var/lib/docker/overlay2/" + sum + "/merged/bin/tool":                          "/var/lib/docker/overlay2/*/merged/bin/tool",
		"/opt/" + commit + "/app-1.2/tool":                                              "/opt/*/app-*/tool",
		"/home/linuxbrew/.linuxbrew/Cellar/jq/1.7.1_2/bin/jq":                           "/home/linuxbrew/.linuxbrew/Cellar/jq/*/bin/jq",
		"/home/linuxbrew/.linuxbrew/Cellar/gcc/13/bin/gcc-13":                           "/home/linuxbrew/.linuxbrew/Cellar/gcc/*/bin/gcc-13",
		"/opt/kafka_2.13-3.6.0/bin/tool":                                                "/opt/kafka_*/bin/tool",
		"/app/bin/b":                                                                    "", // as a Flatpak sees it
		"/usr/lib/x86_64-linux-gnu/openmpi/bin/tool":                                    "",
		"/usr/lib/jvm/java-17-openjdk-amd64/bin/java":                                   "",
		"/usr/libexec/" + commit + "/tool":                                              "",
		"/usr/local/lib/python3.11/dist-packages/a/tool":                                "",
		"/home/u/venv/lib/python3.11/site-packages/a/tool":                              "",
		"/home/u/.cache/pypoetry/virtualenvs/a-Yd3_qWlK-py3.11/bin/tool":                "",
		"/home/u/.cache/bazel/_bazel_u/0a5daa3a0231a0fbba4f14db7ec463cf/x/tool":         "", // of the directory it is built in
		"/opt/" + commit + "0/tool":                                                     "",
		"/srv/example.com/tool":                                                         "",
		"/opt/jdk-21/bin/java":                                                          "",
		"/usr/lib/llvm-14.0/bin/clang":                                                  "",
		"/usr/bin/python3.11":                                                           "",
		"/usr/local/bin/python3.11":                                                     "",
		"/opt/app/bin/tool-1.2.3":                                                       "",
		"/snap/bin/firefox":                                                             "",
		"/snap/core/current/usr/bin/x":                                                  "",
		"/nix/store/short-coreutils-9.5/bin/coreutils":                                  "/nix/store/short-coreutils-*/bin/coreutils",
		"/tmp/tmp.1a2b/x":                                                               "",
		"/tmp/Test123/001/x":                                                            "",
		"unresolved:/opt/a-1.2/b":                                                       "",
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
