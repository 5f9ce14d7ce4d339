# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Python for tests and benchmarks, in a virtual environment of the checkout. scripts/setup.sh must have been sourced.

VENV=$ROOT/.venv

# make_venv FOLDER: a virtual environment with what FOLDER/requirements.txt names.
make_venv() {
	local wanted=$ROOT/$1/requirements.txt installed=$VENV/installed-${1//\//-}.txt
	install_packages "${TEST_PACKAGES[@]}"
	[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
	if ! cmp -s "$wanted" "$installed"; then
		"$VENV/bin/pip" install -q --disable-pip-version-check -r "$wanted" >&2 || return 1
		cp "$wanted" "$installed"
	fi
}

# Sets PYTHON to an interpreter that can speak gRPC, for cluster tests and serve.py: that of a virtual environment, or, where PyPI cannot be reached, Debian's with Debian's grpcio.
# shellcheck disable=SC2034  # read by scripts that source this one
choose_python() {
	PYTHON=$VENV/bin/python
	(make_venv tests) && return
	say "PyPI cannot be reached: taking Debian's Python packages"
	install_packages python3-pytest python3-pytest-xdist python3-grpcio python3-protobuf
	PYTHON=/usr/bin/python3
}
