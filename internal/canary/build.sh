#!/bin/sh
# Builds the canary for one architecture: build.sh TRIPLE OUTPUT.
# The same clang gives the same bytes, so that a rebuild shows in git only if
# the source changed.
set -eu
clang-19 --target="$1" -std=c11 -Os -Wall -Wextra -Werror \
	-ffreestanding -nostdlib -static -fno-pic -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fcf-protection=none \
	-fuse-ld=lld -Wl,--build-id=none,-z,noexecstack,-z,noseparate-code,-z,norelro,-z,max-page-size=65536,-s \
	-fno-ident -o "$2" canary.c
chmod 0644 "$2"
