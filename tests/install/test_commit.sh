#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: test_commit.sh CMAKE SOURCE
# The commit that cmake/commit.cmake finds: that of a checkout, marked when files were changed; for sources that are no
# checkout, also inside of another one, what CADRE_COMMIT says, else "unknown"; and a file that is not written again when
# the commit is the same.
set -eu

cmake=$1 source=$2
command -v git >/dev/null || { echo "skipped: there is no git"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# finds WHAT FOLDER
finds() {
	"$cmake" -DGIT="$(command -v git)" -DSOURCE="$2" -DFILE="$work/commit.c" -P "$source/cmake/commit.cmake"
	found=$(sed -n 's/^const char cad_commit\[\] = "\(.*\)";$/\1/p' "$work/commit.c")
	[ "$found" = "$1" ] || { echo "FAIL: '$found' in $2, not '$1'"; failures=1; }
}

mkdir "$work/checkout" "$work/checkout/unpacked" "$work/tarball"
cd "$work/checkout"
git init -q
echo 1 >file
git add file
git -c user.name=n -c user.email=e commit -qm first
commit=$(git rev-parse --short=12 HEAD)

finds unknown "$work/tarball"
finds unknown "$work/checkout/unpacked"
CADRE_COMMIT=0123456789ab finds 0123456789ab "$work/tarball"
CADRE_COMMIT='a"b' finds unknown "$work/tarball"
CADRE_COMMIT=0123456789ab finds "$commit" "$work/checkout"
finds "$commit" "$work/checkout"
written=$(stat -c %y "$work/commit.c")
git tag v1
finds "$commit" "$work/checkout"
[ "$(stat -c %y "$work/commit.c")" = "$written" ] || { echo "FAIL: the same commit was written again"; failures=1; }
echo 2 >file
finds "$commit-dirty" "$work/checkout"

[ $failures = 0 ] && echo "every commit was found"
exit $failures
