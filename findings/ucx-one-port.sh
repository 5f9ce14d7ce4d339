#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# UCX 1.13.1 (Debian 12), TCP: a worker whose UCX_TCP_PORT_RANGE is one port cannot be made again for a minute.
# Seen: ucp_worker_create fails with "Device is busy" as long as the kernel keeps a closed connection of that port
# (TIME_WAIT, 60 s), so a service with a fixed port cannot be restarted at once. A range of several ports works.
set -eu
WORK=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$WORK"' EXIT
cd "$WORK"
apt-get download -q libucx0=1.13.1-1 libucx-dev=1.13.1-1 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
LIB=$PWD/root/usr/lib/$(gcc -print-multiarch)
cat >worker.c <<'C'
#include <ucp/api/ucp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
static ucs_status_t take(void *a, const void *h, size_t hb, void *d, size_t n, const ucp_am_recv_param_t *p)
{ (void)a, (void)h, (void)hb, (void)d, (void)n, (void)p; return UCS_OK; }
int main(int argc, char **argv)
{
	ucp_params_t p = { .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM };
	ucp_worker_params_t w = { 0 };
	ucp_context_h context; ucp_worker_h worker; ucp_ep_h endpoint;
	if (ucp_init(&p, NULL, &context) != UCS_OK) return 1;
	ucs_status_t status = ucp_worker_create(context, &w, &worker);
	if (status != UCS_OK) return printf("%s\n", ucs_status_string(status)), 2;
	if (argc == 1) { /* says its address, and serves */
		ucp_am_handler_param_t m = { .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB, .cb = take };
		ucp_worker_set_am_recv_handler(worker, &m);
		ucp_worker_attr_t a = { .field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS };
		ucp_worker_query(worker, &a);
		for (size_t i = 0; i < a.address_length; i++) printf("%02x", ((unsigned char *)a.address)[i]);
		printf("\n"), fflush(stdout);
		for (;;) ucp_worker_progress(worker), poll(0, 0, 1);
	}
	unsigned char address[512] = { 0 };
	for (size_t i = 0; i < strlen(argv[1]) / 2; i++) sscanf(argv[1] + 2 * i, "%2hhx", &address[i]);
	ucp_ep_params_t e = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, .address = (ucp_address_t *)address };
	if (ucp_ep_create(worker, &e, &endpoint) != UCS_OK) return 3;
	ucp_request_param_t none = { 0 };
	ucs_status_ptr_t r = ucp_am_send_nbx(endpoint, 0, NULL, 0, "x", 1, &none);
	for (int i = 0; i < 1000; i++) ucp_worker_progress(worker), poll(0, 0, 1); /* stays a second, the server goes first */
	return UCS_PTR_IS_ERR(r);
}
C
gcc -I root/usr/include worker.c -o worker -L "$LIB" -lucp -lucs -Wl,-rpath-link,"$LIB"
export LD_LIBRARY_PATH=$LIB UCX_TLS=tcp UCX_NET_DEVICES=lo UCX_LOG_LEVEL=fatal
port=$((20000 + RANDOM % 9000))
for range in $port-$port $((port + 1))-$((port + 16)); do
	UCX_TCP_PORT_RANGE=$range ./worker >address & server=$!
	sleep 0.5
	./worker "$(cat address)" &
	sleep 0.5
	kill -9 $server; wait 2>/dev/null || true
	again=$(UCX_TCP_PORT_RANGE=$range timeout 1 ./worker || true)
	echo "range $range, made again: ${again:0:16}"
	case $range in $port-*) [ "$again" = "Device is busy" ] ;; *) [ ${#again} -gt 60 ] ;; esac
done
