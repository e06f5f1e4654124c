#!/bin/bash
# Makes what the machine of run.sh boots, from Debian's packages alone and by
# this machine's own apt: image.sh KERNEL prints the directory that holds
#   vmlinuz          the newest cloud kernel of that series that apt offers
#   initramfs.cpio   its modules and what the tests run, look at and compare with
#   name             what uname -r says there
# It is made once for each set of package versions and kept in the cache.
# Packages are unpacked, not installed: no script of theirs runs.
set -euo pipefail
kernel=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/profile-vm

# What .ci/run installs for the tests, compilers left out, and what Debian has
# without asking.
packages=(
	'?essential' usr-is-merged mount kmod iproute2
	bpftool strace procps busybox-static netcat-openbsd python3 curl jq tmux
)

say() { echo "e2e-vm: $*" >&2; }

# The machine's own sources and keys, but no state of its dpkg: all that the
# packages need is wanted.
mkdir -p "$cache/apt"
options=(
	-qq -y --no-install-recommends
	-o Dir::State::status=/dev/null
	-o Dir::Cache="$cache/apt" -o Dir::Cache::pkgcache=pkgcache.bin
	-o APT::Sandbox::User=root -o Debug::NoLocking=true
)
apt_get() { apt-get "${options[@]}" "$@"; }
apt_cache() { apt-cache "${options[@]:3}" "$@"; }

kernel_package() {
	apt_cache search --names-only "^linux-image-${kernel//./\\.}\.[0-9][^-]*(-[0-9]+)?-cloud-amd64\$" |
		awk '{print $1}' | sort -V | tail -n 1
}

# One line a package: its file and the sum that apt expects of it.
wanted() { apt_get --print-uris install "${packages[@]}" | awk '{print $2, $4}'; }

package=$(kernel_package)
if [ -z "$package" ]; then
	apt_get update >&2
	package=$(kernel_package)
fi
if [ -z "$package" ]; then
	say "apt offers no cloud kernel $kernel here, only" \
		"$(apt_cache search --names-only '^linux-image-[0-9].*-cloud-amd64$' | awk '{print $1}' | sort -V | tr '\n' ' ')"
	exit 1
fi

key() {
	{
		cat "${BASH_SOURCE[0]}"
		apt_cache show --no-all-versions "$package" | grep -E '^(Version|SHA256):'
		wanted
	} | sha256sum | cut -c -16
}
dir=$cache/$package-$(key)
if [ -e "$dir/name" ]; then
	echo "$dir"
	exit
fi

say "making the image of $package in $cache"
rm -rf "$cache/linux-image-$kernel"[.-]*
make=$(mktemp -d "$cache/making-XXXXXX")
trap 'rm -rf "$make"' EXIT
mkdir -p "$make"/{debs/partial,root,out}

download() {
	apt_get --download-only -o Dir::Cache::archives="$make/debs" install "${packages[@]}" >&2 &&
		(cd "$make/debs" && apt_get download "$package" >&2)
}
# What apt knew may have been replaced on the mirror since.
download || { apt_get update >&2 && download; }

cd "$make/root"
mkdir -p usr/{bin,sbin,lib,lib64}
ln -s usr/bin usr/sbin usr/lib usr/lib64 .
unpack() {
	dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink \
		--exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/locale/*' \
		--exclude './usr/share/i18n/*' --exclude './usr/lib/*/gconv/*' --exclude './boot/System.map*'
}
export -f unpack
find ../debs -name '*.deb' -print0 | xargs -0 -n 1 -P "$(nproc)" bash -o pipefail -c 'unpack "$1"' unpack

# What the scripts of the packages would have done.
mkdir -p proc sys dev run tmp root
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
printf '%s\n' /bin/sh /bin/bash /usr/bin/bash /bin/dash /usr/bin/dash >etc/shells
printf '127.0.0.1 localhost vm\n::1 localhost\n' >etc/hosts
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >etc/nsswitch.conf
echo vm >etc/hostname
ln -sf mawk usr/bin/awk
ln -sf nc.openbsd usr/bin/nc

mv boot/vmlinuz-* ../out/vmlinuz
name=$(ls usr/lib/modules)
# Socket families (that of SMC needs ib_core) and overlay are of use there,
# drivers are not.
find usr/lib/modules/*/kernel/{drivers,fs} -name '*.ko*' ! -name 'ib_core.ko*' \
	! -name 'overlay.ko*' ! -name 'dummy.ko*' ! -name 'veth.ko*' ! -name 'tun.ko*' -delete
chroot . depmod "$name"
find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet >../out/initramfs.cpio
echo "$name" >../out/name
mv ../out "$dir"
echo "$dir"
