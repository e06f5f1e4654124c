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
		"/tmp/.mount_NextclXa9b2C/usr/bin/nextcloud":                                                                        "/tmp/.mount_Nextcl*/usr/bin/nextcloud",
		"/home/u/tmp/.mount_abcdef/AppRun":                                                                                  "/home/u/tmp/.mount_*/AppRun",
		"/.mount_KritaAbCd12/usr/bin/krita":                                                                                 "/.mount_Krita*/usr/bin/krita",
		"/snap/firefox/4173/usr/lib/firefox/firefox":                                                                        "/snap/firefox/*/usr/lib/firefox/firefox",
		"/var/lib/snapd/snap/jq/x1/bin/jq":                                                                                  "/var/lib/snapd/snap/jq/*/bin/jq",
		"/nix/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-coreutils-9.5/bin/coreutils":                                           "/nix/store/*-coreutils*/bin/coreutils",
		"/gnu/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-hello-2.12/bin/hello":                                                  "/gnu/store/*-hello*/bin/hello",
		"/root/.pyenv/versions/3.11.7/bin/python3.11":                                                                       "/root/.pyenv/versions/*/bin/python3.11",
		"/opt/node-v22.1.0-linux-x64/bin/node":                                                                              "/opt/node-*/bin/node",
		"/usr/local/lib/app/1.0/app":                                                                                        "/usr/local/lib/app/*/app",
		"/opt/a-1.2/lib/b-3.4/c":                                                                                            "/opt/a-*/lib/b-*/c",
		"/tmp/appimage_extracted_0a5daa3a0231a0fbba4f14db7ec463cf/usr/bin/krita":                                            "/tmp/appimage_extracted_*/usr/bin/krita",
		"/home/u/.nvm/versions/node/v20.1.0/bin/node":                                                                       "/home/u/.nvm/versions/node/*/bin/node",
		"/home/u/.sdkman/candidates/java/17.0.2-open/bin/java":                                                              "/home/u/.sdkman/candidates/java/*/bin/java",
		"/home/u/.rustup/toolchains/1.75.0-x86_64-unknown-linux-gnu/bin/rustc":                                              "/home/u/.rustup/toolchains/*/bin/rustc",
		"/home/u/go/pkg/mod/golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64/bin/go":                                        "/home/u/go/pkg/mod/golang.org/toolchain@*/bin/go",
		"/home/u/.local/share/JetBrains/Toolbox/apps/IDEA-U/ch-0/231.8109.175/bin/idea":                                     "/home/u/.local/share/JetBrains/Toolbox/apps/IDEA-U/ch-0/*/bin/idea",
		"/home/u/.config/discord/app-1.0.9/Discord":                                                                         "/home/u/.config/discord/app-*/Discord",
		"/home/u/.cache/puppeteer/chrome/linux-119.0.6045.105/chrome-linux64/chrome":                                        "/home/u/.cache/puppeteer/chrome/linux-*/chrome-linux64/chrome",
		"/home/u/.vscode-server/bin/" + commit + "/node":                                                                    "/home/u/.vscode-server/bin/*/node",
		"/home/u/.vscode-server/cli/servers/Stable-" + commit + "/server/node":                                              "/home/u/.vscode-server/cli/servers/Stable-*/server/node",
		"/var/lib/flatpak/app/org.a.B/x86_64/stable/" + sum + "/files/bin/b":                                                "/var/lib/flatpak/app/org.a.B/x86_64/stable/*/files/bin/b",
		"/var/lib/docker/overlay2/" + sum + "/merged/bin/tool":                                                              "/var/lib/docker/overlay2/*/merged/bin/tool",
		"/opt/" + commit + "/app-1.2/tool":                                                                                  "/opt/*/app-*/tool",
		"/home/linuxbrew/.linuxbrew/Cellar/jq/1.7.1_2/bin/jq":                                                               "/home/linuxbrew/.linuxbrew/Cellar/jq/*/bin/jq",
		"/home/linuxbrew/.linuxbrew/Cellar/gcc/13/bin/gcc-13":                                                               "/home/linuxbrew/.linuxbrew/Cellar/gcc/*/bin/gcc-13",
		"/home/u/snap/code/150/.local/bin/x":                                                                                "/home/u/snap/code/*/.local/bin/x",
		"/root/snap/lxd/x2/bin/x":                                                                                           "/root/snap/lxd/*/bin/x",
		"/var/snap/microk8s/6089/bin/x":                                                                                     "/var/snap/microk8s/*/bin/x",
		"/snap/firefox_test/4173/usr/lib/firefox/firefox":                                                                   "/snap/firefox_test/*/usr/lib/firefox/firefox",
		"/var/snap/microk8s/common/bin/x":                                                                                   "",
		"/srv/snap/app/12/x":                                                                                                "",
		"/tmp/.mount_AbCd12/usr/bin/old":                                                                                    "/tmp/.mount_*/usr/bin/old", // type 1 has no name in it
		"/home/u/squashfs-root/AppRun":                                                                                      "",                          // unpacked by a person, where it stays
		"/home/u/squashfs-root/usr/bin/krita":                                                                               "",
		"/home/u/Applications/Nextcloud-3.13.0-x86_64.AppImage":                                                             "/home/u/Applications/Nextcloud-*",
		"/home/u/Applications/krita.AppImage":                                                                               "",
		"/nix/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-hello.sh":                                                              "/nix/store/*-hello.sh*",
		"/nix/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-python3-3.11.6-env/bin/python3.11":                                     "/nix/store/*-python3*/bin/python3.11",
		"/home/u/.nix-portable/nix/store/0c0sl8rk4zgx1i2gm1l7n2rr2q8h1xlf-jq-1.7/bin/jq":                                    "/home/u/.nix-portable/nix/store/*-jq*/bin/jq",
		"/nix/var/nix/profiles/default/bin/jq":                                                                              "",
		"/run/wrappers/wrappers.AbCdEfGhIj/ping":                                                                            "/run/wrappers/wrappers.*/ping",
		"/run/setuid-programs/ping":                                                                                         "",
		"/home/u/.asdf/installs/erlang/26/bin/erl":                                                                          "/home/u/.asdf/installs/erlang/*/bin/erl",
		"/home/u/.asdf/installs/java/temurin-17.0.9+9/bin/java":                                                             "/home/u/.asdf/installs/java/*/bin/java",
		"/home/u/.local/share/mise/installs/node/22/bin/node":                                                               "/home/u/.local/share/mise/installs/node/*/bin/node",
		"/home/u/.sdkman/candidates/java/21-tem/bin/java":                                                                   "/home/u/.sdkman/candidates/java/*/bin/java",
		"/home/u/.pyenv/versions/3.13.0rc1/bin/python3.13":                                                                  "/home/u/.pyenv/versions/*/bin/python3.13",
		"/home/u/.pyenv/versions/pypy3.10-7.3.13/bin/pypy3.10":                                                              "/home/u/.pyenv/versions/pypy*/bin/pypy3.10",
		"/home/u/.pyenv/versions/myenv/bin/python3.11":                                                                      "",
		"/home/u/.rbenv/versions/3.2.2/bin/ruby":                                                                            "/home/u/.rbenv/versions/*/bin/ruby",
		"/home/u/.local/share/fnm/node-versions/v20.1.0/installation/bin/node":                                              "/home/u/.local/share/fnm/node-versions/*/installation/bin/node",
		"/home/u/.volta/tools/image/node/20.1.0/bin/node":                                                                   "/home/u/.volta/tools/image/node/*/bin/node",
		"/home/u/.rustup/toolchains/nightly-2026-01-02-x86_64-unknown-linux-gnu/bin/rustc":                                  "/home/u/.rustup/toolchains/nightly-*/bin/rustc",
		"/home/u/.rustup/toolchains/stable-x86_64-unknown-linux-gnu/bin/rustc":                                              "", // renewed where it is
		"/home/u/.cargo/bin/rg":                                                                                             "",
		"/home/u/p/target/debug/build/ring-0a5daa3a0231a0fb/build-script-build":                                             "/home/u/p/target/debug/build/ring-*/build-script-build",
		"/home/u/p/target/x86_64-unknown-linux-musl/release/deps/app-0a5daa3a0231a0fb":                                      "/home/u/p/target/x86_64-unknown-linux-musl/release/deps/app-*",
		"/home/u/p/target/release/app":                                                                                      "",
		"/home/u/miniconda3/envs/ml/bin/python3.11":                                                                         "",
		"/home/u/miniconda3/envs/py3.11/bin/tool":                                                                           "",
		"/home/u/miniconda3/pkgs/jq-1.6-h27cfd23_1000/bin/jq":                                                               "/home/u/miniconda3/pkgs/jq-*/bin/jq",
		"/home/u/.local/share/uv/python/cpython-3.12.3-linux-x86_64-gnu/bin/python3.12":                                     "/home/u/.local/share/uv/python/cpython-*/bin/python3.12",
		"/home/u/.cache/uv/archive-v0/Xa3_k2mQv-9sTbd81LmPz/bin/ruff":                                                       "/home/u/.cache/uv/archive-v0/*/bin/ruff",
		"/home/u/.cache/pre-commit/repoq1w2e3r4/py_env-python3.11/bin/black":                                                "/home/u/.cache/pre-commit/repo*/py_env-python3.11/bin/black",
		"/home/u/.local/share/flatpak/runtime/org.a.P/x86_64/23.08/" + sum + "/files/bin/b":                                 "/home/u/.local/share/flatpak/runtime/org.a.P/x86_64/*/*/files/bin/b",
		"/ostree/deploy/os/deploy/" + sum + ".0/usr/bin/b":                                                                  "/ostree/deploy/os/deploy/*/usr/bin/b",
		"/home/u/.cache/bazel/_bazel_u/install/0a5daa3a0231a0fbba4f14db7ec463cf/linux-sandbox":                              "/home/u/.cache/bazel/_bazel_u/install/*/linux-sandbox",
		"/home/u/.cache/bazelisk/downloads/sha256/" + sum + "/bin/bazel":                                                    "/home/u/.cache/bazelisk/downloads/sha256/*/bin/bazel",
		"/home/u/.cache/bazel/_bazel_u/0a5daa3a0231a0fbba4f14db7ec463cf/execroot/_main/bazel-out/k8-fastbuild/bin/a/tool":   "",
		"/home/u/.ccache/tmp/x":                                                                                             "",
		"/home/u/.cache/go-build/00/" + sum + "-d/tool":                                                                     "/home/u/.cache/go-build/00/*/tool",
		"/tmp/go-build3416587632/b001/exe/tool":                                                                             "", // gone when it has run: nothing to be shown as one
		"/tmp/_MEIa1B2c3/ffmpeg":                                                                                            "/tmp/_MEI*/ffmpeg",
		"/tmp/onefile_1234_1700000000_1/app.bin":                                                                            "/tmp/onefile_*/app.bin",
		"/opt/idea-IU-231.8109.175/jbr/bin/java":                                                                            "/opt/idea-IU-*/jbr/bin/java",
		"/home/u/.local/share/JetBrains/Toolbox/apps/goland/bin/goland":                                                     "", // renewed where it is
		"/home/u/.vscode/extensions/rust-lang.rust-analyzer-0.3.1766-linux-x64/server/rust-analyzer":                        "/home/u/.vscode/extensions/rust-lang.rust-analyzer-*/server/rust-analyzer",
		"/home/u/.vscode-server/code-" + commit:                                                                             "/home/u/.vscode-server/code-*",
		"/usr/share/code/code":                                                                                              "",
		"/home/u/.local/share/zed/languages/ra/rust-analyzer-2026-01-05":                                                    "", // of a day, where it stays
		"/srv/checks-20261128T2130/tool":                                                                                    "",
		"/home/u/.local/share/claude/versions/2.0.14":                                                                       "/home/u/.local/share/claude/versions/*",
		"/home/u/.cache/ms-playwright/chromium-1091/chrome-linux/chrome":                                                    "/home/u/.cache/ms-playwright/chromium-*/chrome-linux/chrome",
		"/home/u/.local/share/Steam/steamapps/common/Proton 8.0/files/bin/wine64":                                           "/home/u/.local/share/Steam/steamapps/common/Proton */files/bin/wine64",
		"/home/u/.local/share/Steam/steamapps/common/Proton - Experimental/files/bin/wine64":                                "",
		"/home/u/.local/share/Steam/compatibilitytools.d/GE-Proton8-25/files/bin/wine64":                                    "/home/u/.local/share/Steam/compatibilitytools.d/GE-Proton*/files/bin/wine64",
		"/home/u/.local/share/Steam/ubuntu12_32/steam":                                                                      "",
		"/home/u/.local/share/Steam/steamapps/common/SteamLinuxRuntime_sniper/pressure-vessel/bin/pv-bwrap":                 "",
		"/home/u/.local/share/Steam/steamapps/common/SteamLinuxRuntime_sniper/sniper_platform_0.20231211.70175/files/bin/x": "/home/u/.local/share/Steam/steamapps/common/SteamLinuxRuntime_sniper/sniper_platform_*/files/bin/x",
		"/home/u/Unity/Hub/Editor/2022.3.10f1/Editor/Unity":                                                                 "/home/u/Unity/Hub/Editor/*/Editor/Unity",
		"/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/123/fs/usr/bin/x":                             "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/usr/bin/x",
		"/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + sum + "/rootfs/bin/x":                                     "/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/rootfs/bin/x",
		"/var/lib/docker/overlay2/" + sum + "-init/diff/bin/x":                                                              "/var/lib/docker/overlay2/*/diff/bin/x",
		"/var/lib/machines/web/usr/bin/x":                                                                                   "",
		"/var/lib/kubelet/pods/0a5daa3a-0231-40fb-ba4f-14db7ec463cf/volumes/kubernetes.io~empty-dir/b/x":                    "/var/lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir/b/x",
		"/run/media/u/0a5daa3a-0231-40fb-ba4f-14db7ec463cf/bin/x":                                                           "", // of a file system, which it keeps
		"/srv/app/releases/20260102030405/bin/web":                                                                          "/srv/app/releases/*/bin/web",
		"/srv/app/releases/stable/bin/web":                                                                                  "",
		"/home/r/actions-runner/bin.2.311.0/Runner.Worker":                                                                  "/home/r/actions-runner/bin.*/Runner.Worker",
		"/usr/lib/jvm/java-17-openjdk-17.0.9.0.9-3.fc39.x86_64/bin/java":                                                    "/usr/lib/jvm/java-17-openjdk-*/bin/java",
		"/usr/share/dotnet/sdk/8.0.100/x":                                                                                   "/usr/share/dotnet/sdk/*/x",
		"/usr/lib/x86_64-linux-gnu/glib-2.0/tool":                                                                           "",
		"/usr/lib/python3.11/x":                                                                                             "",
		"/usr/bin/perl5.36.0":                                                                                               "", // by a package, beside what it is the same as
		"/opt/app/bin/tool-1.2.3":                                                                                           "/opt/app/bin/tool-*",
		"/usr/local/bin/perl5.36.0":                                                                                         "/usr/local/bin/perl*",
		"/opt/gcc/bin/x86_64-linux-gnu-gcc-12.2":                                                                            "",
		"/opt/lib/ld-linux-x86-64.so.2":                                                                                     "",
		"/home/u/.cabal/store/ghc-9.4.7/jq-1.2-" + sum + "/bin/jq":                                                          "/home/u/.cabal/store/ghc-*/jq-*/bin/jq",
		"/srv/v1.example.com/tool":                                                                                          "",
		"/srv/1204200/tool":                                                                                                 "",
		"/opt/120260102030/tool":                                                                                            "",
		"/opt/kafka_2.13-3.6.0/bin/tool":                                                                                    "/opt/kafka_*/bin/tool",
		"/app/bin/b":                                                                                                        "", // as a Flatpak sees it
		"/usr/lib/x86_64-linux-gnu/openmpi/bin/tool":                                                                        "",
		"/usr/lib/jvm/java-17-openjdk-amd64/bin/java":                                                                       "",
		"/usr/libexec/" + commit + "/tool":                                                                                  "",
		"/usr/local/lib/python3.11/dist-packages/a/tool":                                                                    "",
		"/home/u/venv/lib/python3.11/site-packages/a/tool":                                                                  "",
		"/home/u/.cache/pypoetry/virtualenvs/a-Yd3_qWlK-py3.11/bin/tool":                                                    "",
		"/home/u/.cache/bazel/_bazel_u/0a5daa3a0231a0fbba4f14db7ec463cf/x/tool":                                             "", // of the directory it is built in
		"/opt/" + commit + "0/tool":                                                                                         "",
		"/srv/example.com/tool":                                                                                             "",
		"/opt/jdk-21/bin/java":                                                                                              "",
		"/usr/lib/llvm-14.0/bin/clang":                                                                                      "",
		"/usr/bin/python3.11":                                                                                               "",
		"/usr/local/bin/python3.11":                                                                                         "",
		"/snap/bin/firefox":                                                                                                 "",
		"/snap/core/current/usr/bin/x":                                                                                      "",
		"/nix/store/short-coreutils-9.5/bin/coreutils":                                                                      "/nix/store/short-coreutils-*/bin/coreutils",
		"/tmp/tmp.1a2b/x":         "",
		"/tmp/Test123/001/x":      "",
		"unresolved:/opt/a-1.2/b": "",
	} {
		got, ok := familyOf(path)
		if ok != (want != "") || ok && got.pattern != want {
			t.Errorf("%s is of the family %q (%v), want %q", path, got.pattern, ok, want)
		}
	}
}

func TestAFamilyIsShownAsOne(t *testing.T) {
	const old, now, next = "/snap/jq/1/bin/jq", "/snap/jq/2/bin/jq", "/snap/jq/3/bin/jq"
	s := database(t, func(tx *store.Tx) error {
		return putAll(tx, []store.Session{watched("a", 0, 10)}, nil,
			keyed("host", old, row("a", runs(1))), keyed("host", now, row("a", used(runs(1), "inet", "stream"))),
			keyed("host", next, row("a", store.Tally{Seen: 1})), keyed("host", "/usr/bin/jq", row("a", runs(1))))
	})
	rows, families := reportedFamilies(t, s, ReportOptions{})
	want := []Family{{Pattern: "/snap/jq/*/bin/jq", Why: "a snap has a directory for each revision", Verdict: Network,
		Members: []Member{{"host", old, Quiet}, {"host", now, Network}, {"host", next, Unproven}}}}
	if diff := cmp.Diff(want, families); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	for i, want := range []string{"/snap/jq/*/bin/jq", "/snap/jq/*/bin/jq", "/snap/jq/*/bin/jq", ""} {
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
