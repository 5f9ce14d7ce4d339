# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Packages and compiling. The libraries are those of cmake/dependencies.cmake.

BUILD_PACKAGES=(
	gcc g++ libc6-dev cmake ninja-build pkg-config protobuf-compiler protobuf-c-compiler libprotobuf-dev librandom123-dev
	libprotobuf-c-dev libgrpc-dev libuv1-dev zlib1g-dev libjansson-dev libyaml-dev libmicrohttpd-dev libpcre2-dev
	libutf8proc-dev libxxhash-dev libsodium-dev libssl-dev libsqlite3-dev libzstd-dev libmetis-dev libucx-dev jq
)
TEST_PACKAGES=(libcmocka-dev clang libclang-rt-14-dev openssl python3 python3-venv qemu-user zsh iproute2 nftables wireguard-tools wireguard-go)
PACKAGE_PACKAGES=(patchelf xz-utils dpkg-dev)

# The packages of a list that are not installed, one per line.
missing_packages() {
	local package
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
	done
}

# install_packages PACKAGE...: installs those that are missing, with apt-get, as root or through sudo.
install_packages() {
	local -a missing as_root=()
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null || fail "these packages are missing, and there is no apt-get to install them: ${missing[*]}"
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || fail "these packages are missing: ${missing[*]}; install them as root"
		as_root=(sudo)
	fi
	say "installing ${missing[*]}"
	"${as_root[@]}" apt-get update -q >&2
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

setup() {
	local -a missing
	case ${1:-} in
		--check)
			mapfile -t missing < <(missing_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}")
			if [ ${#missing[@]} -gt 0 ]; then
				say "missing: ${missing[*]}"
				exit 1
			fi
			say "all packages are installed"
			;;
		--package) install_packages "${BUILD_PACKAGES[@]}" libcmocka-dev "${PACKAGE_PACKAGES[@]}" && say "all packages that packages are made with are installed" ;;
		'') install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" && say "all packages are installed" ;;
		*) fail_usage "setup takes --check, --package or nothing, not '$1'" ;;
	esac
}

# build [PRESET] [TARGET...]
build() {
	local preset=${1:-release} directory
	[ $# -gt 0 ] && shift
	case $preset in
		release | debug | late) install_packages "${BUILD_PACKAGES[@]}" libcmocka-dev ;;
		asan | tsan | fuzz | clang) install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" ;;
		*) fail_usage "there is no preset '$preset': release, debug, asan, tsan, fuzz, clang or late" ;;
	esac
	if command -v ccache >/dev/null; then
		export CMAKE_C_COMPILER_LAUNCHER=${CMAKE_C_COMPILER_LAUNCHER:-ccache} CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}
	fi
	directory=$(build_directory "$preset")
	{ mkdir -p "$directory" && : >"$ROOT/.build.log"; } 2>/dev/null ||
		fail "'$directory' cannot be made or written: build in a checkout of your own"
	(cd "$ROOT" && cmake --preset "$preset" >"$ROOT/.build.log" 2>&1) || {
		cat "$ROOT/.build.log" >&2
		fail "cmake failed"
	}
	grep -h 'CUDA:' "$ROOT/.build.log" >&2 || true
	rm -f "$ROOT/.build.log"
	ninja -C "$directory" -j "$(cores)" "$@" >&2
}
