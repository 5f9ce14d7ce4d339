/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/exchange.h"

#include "common/base/log.h"
#include "common/base/workers.h"
#include "common/process/metrics.h"
#include "expert-svc/loader.h"
#include "expert-svc/pinned.h"

#include <string.h>

enum { TURN_MS = 200, SHUNNED_S = 10 };
enum { NODES_CONNECTED_MAX = 32, PARTS_GIVEN = 8 };

static uint64_t now_ns(void) { return cad_clock_now_ns(&cad_clock_system); }

/* ---- its thread ---- */

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	struct ex_exchange *exchange = cad_transport_user(transport);
	if (cad_connection_user(connection)) {
		ex_asker_connection(connection, state, status, text);
		return;
	}
	if (status == CAD_ERR_REFUSED) {
		cad_note_put(&exchange->refusal, text);
		atomic_store(&exchange->refused_ns, now_ns());
	}
	if (state == CAD_CONNECTION_READY) {
		atomic_fetch_add(&exchange->connected, 1);
		cad_log_info("exchange", "connected", CAD_S("peer", cad_connection_peer(connection)));
		return;
	}
	ex_engine_connection_lost(exchange->engine, connection);
	cad_log_write(status == CAD_ERR_PROTOCOL || status == CAD_ERR_REFUSED ? CAD_LOG_WARN : CAD_LOG_INFO, "exchange",
		(const struct cad_log_field[]){ CAD_S("msg", "connection closed"),
			CAD_S("peer", cad_connection_peer(connection)), CAD_S("why", text) },
		3);
}

static void on_request(struct cad_transport *transport, struct cad_request *request)
{
	struct ex_exchange *exchange = cad_transport_user(transport);
	if (!exchange->has_served) { /* from now on, the cores are for tokens */
		exchange->has_served = true;
		cad_workers_retire(exchange->device->workers);
	}
	ex_engine_request(exchange->engine, request);
}

static void on_fetch(struct cad_transport *transport, struct cad_part *part)
{
	ex_giver_fetch(((struct ex_exchange *)cad_transport_user(transport))->giver, part);
}

static void on_address(struct cad_transport *transport, const char *address)
{
	struct ex_exchange *exchange = cad_transport_user(transport);
	cad_log_warn("exchange", "restarted, with another address");
	cad_own_address_set(&exchange->own_address, address);
}

/* The HTTP thread reads copies: a transport belongs to its own thread. */
static void copy_stats(struct ex_exchange *exchange)
{
	uint64_t values[sizeof(struct cad_transport_stats) / sizeof(uint64_t)];
	memcpy(values, cad_transport_stats(exchange->transport), sizeof values);
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
		atomic_store_explicit(&exchange->stats[i], values[i], memory_order_relaxed);
	atomic_store_explicit(&exchange->beat_ns, now_ns(), memory_order_relaxed);
}

static void *exchange_thread(void *argument)
{
	struct ex_exchange *exchange = argument;
	/* To the end: nothing that was accepted stays unanswered. */
	while (!atomic_load(&exchange->stop) || !ex_engine_idle(exchange->engine) || !ex_giver_idle(exchange->giver) ||
		!ex_asker_idle(exchange->asker)) {
		ex_peers_announce(&exchange->peers, exchange->transport);
		uint64_t until_ns = ex_asker_turn(exchange->asker), most_ns = now_ns() + TURN_MS * CAD_NS_PER_MS;
		cad_transport_poll(exchange->transport, until_ns < most_ns ? until_ns : most_ns);
		ex_engine_deliver(exchange->engine);
		ex_giver_deliver(exchange->giver);
		copy_stats(exchange);
	}
	return NULL;
}

/* ---- metrics ---- */

static double read_u64(void *context)
{
	return (double)atomic_load_explicit((_Atomic uint64_t *)context, memory_order_relaxed);
}

