# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Lint: what tools can say about the text. Each is silent when all is well; the last line counts the kinds that are.
# Findings are mended, or answered in .clang-tidy, scripts/clang-tidy.txt or scripts/cppcheck.txt with a reason.

source "$ROOT/scripts/setup.sh"

LINT_PACKAGES=(clang-format clang-tidy cppcheck shellcheck)

# tracked PATTERN...: files of the checkout, one a line.
tracked() { git -C "$ROOT" ls-files --cached --others --exclude-standard "$@"; }

# The generated headers and compile_commands.json, which clang-tidy and cppcheck read.
prepare() { (build release cadre_proto); }

lint_format() { tracked '*.c' '*.h' '*.cc' '*.cu' | (cd "$ROOT" && xargs clang-format --dry-run --Werror); }

lint_tidy() {
	prepare || return 1
	tracked '*.c' | (cd "$ROOT" && xargs scripts/tidy.py "$(build_directory release)")
}

lint_cppcheck() {
	prepare || return 1
	tracked '*.c' | (cd "$ROOT" && cppcheck -q -j "$(cores)" --std=c11 --library=posix,gnu --enable=warning,performance,portability \
		--suppressions-list=scripts/cppcheck.txt --error-exitcode=1 -D__x86_64__ -D_GNU_SOURCE -I . -I "$(build_directory release)/gen" \
		--file-list=-)
}

lint_shell() { tracked cadre .ci/run packaging/bundle/cadre-start packaging/deb/{postinst,prerm,postrm} '*.sh' | (cd "$ROOT" && xargs shellcheck -x); }

lint() {
	local kind passed=0 failed=0
	[ $# -gt 0 ] || set -- format shell cppcheck tidy
	for kind in "$@"; do
		case $kind in
			format | shell | cppcheck | tidy) ;;
			*) fail_usage "lint knows format, shell, cppcheck and tidy, not '$kind'" ;;
		esac
	done
	install_packages "${LINT_PACKAGES[@]}"
	for kind in "$@"; do
		say "lint $kind"
		if "lint_$kind"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	done
	echo "$passed clean, $failed with findings"
	[ "$failed" = 0 ]
}
