/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/probe.h"

#include "common/base/address.h"
#include "common/base/clock.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernel closes the sockets of a dying process one after the other: the stream may break before
 * the port refuses. Each pause is twice the one before, up to the last: this takes some tens of
 * milliseconds. */
enum { MOMENT_MS = 2, PAUSE_MS_MAX = 16 };
enum { ROUND_MS = 200 };

struct pl_probe {
	struct pl_probe *next, *previous;
	struct pl_probes *probes;
	struct sockaddr_storage target;
	uint64_t tag, pause_ms, limit_ms; /* of what is left after the pause */
	uv_tcp_t tcp;
	uv_connect_t request;
	uv_timer_t timer; /* the pause; then the limit */
	unsigned handles; /* open */
};

/* ---- where ---- */

/* An address that needs no looking up. */
static bool parse_address(const char *text, struct sockaddr_storage *address)
{
	struct cad_address parts;
	struct cad_error ignored;
	memset(address, 0, sizeof *address);
	return cad_address_parse(text, &parts, &ignored) == CAD_OK &&
		(parts.v6 ? uv_ip6_addr(parts.host, parts.port, (struct sockaddr_in6 *)address)
			  : uv_ip4_addr(parts.host, parts.port, (struct sockaddr_in *)address)) == 0;
}

bool pl_probe_peer(const char *peer, struct sockaddr_storage *address)
{
	char text[CAD_ADDRESS_BYTES];
	cad_address_of_peer(peer, text, sizeof text);
	return parse_address(text, address);
}

bool pl_probe_target(const char *peer, const char *http, char target[CAD_MAP_ADDRESS_BYTES])
{
	struct sockaddr_storage from, to;
	char host[INET6_ADDRSTRLEN];

	target[0] = 0;
	if (!pl_probe_peer(peer, &from) || !parse_address(http, &to) || from.ss_family != to.ss_family)
		return false;

	if (to.ss_family == AF_INET) {
		const struct in_addr *there = &((struct sockaddr_in *)&from)->sin_addr,
				     *named = &((struct sockaddr_in *)&to)->sin_addr;
		if (named->s_addr != there->s_addr && named->s_addr != htonl(INADDR_ANY))
			return false;
		snprintf(target, CAD_MAP_ADDRESS_BYTES, "%s:%u", inet_ntop(AF_INET, there, host, sizeof host),
			ntohs(((struct sockaddr_in *)&to)->sin_port));
		return true;
	}

	const struct in6_addr *there = &((struct sockaddr_in6 *)&from)->sin6_addr,
			      *named = &((struct sockaddr_in6 *)&to)->sin6_addr;
	if (!IN6_ARE_ADDR_EQUAL(named, there) && !IN6_IS_ADDR_UNSPECIFIED(named))
		return false;
	snprintf(target, CAD_MAP_ADDRESS_BYTES, "[%s]:%u", inet_ntop(AF_INET6, there, host, sizeof host),
		ntohs(((struct sockaddr_in6 *)&to)->sin6_port));
	return true;
}

/* ---- asking ---- */

static void on_closed(uv_handle_t *handle)
{
	struct pl_probe *probe = handle->data;
	struct pl_probes *probes = probe->probes;

	if (--probe->handles > 0)
		return;

	if (probe->previous)
		probe->previous->next = probe->next;
	else
		probes->first = probe->next;
	if (probe->next)
		probe->next->previous = probe->previous;
	free(probe);
	if (--probes->count == 0 && probes->closed)
		probes->closed(probes->context);
}

static void end(struct pl_probe *probe)
{
	if (uv_is_closing((uv_handle_t *)&probe->tcp))
		return;
	uv_close((uv_handle_t *)&probe->tcp, on_closed);
	uv_close((uv_handle_t *)&probe->timer, on_closed);
}

static void on_limit(uv_timer_t *timer) { end(timer->data); }

