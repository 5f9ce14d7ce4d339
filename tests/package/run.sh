#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: run.sh PACKAGES ROOTS DEMO-MODEL
# The files of `./cadre package` (in PACKAGES) on systems that have nothing of Cadre's: the Debian package on a fresh Debian 12,
# the bundle in a bare Debian 13. ROOTS keeps an archive of each system for the next run. Needs root, debootstrap and a mirror of Debian.
# A line "ok NAME" or "FAIL NAME" for each test; 77 when there is no such system to be had.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PACKAGES=$1 ROOTS=$2 MODEL=$3
WORK=$(mktemp -d)
trap 'rm -rf --one-file-system "$WORK"' EXIT
FAILED=0

# root_of SUITE OPTION...: a fresh system in $WORK/SUITE
root_of() {
	local suite=$1
	shift
	if [ ! -f "$ROOTS/$suite.tar" ]; then
		mkdir -p "$ROOTS"
		if ! debootstrap "$@" "$suite" "$WORK/$suite" >"$WORK/debootstrap.log" 2>&1; then
			tail -n 3 "$WORK/debootstrap.log"
			echo "skipped: debootstrap cannot make a Debian '$suite'"
			exit 77
		fi
		rm -rf "$WORK/$suite/var/cache/apt/archives"/*.deb
		tar -C "$WORK" -cf "$ROOTS/$suite.tar.new" "$suite"
		mv "$ROOTS/$suite.tar.new" "$ROOTS/$suite.tar"
	else
		tar -C "$WORK" -xf "$ROOTS/$suite.tar"
	fi
}

# shellcheck disable=SC2317  # run calls it
# within SUITE online|offline COMMAND...: in that system. Its mounts and processes end with the command; offline, it has a network of its own.
within() {
	local root=$WORK/$1 network=()
	[ "$2" = online ] || network=(--net)
	shift 2
	# shellcheck disable=SC2016  # the inner shell's
	unshare --mount --pid --fork --kill-child "${network[@]}" sh -euc '
		root=$1
		shift
		ip link set lo up
		mount -t proc proc "$root/proc"
		mount -t sysfs -o ro sysfs "$root/sys"
		mount -t tmpfs tmpfs "$root/dev/shm"
		exec chroot "$root" "$@"' sh "$root" "$@"
}

# run NAME COMMAND...
run() {
	local name=$1 began=$SECONDS
	shift
	if "$@" >"$WORK/log" 2>&1; then
		echo "ok $name ($((SECONDS - began)) s)"
	else
		cat "$WORK/log"
		echo "FAIL $name"
		FAILED=1
	fi
}

# newer_deb FILE: the same package with a higher version
newer_deb() {
	dpkg-deb -R "$1" "$WORK/newer"
	sed -i 's/^Version: .*/&.1/' "$WORK/newer/DEBIAN/control"
	dpkg-deb --root-owner-group -b "$WORK/newer" "$2" >/dev/null
}

# contents ARCHIVE: paths in its one folder, but for what says which libraries are there, of whom
contents() { tar -tf "$1" | cut -d/ -f2- | grep -vE '^(lib/libcmocka|share/doc/cadre/libraries/)' | sort; }

deb=$(echo "$PACKAGES"/cadre_*.deb) bundle=$(echo "$PACKAGES"/cadre-*-linux-x86_64.tar.xz)
deb_cuda=$(echo "$PACKAGES"/cadre-cuda_*.deb) # is not there where there is no nvcc
stat -c '%s bytes: %n' "$deb" "$bundle"
run 'bundle_is_small' test "$(stat -c %s "$bundle")" -le $((18 << 20))

root_of bookworm
mkdir -p "$WORK/bookworm/srv/models/example"
cp "$MODEL"/*.json "$MODEL"/model.safetensors "$WORK/bookworm/srv/models/example"
cp "$deb" "$WORK/bookworm/root/cadre.deb"
newer_deb "$deb" "$WORK/bookworm/root/cadre-newer.deb"
cp "$HERE/deb.sh" "$WORK/bookworm/root"
run 'deb_installs_on_debian_12' within bookworm online sh /root/deb.sh install
if [ -f "$deb_cuda" ]; then
	cp "$deb_cuda" "$WORK/bookworm/root/cadre-cuda.deb"
	run 'deb_cuda_adds_a_library' within bookworm offline sh /root/deb.sh cuda
	bundle_cuda=${bundle%.tar.xz}-cuda.tar.xz
	run 'bundle_cuda_adds_a_library' test "$(diff <(contents "$bundle") <(contents "$bundle_cuda") | sed -n 's/^[<>] //p' | xargs)" = \
		'gpu/ gpu/bench_cuda gpu/libcadre-ceilings-cuda.so gpu/peers.py gpu/run.sh gpu/test_cuda_device lib/cadre/ lib/cadre/libcadre-cuda.so share/doc/cadre-cuda/ share/doc/cadre-cuda/NOTICE'
else
	echo "skipped: the library for GPUs, which nobody made"
fi
run 'deb_units_are_valid' within bookworm offline sh /root/deb.sh units
run 'deb_cluster_answers_and_outlives_an_upgrade' within bookworm offline sh /root/deb.sh cluster
run 'deb_leaves_nothing' within bookworm offline sh /root/deb.sh purge

root_of trixie --variant=minbase
mkdir -p "$WORK/trixie/srv/some folder"
tar -C "$WORK/trixie/srv/some folder" -xf "$bundle"
cp "$HERE/bundle.sh" "$WORK/trixie/root"
run 'bundle_answers_on_debian_13' within trixie offline sh /root/bundle.sh
if [ -f "${bundle_cuda:-}" ]; then
	tar -C "$WORK/trixie/srv" -xf "$bundle_cuda"
	run 'bundle_cuda_says_that_there_is_no_gpu' within trixie offline sh -c "/srv/*-cuda/gpu/run.sh /tmp/results | tee /dev/stderr | grep -q '^0 passed, 0 failed, 7 skipped'"
fi
exit $FAILED