void ex_exchange_metrics(struct ex_exchange *exchange, struct cad_metrics *metrics)
{
	static const struct {
		size_t offset;
		const char *name, *help;
	} counters[] = {
		{ offsetof(struct cad_transport_stats, bytes_sent), "cadre_exchange_sent_bytes_total",
			"bytes of messages sent" },
		{ offsetof(struct cad_transport_stats, bytes_received), "cadre_exchange_received_bytes_total",
			"bytes of messages received" },
		{ offsetof(struct cad_transport_stats, answers), "cadre_exchange_answers_total", "answers sent" },
		{ offsetof(struct cad_transport_stats, connections_opened), "cadre_exchange_connections_opened_total",
			"connections that were opened" },
		{ offsetof(struct cad_transport_stats, connections_lost), "cadre_exchange_connections_lost_total",
			"connections that were lost" },
		{ offsetof(struct cad_transport_stats, protocol_errors), "cadre_exchange_protocol_errors_total",
			"connections closed because a peer broke the protocol" },
		{ offsetof(struct cad_transport_stats, rebuilds), "cadre_exchange_rebuilds_total",
			"times the exchange was rebuilt after it went deaf" },
	};
	for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++)
		cad_metrics_counter_read(metrics, counters[i].name, counters[i].help, NULL, 0, read_u64,
			(void *)&exchange->stats[counters[i].offset / sizeof(uint64_t)]);
}

/* ---- beginning and end ---- */

/* The transport's user and what it calls are the exchange's. */
static void complete(struct ex_exchange *exchange, const struct ex_exchange_options *options)
{
	struct cad_transport_options *t = options->transport;
	t->connections_max += NODES_CONNECTED_MAX;
	/* parts asked for by loader threads, or given to others */
	t->fetches_max = PARTS_GIVEN + 2 * ex_loader_threads(options->load_threads);
	/* one full call always goes */
	if (t->credit_bytes < t->limits.payload_bytes_max)
		t->credit_bytes = t->limits.payload_bytes_max;
	ex_pin_requests(options->device, t);
	t->user = exchange;
	t->on_connection = on_connection;
	t->on_request = on_request;
	t->on_fetch = on_fetch;
	t->on_address = on_address;
}

enum cad_status ex_exchange_create(
	struct ex_exchange *exchange, const struct ex_exchange_options *options, struct cad_error *error)
{
	exchange->engine = options->engine;
	exchange->device = options->device;
	complete(exchange, options);

	enum cad_status status =
		cad_transport_ucx_create(options->transport, options->ucx, &exchange->transport, error);
	if (status == CAD_OK)
		status = ex_asker_create(
			exchange->transport, ex_loader_threads(options->load_threads), &exchange->asker, error);
	if (status == CAD_OK)
		status = ex_giver_create(
			&(struct ex_giver_options){
				.engine = options->engine,
				.parts_max = options->transport->fetches_max,
				.metrics = options->metrics,
				.wake = ex_exchange_wake,
				.context = exchange,
			},
			&exchange->giver, error);
	if (status != CAD_OK)
		return status;

	ex_peers_init(&exchange->peers);
	cad_own_address_init(&exchange->own_address);
	cad_own_address_set(&exchange->own_address, cad_transport_address(exchange->transport));
	return CAD_OK;
}

enum cad_status ex_exchange_start(struct ex_exchange *exchange, struct cad_error *error)
{
	if (pthread_create(&exchange->thread, NULL, exchange_thread, exchange) != 0)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "cannot start a thread for the exchange: see ulimit -u");
	return CAD_OK;
}

void ex_exchange_stop(struct ex_exchange *exchange)
{
	ex_asker_stop(exchange->asker);
	atomic_store(&exchange->stop, true);
	cad_transport_wake(exchange->transport);
	pthread_join(exchange->thread, NULL);
}

void ex_exchange_fini(struct ex_exchange *exchange)
{
	ex_giver_destroy(exchange->giver); /* its thread wakes the transport */
	ex_asker_destroy(exchange->asker);
	cad_transport_destroy(exchange->transport);
	ex_peers_fini(&exchange->peers);
}

/* ---- for others ---- */

void ex_exchange_wake(void *exchange) { cad_transport_wake(((struct ex_exchange *)exchange)->transport); }

void ex_exchange_peers(struct ex_exchange *exchange, const char *const *addresses, size_t count)
{
	ex_peers_set(&exchange->peers, addresses, count);
	cad_transport_wake(exchange->transport);
}

bool ex_exchange_shunned(struct ex_exchange *exchange, char why[CAD_NOTE_BYTES])
{
	uint64_t refused_ns = atomic_load(&exchange->refused_ns);
	cad_note_get(&exchange->refusal, why);
	return refused_ns > 0 && atomic_load(&exchange->connected) == 0 &&
		now_ns() - refused_ns < SHUNNED_S * CAD_NS_PER_S;
}

uint64_t ex_exchange_silent_ns(const struct ex_exchange *exchange)
{
	uint64_t beat_ns = atomic_load(&exchange->beat_ns);
	return beat_ns > 0 ? now_ns() - beat_ns : 0;
}
