/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small exchange for tests: transports of any form in one thread, a server whose answers can be
 * foretold, clients that check them, and raw peers that say what they like. Everything asserts
 * through cmocka, but for exchange_pattern and exchange_expected, which any program may use.
 */
#ifndef CADRE_TESTS_SUPPORT_EXCHANGE_H
#define CADRE_TESTS_SUPPORT_EXCHANGE_H

#include "common/transport/exchange_address.h"
#include "common/transport/link.h"
#include "common/transport/local.h"
#include "common/transport/ucx.h"
#include "tests/support/sim.h"

enum exchange_form { EXCHANGE_LOCAL, EXCHANGE_ATTACHED, EXCHANGE_SIM, EXCHANGE_UCX, EXCHANGE_UCX_SHM };

enum {
	EXCHANGE_ELEMENTS = 96,
	EXCHANGE_LAYERS = 4,
	EXCHANGE_EXPERTS = 8,
	EXCHANGE_NODES_MAX = 8,
	EXCHANGE_HELD_MAX = 64,
	EXCHANGE_LOG_MAX = 64
};

struct exchange_node;
struct exchange_raw;
struct exchange {
	enum exchange_form form;
	const char *device; /* of UCX; NULL: lo */
	struct cad_local_hub *hub;
	struct cad_sim *sim;
	struct exchange_node *nodes[EXCHANGE_NODES_MAX];
	size_t nodes_count;
	const struct cad_clock *clock;
	struct exchange_raw *raw;
};

enum exchange_serve { EXCHANGE_ANSWER, EXCHANGE_HOLD };

struct exchange_closed {
	const struct cad_connection *connection; /* gone: a name, to compare */
	enum cad_status status;
	char text[400];
};
struct exchange_node {
	struct exchange *exchange;
	struct cad_transport *transport;
	enum exchange_serve serve;
	bool paused; /* exchange_run does not poll it */
	struct cad_request *held[EXCHANGE_HELD_MAX];
	size_t held_count, ready_count, closed_count, requests_count;
	struct cad_connection *last_ready, *awaited;
	struct exchange_closed closed[EXCHANGE_LOG_MAX];
	char address[CAD_EXCHANGE_ADDRESS_BYTES]; /* when it was said to have changed */
};

void exchange_init(struct exchange *exchange, enum exchange_form form);
void exchange_fini(struct exchange *exchange); /* destroys the nodes that are left */

/* Defaults for tests: identity of cluster "test", small limits, quick heartbeats that nobody
 * notices. */
void exchange_options(struct cad_transport_options *options, const char *node, bool server);
struct exchange_node *exchange_node_create(struct exchange *exchange, const struct cad_transport_options *options);
void exchange_node_destroy(struct exchange_node *node);
/* Creates a server that listens on `name` (for UCX on a port of the loopback interface). */
struct exchange_node *exchange_server(
	struct exchange *exchange, const struct cad_transport_options *options, const char *name);
/* Whoever has this address may connect; exchange_connect says it for its client. */
void exchange_announce(struct exchange *exchange, const char *address);
/* and waits until it is READY or CLOSED; NULL: closed */
struct cad_connection *exchange_connect(struct exchange_node *client, const char *address);
struct cad_connection *exchange_connect_start(struct exchange_node *client, const char *address);
cad_link_create_fn *exchange_link_create(const struct exchange *exchange);
void *exchange_link_context(const struct exchange *exchange);

/* Lets everything run until done(context), at most 20 seconds of the clock; false: that long. */
bool exchange_run_until(struct exchange *exchange, bool (*done)(void *context), void *context);
bool exchange_closed_some(void *node); /* a connection of it was closed */
/* A node that hangs, and hangs no more. */
void exchange_pause(struct exchange_node *node);
void exchange_resume(struct exchange_node *node);
void exchange_run(struct exchange *exchange, uint64_t duration_ns);
void exchange_answer(struct cad_request *request); /* as a server that answers would */

/* ---- calls ---- */

struct exchange_call {
	struct exchange_node *node;
	struct cad_buffer payload, answer;
	struct cad_call_start start;
	struct cad_call *call;
	uint64_t seed;
	uint32_t elements;
	int done; /* how often the callback came */
	enum cad_status status;
	uint8_t wire_status;
	bool right; /* OK, and every byte is as foretold */
};
/* Buffers and a payload made from `seed`. rows of f32, every row to one expert. */
void exchange_call_create(
	struct exchange_call *call, struct exchange_node *node, uint32_t rows, uint32_t elements, uint64_t seed);
void exchange_call_destroy(struct exchange_call *call);
enum cad_status exchange_call_start(struct exchange_call *call, struct cad_connection *connection, uint64_t timeout_ns);
bool exchange_call_done(void *call);

/* Fills `bytes` with a well-formed payload; returns its size. `call` gets the counts. */
size_t exchange_pattern(
	uint8_t *bytes, size_t capacity, uint32_t rows, uint32_t elements, uint64_t seed, struct cadre_wire_call *call);
/* What an honest server answers: sums as 16-bit integers taken from the row's bytes. Returns the
 * payload's size. */
size_t exchange_expected(const struct cad_call_view *view, uint8_t *bytes, size_t capacity);

/* ---- raw peers ---- */

enum { EXCHANGE_RAW_SENDS_MAX = 600 };
/* Speaks to the link itself, so it may say what no transport says. Polled by exchange_run and its
 * like. */
struct exchange_raw {
	struct exchange *exchange;
	struct cad_link *link;
	struct cad_link_end *end;
	bool serves;                             /* answers HELLO and PROOF as an honest server would */
	size_t messages, goodbyes, lost, closed; /* a goodbye is not among the messages */
	uint8_t last_kind;
	_Alignas(8) uint8_t last_header[CAD_LINK_HEADER_BYTES_MAX];
	uint64_t session;
	struct exchange_raw_send {
		struct cad_link_op op;
		uint8_t *header, *payload;
	} sends[EXCHANGE_RAW_SENDS_MAX];
	size_t sends_count, sends_open;
};
void exchange_raw_create(struct exchange_raw *raw, struct exchange *exchange);
void exchange_raw_destroy(struct exchange_raw *raw);
void exchange_raw_listen(struct exchange_raw *raw, const char *name);
void exchange_raw_connect(struct exchange_raw *raw, const char *address);
/* Header and payload are copied. Nothing happens when the end is gone. */
void exchange_raw_send(struct exchange_raw *raw, uint8_t kind, const void *header, size_t header_bytes,
	const void *payload, size_t payload_bytes);
struct cadre_wire_header exchange_raw_header(const struct exchange_raw *raw, uint8_t kind, size_t payload_bytes);
void exchange_raw_hello(struct exchange_raw *raw);
bool exchange_raw_handshake(struct exchange_raw *raw); /* as a client: HELLO to WELCOME, without a secret */

#endif
