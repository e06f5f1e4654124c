package enforcer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func protectionOf(t *testing.T, more ...string) *protection {
	t.Helper()
	p, err := newProtection(more, []string{"/opt/agent/bin/tetragon-1"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProtected(t *testing.T) {
	p := protectionOf(t, "/srv/**/keep", "mine-*")
	for _, file := range []string{
		"/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/ssh-keysign",
		"/usr/bin/login", "/usr/sbin/agetty", "/usr/bin/su", "/usr/bin/sudo", "/usr/bin/doas", "/usr/bin/pkexec",
		"/usr/lib/polkit-1/polkitd", "/usr/sbin/unix_chkpwd", "/usr/sbin/pam_timestamp_check", "/usr/libexec/sssd/sssd_pam",
		"/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/usr/lib/systemd/systemd-journald", "/usr/bin/systemd-run", "/usr/bin/systemctl",
		"/usr/bin/dbus-daemon", "/usr/bin/dbus-broker-launch", "/usr/lib/xorg/Xorg", "/usr/bin/Xwayland", "/usr/sbin/gdm3",
		"/usr/libexec/gdm-session-worker", "/usr/bin/sddm-greeter", "/usr/sbin/lightdm", "/usr/sbin/lightdm-gtk-greeter",
		"/usr/bin/containerd-shim-runc-v2", "/usr/bin/dockerd", "/usr/sbin/runc", "/usr/bin/crun", "/usr/bin/kubelet", "/opt/cni/bin/bridge",
		"/usr/bin/dpkg", "/usr/bin/dpkg-deb", "/usr/bin/apt-get", "/usr/lib/apt/methods/http", "/usr/bin/rpm", "/usr/bin/dnf5", "/usr/bin/pacman",
		"/usr/bin/zypper", "/usr/bin/snap", "/usr/lib/snapd/snapd", "/usr/bin/flatpak",
		"/usr/bin/ip", "/usr/sbin/iptables-restore", "/usr/sbin/xtables-nft-multi", "/usr/sbin/nft", "/usr/bin/ping", "/usr/sbin/NetworkManager",
		"/usr/sbin/dhclient", "/usr/sbin/dhcpcd", "/usr/sbin/wpa_supplicant", "/usr/libexec/iwd", "/usr/sbin/resolvconf",
		"/nix/store/abc-openssh-9/bin/sshd", "/opt/agent/bin/tetragon-1", "/srv/a/b/keep", "/home/me/mine-own",
		"/usr/local/bin/profile", // another copy than this one: it learns, and takes off what is in force
	} {
		if p.why(file) == "" {
			t.Errorf("%s is not protected", file)
		}
	}
	for _, file := range []string{"/usr/bin/curl", "/usr/bin/jq", "/usr/bin/true", "/opt/agent/bin/other", "/srv/keep/other", "/usr/bin/sshdx", "/ip/tool"} {
		if why := p.why(file); why != "" {
			t.Errorf("%s is protected: %s", file, why)
		}
	}
}

func TestProtectedOnThisMachine(t *testing.T) {
	p := protectionOf(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{resolveName(self): "profile itself"}
	if first, err := os.Readlink("/proc/1/exe"); err == nil { // some sandboxes keep it even from root
		want[first] = "PID 1"
	}
	if text, err := os.ReadFile(shellsFile); err == nil && strings.Contains(string(text), "/bin/sh\n") {
		want[resolveName("/bin/sh")] = "shell"
	}
	for file, says := range want {
		if why := p.why(file); !strings.Contains(why, says) {
			t.Errorf("%s: %q, want one that says %q", file, why, says)
		}
	}
	if copied := filepath.Join("/opt", filepath.Base(resolveName("/bin/true"))); p.why(copied) != "" {
		t.Errorf("%s is protected: %s", copied, p.why(copied))
	}
}

func TestProtectRefusesWhatIsNoPattern(t *testing.T) {
	for _, pattern := range []string{"/a/[b", "", "{x"} {
		if _, err := newProtection([]string{pattern}, nil); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: error %v, want ErrUsage", pattern, err)
		}
	}
}

func TestRuntimes(t *testing.T) {
	p, err := parsePatterns(runtimesText)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/usr/bin/python3.11", "/home/me/.pyenv/versions/3.12/bin/python3.12", "/usr/bin/perl", "/usr/bin/perl5.36.0", "/usr/bin/ruby3.1",
		"/usr/bin/node", "/usr/lib/jvm/java-17/bin/java", "/usr/bin/php8.2", "/usr/bin/lua5.4", "/usr/bin/busybox", "/usr/bin/env", "/opt/bin/bash", "/usr/bin/zsh5",
		"/usr/bin/qemu-aarch64-static", "/usr/lib/wine/wine64", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/usr/lib/ld-musl-x86_64.so.1"} {
		if p.match(file) == "" {
			t.Errorf("%s is not known as a runtime", file)
		}
	}
	for _, file := range []string{"/usr/bin/curl", "/usr/bin/pythonista", "/usr/bin/jq", "/usr/bin/make", "/usr/bin/timeout", "/usr/bin/perlbench"} {
		if pattern := p.match(file); pattern != "" {
			t.Errorf("%s is taken for a runtime by %s", file, pattern)
		}
	}
}