static void ask(struct pl_probes *probes, const struct sockaddr_storage *target, uint64_t tag, uint64_t pause_ms,
	uint64_t limit_ms);

static void on_connected(uv_connect_t *request, int status)
{
	struct pl_probe *probe = request->handle->data;
	uint64_t pause_ms = probe->pause_ms < PAUSE_MS_MAX ? 2 * probe->pause_ms : PAUSE_MS_MAX;
	if (status == UV_ECONNREFUSED)
		probe->probes->refused(probe->probes->context, probe->tag);
	else if ((status == 0 || status == UV_ECONNRESET) && probe->limit_ms > pause_ms)
		ask(probe->probes, &probe->target, probe->tag, pause_ms, probe->limit_ms - pause_ms);
	end(probe);
}

static void on_pause_over(uv_timer_t *timer)
{
	struct pl_probe *probe = timer->data;
	uv_timer_start(timer, on_limit, probe->limit_ms, 0);
	if (uv_tcp_connect(&probe->request, &probe->tcp, (const struct sockaddr *)&probe->target, on_connected) != 0)
		end(probe);
}

void pl_probes_init(
	struct pl_probes *probes, uv_loop_t *loop, void (*refused)(void *context, uint64_t tag), void *context)
{
	*probes = (struct pl_probes){ .loop = loop, .refused = refused, .context = context };
}

static void ask(struct pl_probes *probes, const struct sockaddr_storage *target, uint64_t tag, uint64_t pause_ms,
	uint64_t limit_ms)
{
	struct pl_probe *probe = probes->count < PL_PROBES_MAX && !probes->closed ? calloc(1, sizeof *probe) : NULL;
	if (!probe)
		return;

	probe->probes = probes;
	probe->target = *target;
	probe->tag = tag;
	probe->pause_ms = pause_ms;
	probe->limit_ms = limit_ms;
	uv_tcp_init(probes->loop, &probe->tcp);
	uv_timer_init(probes->loop, &probe->timer);
	probe->tcp.data = probe->timer.data = probe;
	probe->handles = 2;
	probe->next = probes->first;
	if (probes->first)
		probes->first->previous = probe;
	probes->first = probe;
	probes->count++;
	uv_timer_start(&probe->timer, on_pause_over, pause_ms, 0);
}

void pl_probes_ask(struct pl_probes *probes, const char *target, uint64_t tag, uint64_t limit_ms)
{
	struct sockaddr_storage address;
	if (parse_address(target, &address))
		ask(probes, &address, tag, MOMENT_MS, limit_ms);
}

void pl_probes_ask_node(struct pl_probes *probes, const struct pl_registry *registry, uint32_t slot, uint64_t limit_ms)
{
	const struct pl_node *node = &registry->nodes[slot];
	pl_probes_ask(probes, node->probe_address, (uint64_t)slot << 32 | node->pid, limit_ms);
}

uint64_t pl_probes_ask_expected(struct pl_probes *probes, const struct pl_registry *registry, uint64_t now_ns)
{
	if (now_ns < probes->round_ns)
		return probes->round_ns;

	probes->round_ns = UINT64_MAX;
	for (uint32_t i = 0; i < CAD_PROCESSES_MAX; i++) {
		/* beginning with another one each time: there are more processes than probes */
		uint32_t slot = (i + probes->round_first) % CAD_PROCESSES_MAX;
		if (registry->nodes[slot].presence != PL_EXPECTED)
			continue;
		pl_probes_ask_node(probes, registry, slot, ROUND_MS);
		probes->round_ns = now_ns + ROUND_MS * CAD_NS_PER_MS;
	}
	probes->round_first += PL_PROBES_MAX;

	return probes->round_ns;
}

void pl_probes_close(struct pl_probes *probes, void (*closed)(void *context))
{
	probes->closed = closed;
	if (probes->count == 0)
		closed(probes->context);
	for (struct pl_probe *probe = probes->first; probe; probe = probe->next)
		end(probe);
}
