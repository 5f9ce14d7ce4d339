#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# UCX 1.13.1 (Debian 12) and 1.22.0 (PyPI's libucx-cu13): ucp_mem_map takes memory of a type that the context cannot use.
#
# Host memory is mapped as UCS_MEMORY_TYPE_CUDA, in contexts without CUDA (a library that was built without, or no GPU),
# then as host memory, then as CUDA's again. Seen with 1.13.1: UCS_OK each time, and asked what it has mapped, it says
# "host". With 1.22.0: "Invalid parameter" at first, and once the memory has been mapped as the host's, UCS_OK, and it
# says "cuda". So success says nothing of device memory. Ask before: ucp_context_query with UCP_ATTR_FIELD_MEMORY_TYPES,
# which has host alone in both. The second library is tried where pip finds it.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK"
apt-get download -q libucx0=1.13.1-1 libucx-dev=1.13.1-1 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
LIB=$PWD/root/usr/lib/$(gcc -print-multiarch)
cat >map.c <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <ucp/api/ucp.h>
int main(void)
{
	ucp_params_t p = { .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM };
	ucp_context_attr_t has = { .field_mask = UCP_ATTR_FIELD_MEMORY_TYPES };
	ucp_mem_map_params_t m = { .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
		UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE, .address = aligned_alloc(4096, 1 << 20), .length = 1 << 20 };
	ucp_mem_attr_t is = { .field_mask = UCP_MEM_ATTR_FIELD_MEM_TYPE };
	ucp_context_h context;
	ucp_mem_h memory;
	int taken = 0;
	if (ucp_init(&p, NULL, &context) || ucp_context_query(context, &has)) return 99;
	printf("UCX %s: memory types %#llx (bit 0 is host, bit 1 cuda)\n", ucp_get_version_string(), (unsigned long long)has.memory_types);
	for (int i = 0; i < 3; i++) {
		m.memory_type = i == 1 ? UCS_MEMORY_TYPE_HOST : UCS_MEMORY_TYPE_CUDA;
		ucs_status_t status = ucp_mem_map(context, &m, &memory);
		if (status == UCS_OK) ucp_mem_query(memory, &is), taken += i != 1;
		printf("    as %s: %s%s%s\n", ucs_memory_type_names[m.memory_type], ucs_status_string(status),
			status == UCS_OK ? ", is " : "", status == UCS_OK ? ucs_memory_type_names[is.mem_type] : "");
	}
	return taken > 0 && !(has.memory_types & 1 << UCS_MEMORY_TYPE_CUDA) ? 0 : 1;
}
C
try() { # its include and lib
	gcc -I "$1" map.c -o map -L "$2" -lucp -lucs -Wl,-rpath-link,"$2"
	LD_LIBRARY_PATH=$2 UCX_TLS=tcp UCX_NET_DEVICES=lo UCX_LOG_LEVEL=fatal ./map
}
try root/usr/include "$LIB"
if python3 -m pip download -q --no-deps libucx-cu13==1.22.0 >/dev/null 2>&1; then
	python3 -m zipfile -e libucx_cu13-*.whl new
	try new/libucx/include "$PWD/new/libucx/lib"
fi
