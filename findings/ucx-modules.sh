#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# UCX 1.13.1 (Debian 12): a copy of it takes modules from the system, where it finds none beside itself.
#
# UCX loads what speaks to devices (libuct_ib.so.0, libuct_rdmacm.so.0, libuct_cma.so.0, by these names and not as *.so) from ucx/
# beside libucs.so.0, and, module by module, what is not there from the folder that it was built for,
# /usr/lib/x86_64-linux-gnu/ucx. It does not look at versions, and logs nothing. So a program that brings UCX along runs modules
# of whatever UCX the machine has, unless it brings all of them. Seen: a copy with libuct_cma.so.0 alone maps the system's
# libuct_ib.so.0, and one with all maps its own.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK"
SYSTEM=/usr/lib/$(gcc -print-multiarch)
mkdir -p copy/ucx
cp -L "$SYSTEM"/libuc[pmst].so.0 copy
cp -L "$SYSTEM/ucx/libuct_cma.so.0" copy/ucx
cat >maps.c <<'C'
#include <stdio.h>
#include <string.h>
#include <ucp/api/ucp.h>
int main(void)
{
	ucp_params_t p = { .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM };
	ucp_context_h context;
	char line[4096];
	if (ucp_init(&p, NULL, &context)) return 99;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof line, maps))
		if (strstr(line, "r-xp") && strstr(line, "/libuct_")) printf("  %s", strchr(line, '/'));
}
C
gcc maps.c -o maps -lucp -lucs
export LD_LIBRARY_PATH=$WORK/copy
echo "a copy with libuct_cma.so alone:"
./maps | tee alone
cp -L "$SYSTEM"/ucx/libuct_*.so.0 copy/ucx
echo "a copy with all modules:"
./maps | tee all
grep -q "$SYSTEM/ucx/libuct_ib" alone && ! grep -q "$SYSTEM" all
