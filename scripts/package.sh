# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Packages, into build/package/: a bundle that runs from where it is unpacked, and a Debian package; with the library for GPUs, another of each.

source "$ROOT/scripts/setup.sh"

OUT=$ROOT/build/package
VERSION=$(sed -n 's/^project(cadre VERSION \([0-9.]*\) .*/\1/p' "$ROOT/CMakeLists.txt")

# What the C library brings, and its loader: they belong to the machine's kernel and name service.
GLIBC='^(ld-linux-x86-64|lib(c|m|mvec|dl|rt|pthread|resolv|util|anl))\.so\.'

# ---- the bundle ----

# libraries_of FILE...: the shared libraries that they need, and those need, but for glibc's; paths, one a line
libraries_of() {
	ldd "$@" | awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u | while read -r path; do
		[[ ${path##*/} =~ $GLIBC ]] || echo "$path"
	done
}

# bundle_libraries TREE [PROGRAM...]: those of bin/ and of others in the tree.
# Libraries go as they are, so that they can be compared with Debian's. The programs look for all of them in lib/: DT_RPATH, unlike DT_RUNPATH,
# serves libraries' own needs too, and comes before LD_LIBRARY_PATH. UCX takes a module that is not in lib/ucx/ from the system, where it
# may be of another version (findings/ucx-modules.sh): so all of them come along.
bundle_libraries() {
	local tree=$1 modules
	modules=$(dirname "$(libraries_of "$tree/bin/cadre-router" | grep '/libuct\.so')")/ucx
	mapfile -t LIBRARIES < <(libraries_of "$tree"/bin/* "${@:2}" "$modules"/*.so | grep -v "^$modules/")
	mkdir -p "$tree/lib/ucx"
	cp -L "${LIBRARIES[@]}" "$tree/lib"
	cp -P "$modules"/*.so "$modules"/*.so.* "$tree/lib/ucx"
	patchelf --set-rpath "\$ORIGIN" "$tree/lib/ucx/libuct_rdmacm.so" # Debian has the system's folder there
	patchelf --force-rpath --set-rpath "\$ORIGIN/../lib" "$tree"/bin/* "${@:2}"
}

# Which packages the libraries are of, and on what terms they come.
bundle_licences() {
	local directory=$1/share/doc/cadre/libraries package
	mkdir -p "$directory"
	# dpkg knows a library by one of its two paths, where /lib is a link to /usr/lib.
	{ dpkg-query -S "${LIBRARIES[@]}" "${LIBRARIES[@]/#\/lib\///usr/lib/}" 2>/dev/null || true; } | sed 's/: .*//' | sort -u >"$directory/names"
	# shellcheck disable=SC2016  # dpkg-query fills them in
	xargs dpkg-query -W -f '${Package}\t${Version}\t${source:Package}\t${source:Version}\n' <"$directory/names" >"$directory/packages.tsv"
	while IFS=$'\t' read -r package _; do cp -L "/usr/share/doc/$package/copyright" "$directory/$package.copyright"; done <"$directory/packages.tsv"
	grep -oh '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$directory"/*.copyright | sort -u | xargs -I{} cp -Ln {} "$directory" 2>/dev/null || true
	sed -i '1i package\tversion\tsource package of Debian\tits version' "$directory/packages.tsv"
	rm "$directory/names"
}

# Every library that a program would load is the bundle's or glibc's.
check_bundle() {
	local path
	for path in $(libraries_of "$@"); do
		[[ $path == "$STAGE/"*/../lib/* ]] || fail "a program of the bundle would load $path"
	done
}

# install_into FOLDER PREFIX COMPONENT...: what `cmake --install` puts there. Unspecified is everything but the library for GPUs, cuda.
install_into() {
	local component
	for component in "${@:3}"; do DESTDIR=$1 cmake --install "$ROOT/build" --prefix "$2" --strip --component "$component" >/dev/null; done
	[[ " $* " != *' cuda '* ]] || strip --strip-unneeded "$1$2/lib/cadre/libcadre-cuda.so"
}

package_bundle() { make_bundle cadre-"$VERSION"-linux-x86_64 Unspecified; }
package_bundle-cuda() { make_bundle cadre-"$VERSION"-linux-x86_64-cuda Unspecified cuda; }

# What tests and measures a GPU, in gpu/ of a bundle.
bundle_gpu_tests() {
	mkdir "$1/gpu"
	cp "$ROOT"/build/tests/test_cuda_device "$ROOT"/build/bench/{bench_cuda,libcadre-ceilings-cuda.so} "$ROOT/bench/gpu/peers.py" "$ROOT/tests/gpu/run.sh" "$1/gpu"
	strip --strip-unneeded "$1"/gpu/{test_cuda_device,bench_cuda,libcadre-ceilings-cuda.so}
}

# make_bundle NAME COMPONENT...
make_bundle() {
	local name=$1 tree
	local -a others=()
	tree=$STAGE/$name
	# The units in it are for a tree that lies in /opt/cadre.
	install_into "$STAGE" /opt/cadre "${@:2}"
	mv "$STAGE/opt/cadre" "$tree"
	if [[ " $* " == *' cuda '* ]]; then
		bundle_gpu_tests "$tree"
		others=("$tree"/gpu/{test_cuda_device,bench_cuda})
	fi
	bundle_libraries "$tree" "${others[@]}"
	bundle_licences "$tree"
	mkdir -p "$tree/models/demo"
	(cd "$ROOT/models/demo" && cp ./*.json model.safetensors README.md "$tree/models/demo")
	check_bundle "$tree"/bin/cadre* "${others[@]}"
	cp "$ROOT/packaging/bundle/cadre-start" "$tree/bin"
	cp "$ROOT/packaging/bundle/README.md" "$tree"
	# --x86: smaller by 3 %, at no cost.
	tar -C "$STAGE" -c "$name" --sort=name --owner=0 --group=0 --numeric-owner --mode='u+rwX,go+rX,go-w' --mtime="@$SOURCE_DATE_EPOCH" \
		--pax-option=delete=atime,delete=ctime | xz -T1 --x86 --lzma2=preset=6 >"$STAGE/$name.tar.xz"
	mv "$STAGE/$name.tar.xz" "$OUT"
	say "$(stat -c %s "$OUT/$name.tar.xz") bytes: $OUT/$name.tar.xz"
}

# ---- the Debian packages ----

# A commit that is no release is newer than the last release, and older than the next one.
debian_version() {
	if ! git -C "$ROOT" rev-parse -q --verify HEAD >/dev/null 2>&1 || git -C "$ROOT" describe --exact-match --match "v$VERSION" >/dev/null 2>&1; then
		echo "$VERSION"
	else
		echo "$VERSION+git$(TZ=UTC git -C "$ROOT" log -1 --date=format-local:%Y%m%d.%H%M --format=%cd.%h --abbrev=12)"
	fi
}

# debian_changelog PACKAGE FILE
debian_changelog() {
	printf '%s (%s) unstable; urgency=medium\n\n  * See changelog.gz of the package cadre.\n\n -- %s  %s\n' "$1" "$DEBIAN_VERSION" "$MAINTAINER" \
		"$(date -R -u -d "@$SOURCE_DATE_EPOCH")" >"$2"
}

debian_times() {
	chmod -R u+rwX,go+rX,go-w "$1"
	find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# What Debian wants otherwise than `cmake --install` has it.
debian_tree() {
	local tree=$1 doc=$1/usr/share/doc/cadre
	mkdir -p "$tree/usr/share/zsh" "$tree/usr/share/lintian/overrides"
	mv "$tree/usr/share/zsh/site-functions" "$tree/usr/share/zsh/vendor-completions"
	mv "$doc/CHANGELOG.md" "$doc/changelog"
	rm "$doc/LICENSE" # is in copyright
	cat "$ROOT/packaging/deb/copyright" "$ROOT/NOTICE" >"$doc/copyright"
	rm "$doc/NOTICE"
	debian_changelog cadre "$doc/changelog.Debian"
	cp "$ROOT/packaging/deb/lintian-overrides" "$tree/usr/share/lintian/overrides/cadre"
	gzip -9n "$doc"/changelog* "$tree"/usr/share/man/man1/*
	debian_times "$tree"
}

# The library and what it consists of, nothing else.
debian_tree_cuda() {
	local tree=$1 doc=$1/usr/share/doc/cadre-cuda
	cat "$ROOT/packaging/deb/copyright" "$ROOT/NOTICE" - "$doc/NOTICE" <<<'' >"$doc/copyright"
	rm "$doc/NOTICE"
	debian_changelog cadre-cuda "$doc/changelog.Debian"
	gzip -9n "$doc/changelog.Debian"
	chmod 644 "$tree/usr/lib/cadre/libcadre-cuda.so"
	debian_times "$tree"
}

# make_deb PACKAGE TREE
make_deb() {
	rm -f "$OUT/$1"_*.deb
	(cd "$STAGE" && cpack -G DEB --config "$ROOT/packaging/deb/$1.cmake" -B "$STAGE/cpack" -D CPACK_INSTALLED_DIRECTORIES="$2;/" \
		-D CPACK_PACKAGE_VERSION="${DEBIAN_VERSION%%-*}" -D CPACK_DEBIAN_PACKAGE_RELEASE="${DEBIAN_VERSION#*-}" \
		-D CPACK_DEBIAN_PACKAGE_MAINTAINER="$MAINTAINER") >"$STAGE/log" || { cat "$STAGE/log" >&2; fail "cpack failed"; }
	mv "$STAGE"/cpack/*.deb "$OUT"
	say "$(stat -c '%s bytes: %n' "$OUT/$1"_*.deb)"
}

package_deb() {
	install_into "$STAGE/tree" /usr Unspecified
	debian_tree "$STAGE/tree"
	make_deb cadre "$STAGE/tree"
}

package_deb-cuda() {
	install_into "$STAGE/tree-cuda" /usr cuda
	debian_tree_cuda "$STAGE/tree-cuda"
	make_deb cadre-cuda "$STAGE/tree-cuda"
}

# ---- all of them ----

package() {
	local kind
	local -a targets=("${PROGRAMS[@]}")
	[ $# -gt 0 ] || set -- bundle deb
	for kind in "$@"; do
		case $kind in
			bundle | deb) ;;
			bundle-cuda) targets+=(cadre_cuda_library cadre_ceilings_cuda test_cuda_device bench_cuda) ;;
			deb-cuda) targets+=(cadre_cuda_library) ;;
			*) fail_usage "package makes bundle, deb, bundle-cuda and deb-cuda, not '$kind'" ;;
		esac
	done
	if [[ " $* " == *-cuda* ]] && grep -qs '^CADRE_CUDA:STRING=OFF$' "$(build_directory release)/CMakeCache.txt"; then
		fail "this build is without the library for GPUs: 'cmake --preset release -DCADRE_CUDA=AUTO' takes it in again"
	fi
	if [[ " $* " == *-cuda* ]] && ! has_nvcc; then
		fail "there is no nvcc in PATH or /usr/local/cuda/bin, which compiles for GPUs: install the CUDA toolkit (13.0), or make bundle and deb alone"
	fi
	install_packages "${PACKAGE_PACKAGES[@]}"
	build release "${targets[@]}"
	mkdir -p "$OUT"
	export DEBIAN_VERSION # read by packaging/deb/cadre-cuda.cmake, too
	DEBIAN_VERSION=$(debian_version)-1~$(. /etc/os-release && echo "$ID${VERSION_ID:-}")
	MAINTAINER="${DEBFULLNAME:-Cadre maintainers} <${DEBEMAIL:-maintainers@cadre.invalid}>"
	# The same commit gives the same files.
	export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null || stat -c %Y "$ROOT/CMakeLists.txt")}
	STAGE=$(mktemp -d)
	trap 'rm -rf "$STAGE"' EXIT
	for kind in "$@"; do "package_$kind"; done
}
