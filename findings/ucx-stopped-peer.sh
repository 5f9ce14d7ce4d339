#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# UCX 1.13.1 (Debian 12), TCP: while a worker connects to a process that is stopped (SIGSTOP), its event descriptor is
# readable all the while, although ucp_worker_arm says that there is nothing to do, and ucp_worker_progress moves nothing.
# Seen: 91,201 wakes for nothing in half a second, until the peer goes on; 708 (those before the peer answers) when it
# runs. So a program that sleeps as documented keeps a core busy. The socket is writable, and UCX asks to be told.
set -eu
WORK=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null || true; rm -rf "$WORK"' EXIT
cd "$WORK"
apt-get download -q libucx0=1.13.1-1 libucx-dev=1.13.1-1 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
LIB=$PWD/root/usr/lib/$(gcc -print-multiarch)
cat >worker.c <<'C'
#include <ucp/api/ucp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
static ucs_status_t take(void *a, const void *h, size_t hb, void *d, size_t n, const ucp_am_recv_param_t *p)
{ (void)a, (void)h, (void)hb, (void)d, (void)n, (void)p; return UCS_OK; }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
int main(int argc, char **argv)
{
	ucp_params_t p = { .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP };
	ucp_worker_params_t w = { 0 };
	ucp_context_h context; ucp_worker_h worker; ucp_ep_h endpoint;
	int fd, wakes = 0;
	if (ucp_init(&p, NULL, &context) != UCS_OK || ucp_worker_create(context, &w, &worker) != UCS_OK) return 1;
	ucp_worker_get_efd(worker, &fd);
	if (argc == 1) { /* says its address, and serves */
		ucp_am_handler_param_t m = { .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB, .cb = take };
		ucp_worker_set_am_recv_handler(worker, &m);
		ucp_worker_attr_t a = { .field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS };
		ucp_worker_query(worker, &a);
		for (size_t i = 0; i < a.address_length; i++) printf("%02x", ((unsigned char *)a.address)[i]);
		for (puts(""), fflush(stdout);;) ucp_worker_progress(worker), poll(0, 0, 1);
	}
	unsigned char address[512] = { 0 };
	for (size_t i = 0; i < strlen(argv[1]) / 2; i++) sscanf(argv[1] + 2 * i, "%2hhx", &address[i]);
	ucp_ep_params_t e = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, .address = (ucp_address_t *)address };
	if (ucp_ep_create(worker, &e, &endpoint) != UCS_OK) return 2;
	ucp_am_send_nbx(endpoint, 0, NULL, 0, "x", 1, &(ucp_request_param_t){ 0 });
	for (double end = now() + 0.5; now() < end;) {
		if (ucp_worker_progress(worker) || ucp_worker_arm(worker) != UCS_OK) continue; /* there was something to do */
		wakes += poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 100) > 0;
	}
	return printf("%d\n", wakes), 0;
}
C
gcc -I root/usr/include worker.c -o worker -L "$LIB" -lucp -lucs -Wl,-rpath-link,"$LIB"
export LD_LIBRARY_PATH=$LIB UCX_TLS=tcp UCX_NET_DEVICES=lo UCX_LOG_LEVEL=fatal
./worker >address & server=$!
sleep 0.5
running=$(./worker "$(cat address)")
kill -STOP $server
stopped=$(./worker "$(cat address)")
echo "wakes in half a second: $running with a peer that runs, $stopped with one that is stopped"
[ "$stopped" -gt 10000 ] && [ "$running" -lt $((stopped / 10)) ]
