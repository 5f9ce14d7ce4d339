#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# UCX 1.13.1 (Debian 12), TCP: which endpoint ucp_ep_create returns depends on how many the *other* side ever made.
#
# B gets a message from A with UCP_AM_SEND_FLAG_REPLY, and so a reply_ep that tells B nothing of A's death. When B
# calls ucp_ep_create with A's worker address, it gets that very endpoint, now with an error handler, but only if B
# has made as many endpoints to A as A to B: UCX pairs the n-th with the n-th. Endpoints that A made and closed
# before anything was sent count, and B never hears of them. Seen: with K of them, B's endpoint number K + 1 is
# reply_ep, and none before. So tell the other side the number with the first message, and make as many.
set -eu
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK"
apt-get download -q libucx0=1.13.1-1 libucx-dev=1.13.1-1 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
LIB=$PWD/root/usr/lib/$(gcc -print-multiarch)
cat >pair.c <<'C'
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucp/api/ucp.h>
static ucp_worker_h a, b;
static ucp_ep_h reply;
static void on_error(void *x, ucp_ep_h e, ucs_status_t s) { (void)x, (void)e, (void)s; }
static ucs_status_t take(void *x, const void *h, size_t hb, void *d, size_t n, const ucp_am_recv_param_t *p)
{ (void)x, (void)h, (void)hb, (void)d, (void)n; reply = p->reply_ep; return UCS_OK; }
static ucp_ep_h endpoint(ucp_worker_h from, ucp_worker_h to)
{
	ucp_worker_attr_t w = { .field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS };
	ucp_ep_h made = NULL;
	ucp_worker_query(to, &w);
	ucp_ep_params_t p = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
		UCP_EP_PARAM_FIELD_ERR_HANDLER, .address = w.address, .err_mode = UCP_ERR_HANDLING_MODE_PEER, .err_handler = { on_error, 0 } };
	return ucp_ep_create(from, &p, &made) == UCS_OK ? made : NULL;
}
int main(int argc, char **argv)
{
	ucp_params_t p = { .field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_AM };
	ucp_worker_params_t w = { 0 };
	ucp_request_param_t force = { .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE },
		with_reply = { .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_AM_SEND_FLAG_REPLY };
	ucp_am_handler_param_t m = { .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB, .cb = take };
	ucp_context_h context;
	if (argc < 2 || ucp_init(&p, NULL, &context) || ucp_worker_create(context, &w, &a) || ucp_worker_create(context, &w, &b)) return 99;
	ucp_worker_set_am_recv_handler(b, &m);
	for (int i = atoi(argv[1]); i > 0; i--) ucp_ep_close_nbx(endpoint(a, b), &force);
	ucp_am_send_nbx(endpoint(a, b), 0, NULL, 0, "x", 1, &with_reply);
	for (int i = 0; i < 2000 && !reply; i++) ucp_worker_progress(a), ucp_worker_progress(b), poll(0, 0, 1);
	int number = 1;
	while (reply && number < 64 && endpoint(b, a) != reply) number++;
	printf("%d closed before: number %d is reply_ep\n", atoi(argv[1]), number), fflush(stdout);
	_exit(reply && number == atoi(argv[1]) + 1 ? 0 : 1);
}
C
gcc -include unistd.h -I root/usr/include pair.c -o pair -L "$LIB" -lucp -lucs -Wl,-rpath-link,"$LIB"
export LD_LIBRARY_PATH=$LIB UCX_TLS=tcp UCX_NET_DEVICES=lo
for closed in 0 1 3 20; do ./pair $closed; done
