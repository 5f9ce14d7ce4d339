#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# UCX 1.13.1 (Debian 12), shared memory between processes of two network namespaces: nothing arrives, and nobody says so.
#
# Containers that share memory (--ipc) and process numbers (--pid), but not the network, reach each other as far as UCX
# can tell: ucp_ep_create succeeds, and what is sent is never there for a receiver that polls. So share the network, too
# (--network container:NAME), or stay with TCP.
set -eu
WORK=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$WORK"' EXIT
cd "$WORK"
unshare -n true 2>/dev/null || { echo "skipped: no network namespace can be made here"; exit 0; }
apt-get download -q libucx0=1.13.1-1 libucx-dev=1.13.1-1 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
LIB=$PWD/root/usr/lib/$(gcc -print-multiarch)
cat >pair.c <<'C'
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <ucp/api/ucp.h>
static int arrived;
static ucs_status_t take(void *a, const void *h, size_t hb, void *d, size_t n, const ucp_am_recv_param_t *p)
{ (void)a, (void)h, (void)hb, (void)d, (void)n, (void)p; arrived = 1; return UCS_OK; }
int main(int argc, char **argv)
{
	ucp_params_t p = { .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM };
	ucp_worker_params_t w = { 0 };
	ucp_context_h context; ucp_worker_h worker; ucp_ep_h endpoint;
	if (ucp_init(&p, NULL, &context) || ucp_worker_create(context, &w, &worker)) return 99;
	if (argc == 1) { /* says its address, and looks for 3 s whether something arrives */
		ucp_am_handler_param_t m = { .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB, .cb = take };
		ucp_worker_set_am_recv_handler(worker, &m);
		ucp_worker_attr_t a = { .field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS };
		ucp_worker_query(worker, &a);
		for (size_t i = 0; i < a.address_length; i++) printf("%02x", ((unsigned char *)a.address)[i]);
		printf("\n"), fflush(stdout);
		for (int i = 0; i < 3000 && !arrived; i++) ucp_worker_progress(worker), poll(0, 0, 1);
		return !arrived;
	}
	unsigned char address[512] = { 0 };
	for (size_t i = 0; i < strlen(argv[1]) / 2; i++) sscanf(argv[1] + 2 * i, "%2hhx", &address[i]);
	ucp_ep_params_t e = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, .address = (ucp_address_t *)address };
	ucp_request_param_t none = { 0 };
	if (ucp_ep_create(worker, &e, &endpoint)) return 98;
	ucp_am_send_nbx(endpoint, 0, NULL, 0, "x", 1, &none);
	for (int i = 0; i < 4000; i++) ucp_worker_progress(worker), poll(0, 0, 1);
}
C
gcc -include unistd.h -I root/usr/include pair.c -o pair -L "$LIB" -lucp -lucs -Wl,-rpath-link,"$LIB"
export LD_LIBRARY_PATH=$LIB UCX_TLS=posix UCX_LOG_LEVEL=warn
for network in shared other; do
	./pair >address & receiver=$!
	sleep 0.5
	if [ $network = other ]; then unshare -n ./pair "$(cat address)" & else ./pair "$(cat address)" & fi
	arrived=yes
	wait $receiver || arrived=no
	echo "network $network: arrived: $arrived"
	case $network-$arrived in shared-yes | other-no) ;; *) exit 1 ;; esac
done
