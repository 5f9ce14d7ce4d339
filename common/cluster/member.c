/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/member.h"

#include "cadre/v1/placement.pb-c.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/note.h"
#include "common/base/version.h"
#include "common/cluster/own_address.h"
#include "common/cluster/proof.h"
#include "common/cluster/settings_message.h"
#include "common/process/access.h"
#include "common/rpc/blocking.h"
#include "common/rpc/reactor.h"
#include "proto/cadre_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define JOIN_PATH "/cadre.v1.Placement/Join"
#define STATUS_PATH "/cadre.v1.Placement/GetStatus"

enum {
	DELAY_FIRST_MS = 50,
	DELAY_AWAY_MS = 300, /* at most, to a service that is away: it has to be noticed when it is back */
	DELAY_LAST_MS = 2000,
	SAY_AGAIN_S = 60,
	ASK_TIMEOUT_MS = 2500, /* an address that does not answer is given up before */
	ASK_PAUSE_MS = 100,
	CONNECT_EVERY_MS = 200, /* all start at once, and the placement service is not always first */
	ASK_SAY_MS = 3000,
	GOODBYE_MS = 1000,
	LEASE_MS_MAX = 3600 * 1000,
	SECOND_MS = 1000,
};

/* ---- asking for the facts ---- */

struct ask {
	struct cad_cluster_facts *facts;
	enum cad_status status;
	struct cad_error *error;
};

static bool copy_text(char *to, size_t bytes, const char *from)
{
	size_t length = strlen(from);
	if (length >= bytes)
		return false;
	memset(to, 0, bytes);
	memcpy(to, from, length);
	return true;
}

static bool take_facts(void *context, const ProtobufCMessage *message)
{
	struct ask *ask = context;
	const Cadre__V1__ClusterStatus *status = (const Cadre__V1__ClusterStatus *)message;

	if (!status->settings || !copy_text(ask->facts->cluster, sizeof ask->facts->cluster, status->cluster) ||
		!copy_text(
			ask->facts->model_fingerprint, sizeof ask->facts->model_fingerprint, status->model_fingerprint))
		ask->status = cad_error_set(ask->error, CAD_ERR_PROTOCOL,
			"the placement service answered without settings, or with names that are too long");
	else
		ask->status = cad_settings_from_proto(status->settings, &ask->facts->settings, ask->error);
	ask->facts->routing_aggregate = status->routing_detail == CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_AGGREGATE;
	return false;
}

static void note_waiting(struct cad_note *note, const char *placement, const char *why)
{
	char text[CAD_ERROR_TEXT_BYTES + 160]; /* the note cuts it */
	snprintf(
		text, sizeof text, "waiting for the placement service at %.100s%s%s", placement, *why ? ": " : "", why);
	cad_note_put(note, text);
}

enum cad_status cad_cluster_ask(const char *placement, const struct cad_access *access, struct cad_note *waits_for,
	bool (*interrupted)(void *context), void *context, struct cad_cluster_facts *facts, struct cad_error *error)
{
	struct cad_rpc_blocking *client;
	const struct cad_rpc_channel_config config = { .backoff_ms_max = CONNECT_EVERY_MS };
	enum cad_status status = cad_rpc_blocking_create(placement, access->tls, &config, &client, error);

	if (status != CAD_OK)
		return status;

	*facts = (struct cad_cluster_facts){ 0 };
	note_waiting(waits_for, placement, "");

	char said[CAD_ERROR_TEXT_BYTES] = "";
	for (uint64_t say_ns = 0;;) {
		struct ask ask = { .facts = facts, .status = CAD_ERR_PROTOCOL, .error = error };
		Cadre__V1__GetStatusRequest request = CADRE__V1__GET_STATUS_REQUEST__INIT;
		const struct cad_rpc_metadata header = { "authorization", access->bearer };
		const struct cad_rpc_call_options options = {
			.timeout_ms = ASK_TIMEOUT_MS,
			.metadata = &header,
			.metadata_count = access->bearer != NULL,
		};
		enum cad_rpc_code code;
		status = cad_rpc_blocking_call(client, STATUS_PATH, &request.base,
			&cadre__v1__cluster_status__descriptor, &options, take_facts, &ask, &code, error);
		if (status == CAD_OK)
			status = ask.status;
		if (status == CAD_OK || (code != CAD_RPC_UNAVAILABLE && code != CAD_RPC_DEADLINE_EXCEEDED))
			break;
		note_waiting(waits_for, placement, error->text);
		if (interrupted && interrupted(context)) {
			status = cad_error_set(error, CAD_ERR_CANCELLED,
				"interrupted while waiting for the placement service at %s", placement);
			break;
		}
		uint64_t now_ns = cad_clock_now_ns(&cad_clock_system);
		if (now_ns >= say_ns || strcmp(said, error->text) != 0) {
			cad_log_info("member", "waiting for the placement service", CAD_S("placement", placement),
				CAD_S("why", error->text));
			say_ns = now_ns + ASK_SAY_MS * CAD_NS_PER_MS;
			snprintf(said, sizeof said, "%s", error->text);
		}
		cad_rpc_blocking_pause(client, ASK_PAUSE_MS);
	}

	cad_rpc_blocking_destroy(client);
	return status == CAD_OK || status == CAD_ERR_CANCELLED
		? status
		: cad_error_prefix(error, "placement service at %s", placement);
}

/* ---- the stream ---- */

struct cad_member {
	struct cad_member_options options;
	struct cad_rpc_channel *channel;
	struct cad_rpc_client_call *call; /* NULL: none now */
	uv_timer_t timer;                 /* joined: the next load report; else: the next attempt */
	uv_timer_t second;                /* while it is joined */
	bool full;                        /* the call's out queue is */
	struct cad_random random;
	uint32_t delay_ms, lease_ms;
	bool joined, leaving;
	/* with a secret: of this attempt */
	struct cad_proof_nonces nonces;
	bool proven; /* the service knows it */
	bool distrusted;
	uint64_t said_ns; /* when it was said last that it cannot join, and why */
	char said[CAD_ERROR_TEXT_BYTES];
	char settings_fingerprint[33], settings_text[CADRE_TEXT_BYTES];
	bool greeted;                                      /* the hello is sent, on the stream of now */
	char exchange_address[CAD_EXCHANGE_ADDRESS_BYTES]; /* as last announced */
	void (*closed)(void *context);
	void *closed_context;
};

static void attempt(uv_timer_t *timer);

static enum cad_status send_report(struct cad_member *member, const Cadre__V1__NodeReport *report)
{
	enum cad_status status = cad_rpc_client_send(member->call, &report->base);
	member->full = member->full || status == CAD_FULL;
	return status == CAD_FULL ? CAD_OK : status;
}

/* If it cannot be sent the stream ends: done follows, and another attempt. */
static void send_or_cancel(struct cad_member *member, const Cadre__V1__NodeReport *report)
{
	if (send_report(member, report) != CAD_OK)
		cad_rpc_client_cancel(member->call);
}

static char *text_of(const char *text) { return (char *)(uintptr_t)(text ? text : ""); }

static void fill_hello(struct cad_member *member, Cadre__V1__NodeHello *hello)
{
	const struct cad_member_self *self = &member->options.self;

	hello->id = text_of(self->id);
	hello->http_address = text_of(self->http_address);
	hello->isa = text_of(self->isa);
	hello->threads = self->threads;
	hello->version = text_of(cad_version);
	hello->pid = (uint32_t)getpid();
	hello->exchange_version = CADRE_WIRE_VERSION;
	hello->settings_fingerprint = member->settings_fingerprint;
	hello->settings = member->settings_text;
	hello->cluster = text_of(self->cluster);
	if (self->own_address) {
		cad_own_address_get(self->own_address, member->exchange_address);
		hello->exchange_address = member->exchange_address;
	}
	member->options.hello(member->options.context, hello);
}

static void send_load(struct cad_member *member)
{
	Cadre__V1__NodeLoad load = CADRE__V1__NODE_LOAD__INIT;
	Cadre__V1__NodeReport report = CADRE__V1__NODE_REPORT__INIT;

	member->options.load(member->options.context, &load);
	report.report_case = CADRE__V1__NODE_REPORT__REPORT_LOAD;
	report.load = &load;
	if (member->call)
		send_or_cancel(member, &report);
}

static void on_load_due(uv_timer_t *timer) { send_load(timer->data); }

static void on_second(uv_timer_t *timer)
{
	struct cad_member *member = timer->data;
	member->options.second(member->options.context);
}

/* With a secret, after the service's challenge. */
static void send_hello(struct cad_member *member)
{
	Cadre__V1__NodeHello hello = CADRE__V1__NODE_HELLO__INIT;
	Cadre__V1__NodeReport report = CADRE__V1__NODE_REPORT__INIT;
	uint8_t mac[CAD_PROOF_BYTES];

	fill_hello(member, &hello);
	if (member->options.self.secret) {
		cad_proof_of_member(member->options.self.secret, &member->nonces, &hello, mac);
		hello.mac = (ProtobufCBinaryData){ CAD_PROOF_BYTES, mac };
	}
	member->greeted = true;
	report.report_case = CADRE__V1__NODE_REPORT__REPORT_HELLO;
	report.hello = &hello;
	send_or_cancel(member, &report);
}

/* Says hello all the same to a service that does not know the secret: it answers with a
 * sentence. */
static void take_challenge(struct cad_member *member, const Cadre__V1__Challenge *challenge)
{
	uint8_t mac[CAD_PROOF_BYTES];

	if (!member->options.self.secret || challenge->nonce.len != CAD_PROOF_BYTES || member->joined) {
		cad_rpc_client_cancel(member->call);
		return;
	}

	memcpy(member->nonces.service, challenge->nonce.data, CAD_PROOF_BYTES);
	cad_proof_of_service(member->options.self.secret, &member->nonces, text_of(member->options.self.cluster), mac);
	member->proven = cad_proof_right(mac, challenge->mac.data, challenge->mac.len);
	send_hello(member);
}

static void take_welcome(struct cad_member *member, const Cadre__V1__NodeWelcome *welcome)
{
	if (member->options.self.secret && !member->proven) {
		member->distrusted = true;
		cad_rpc_client_cancel(member->call);
		return;
	}

	uint32_t lease_ms = welcome->lease_ms < 30 ? 30
		: welcome->lease_ms < LEASE_MS_MAX ? welcome->lease_ms
						   : LEASE_MS_MAX;

	member->joined = true;
	member->lease_ms = lease_ms;
	member->delay_ms = DELAY_FIRST_MS;
	uv_timer_start(&member->timer, on_load_due, 0, lease_ms / 3);
	if (member->options.second)
		uv_timer_start(&member->second, on_second, SECOND_MS, SECOND_MS);
	cad_log_info("member", "joined", CAD_S("placement", member->options.self.placement),
		CAD_S("cluster", welcome->cluster), CAD_U("lease_ms", lease_ms));
	if (member->options.welcome)
		member->options.welcome(member->options.context, welcome);
	if (member->options.joined)
		member->options.joined(member->options.context, CAD_JOINED, "");
}

static void take_map(struct cad_member *member, const Cadre__V1__Map *message)
{
	struct cad_map *map;
	struct cad_error error;

	if (!member->options.map)
		return;
	if (cad_map_from_message(message, &map, &error) == CAD_OK)
		member->options.map(member->options.context, map);
	else
		cad_log_error(
			"member", "the placement service sent a map that cannot be used", CAD_S("why", error.text));
}

static void on_message(struct cad_rpc_client_call *call, const ProtobufCMessage *message)
{
	struct cad_member *member = cad_rpc_client_context(call);
	const Cadre__V1__NodeOrder *order = (const Cadre__V1__NodeOrder *)message;

	if (!member->leaving && !member->distrusted) {
		switch (order->order_case) {
		case CADRE__V1__NODE_ORDER__ORDER_WELCOME: take_welcome(member, order->welcome); break;
		case CADRE__V1__NODE_ORDER__ORDER_CHALLENGE: take_challenge(member, order->challenge); break;
		case CADRE__V1__NODE_ORDER__ORDER_MAP: take_map(member, order->map); break;
		case CADRE__V1__NODE_ORDER__ORDER_LOAD:
			if (member->options.order_load)
				member->options.order_load(member->options.context, order->load);
			break;
		case CADRE__V1__NODE_ORDER__ORDER_FREE:
			if (member->options.order_free)
				member->options.order_free(member->options.context, order->free);
			break;
		case CADRE__V1__NODE_ORDER__ORDER_PEERS:
			if (member->options.order_peers)
				member->options.order_peers(member->options.context, order->peers);
			break;
		case CADRE__V1__NODE_ORDER__ORDER_STANDING:
			if (member->options.standing)
				member->options.standing(
					member->options.context, order->standing->counts, order->standing->why);
			break;
		default: break; /* a newer placement service may say more */
		}
	}

	cad_rpc_client_read(call);
}

static void second_closed(uv_handle_t *handle)
{
	struct cad_member *member = handle->data;
	void (*closed)(void *context) = member->closed;
	void *context = member->closed_context;
	if (member->options.self.own_address)
		cad_own_address_unwatch(member->options.self.own_address);
	cad_rpc_channel_destroy(member->channel);
	free(member);
	if (closed)
		closed(context);
}

static void timer_closed(uv_handle_t *handle)
{
	struct cad_member *member = handle->data;
	uv_close((uv_handle_t *)&member->second, second_closed);
}

/* Once for each reason, and again after a while. */
static void say_why(struct cad_member *member, bool joined, enum cad_rpc_code code, const char *text)
{
	uint64_t now_ns = cad_clock_now_ns(&cad_clock_system);
	if (!joined && member->said_ns && now_ns < member->said_ns + SAY_AGAIN_S * CAD_NS_PER_S &&
		strncmp(member->said, text, sizeof member->said - 1) == 0)
		return;

	member->said_ns = now_ns;
	snprintf(member->said, sizeof member->said, "%s", text);
	cad_log_warn("member",
		joined ? "lost the placement service; continuing with the last map" : "cannot join; trying again",
		CAD_S("placement", member->options.self.placement), CAD_S("code", cad_rpc_code_name(code)),
		CAD_S("why", text));
}

/* By the service, which may have as many nodes as it can or be another one, or by this process,
 * which does not trust it; other ends pass. */
static bool is_refusal(const struct cad_member *member, enum cad_rpc_code code)
{
	switch (code) {
	case CAD_RPC_INVALID_ARGUMENT:
	case CAD_RPC_PERMISSION_DENIED:
	case CAD_RPC_UNAUTHENTICATED:
	case CAD_RPC_FAILED_PRECONDITION:
	case CAD_RPC_RESOURCE_EXHAUSTED:
	case CAD_RPC_UNIMPLEMENTED: return true;
	default: return member->distrusted;
	}
}

static void on_done(struct cad_rpc_client_call *call, enum cad_rpc_code code, const char *text)
{
	struct cad_member *member = cad_rpc_client_context(call);
	bool joined = member->joined;

	if (member->distrusted)
		text = "the placement service does not know the cluster secret of this process: give both the same --secret-file";
	member->call = NULL;
	member->joined = false;
	uv_timer_stop(&member->second);
	if (member->leaving) {
		uv_close((uv_handle_t *)&member->timer, timer_closed);
		return;
	}

	uint32_t longest_ms = code == CAD_RPC_UNAVAILABLE ? DELAY_AWAY_MS : DELAY_LAST_MS;
	uint64_t delay_ms = member->delay_ms + cad_random_below(&member->random, member->delay_ms + 1);
	member->delay_ms = member->delay_ms * 2 < longest_ms ? member->delay_ms * 2 : longest_ms;
	say_why(member, joined, code, text);
	uv_timer_start(&member->timer, attempt, delay_ms, 0);
	if (member->options.joined)
		member->options.joined(
			member->options.context, is_refusal(member, code) ? CAD_MEMBER_REFUSED : CAD_APART, text);
}

static void on_writable(struct cad_rpc_client_call *call)
{
	((struct cad_member *)cad_rpc_client_context(call))->full = false;
}

static const struct cad_rpc_client_handler handler = {
	.message = on_message,
	.writable = on_writable,
	.done = on_done,
};

/* Before the hello there is nothing to say: it reads the address itself. */
static void address_changed(void *context)
{
	struct cad_member *member = context;
	Cadre__V1__NodeReport report = CADRE__V1__NODE_REPORT__INIT;
	char now[CAD_EXCHANGE_ADDRESS_BYTES];

	if (!member->call || !member->greeted || member->leaving)
		return;
	cad_own_address_get(member->options.self.own_address, now);
	if (strcmp(now, member->exchange_address) == 0)
		return;
	memcpy(member->exchange_address, now, sizeof now);
	report.report_case = CADRE__V1__NODE_REPORT__REPORT_EXCHANGE_ADDRESS;
	report.exchange_address = member->exchange_address;
	send_or_cancel(member, &report);
}

static void send_challenge(struct cad_member *member)
{
	Cadre__V1__Challenge challenge = CADRE__V1__CHALLENGE__INIT;
	Cadre__V1__NodeReport report = CADRE__V1__NODE_REPORT__INIT;

	cad_proof_nonce(member->nonces.member);
	challenge.id = text_of(member->options.self.id);
	challenge.nonce = (ProtobufCBinaryData){ CAD_PROOF_BYTES, member->nonces.member };
	report.report_case = CADRE__V1__NODE_REPORT__REPORT_CHALLENGE;
	report.challenge = &challenge;
	send_or_cancel(member, &report);
}

static void attempt(uv_timer_t *timer)
{
	struct cad_member *member = timer->data;
	const struct cad_access *access = member->options.self.access;
	const struct cad_rpc_metadata header = { "authorization", access->bearer };
	const struct cad_rpc_call_options options = { .metadata = &header, .metadata_count = access->bearer != NULL };

	if (cad_rpc_stream(member->channel, JOIN_PATH, &cadre__v1__node_order__descriptor, &options, &handler, member,
		    &member->call) != CAD_OK) {
		member->call = NULL;
		uv_timer_start(&member->timer, attempt, DELAY_LAST_MS, 0);
		return;
	}

	member->proven = member->distrusted = member->greeted = member->full = false;
	if (member->options.self.secret)
		send_challenge(member);
	else
		send_hello(member);
}

enum cad_status cad_member_create(
	const struct cad_member_options *options, struct cad_member **out, struct cad_error *error)
{
	struct cad_member *member = calloc(1, sizeof *member);
	if (!member)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to join a cluster");

	*member = (struct cad_member){
		.options = *options,
		.delay_ms = DELAY_FIRST_MS,
		.random = { cad_clock_now_ns(&cad_clock_system) ^ (uint64_t)getpid() },
	};
	cad_settings_fingerprint(options->self.settings, member->settings_fingerprint);
	cad_settings_text(options->self.settings, member->settings_text);
	struct cad_rpc_channel_config config = {
		.keepalive_time_ms = 15000,
		.backoff_ms_max = CONNECT_EVERY_MS,
		.own_connection = true,
	};
	enum cad_status status = cad_rpc_channel_create(options->self.reactor, options->self.placement,
		options->self.access->tls, &config, &member->channel, error);
	if (status != CAD_OK) {
		free(member);
		return status;
	}

	if (options->self.own_address)
		cad_own_address_watch(options->self.own_address, options->self.reactor, address_changed, member);
	uv_timer_init(cad_rpc_reactor_loop(options->self.reactor), &member->timer);
	uv_timer_init(cad_rpc_reactor_loop(options->self.reactor), &member->second);
	member->timer.data = member->second.data = member;
	uv_timer_start(&member->timer, attempt, 0, 0);
	*out = member;

	return CAD_OK;
}

static void goodbye_late(uv_timer_t *timer)
{
	struct cad_member *member = timer->data;
	cad_rpc_client_cancel(member->call);
}

void cad_member_leave(struct cad_member *member, void (*closed)(void *context), void *context)
{
	member->leaving = true;
	member->closed = closed;
	member->closed_context = context;
	uv_timer_stop(&member->timer);
	uv_timer_stop(&member->second);

	/* closing the stream is the goodbye: the service takes this process off the map at once,
	 * and ends it */
	if (member->call && member->joined) {
		cad_rpc_client_close_send(member->call);
		uv_timer_start(&member->timer, goodbye_late, GOODBYE_MS, 0);
	} else if (member->call)
		cad_rpc_client_cancel(member->call);
	else
		uv_close((uv_handle_t *)&member->timer, timer_closed);
}

void cad_member_load(struct cad_member *member)
{
	if (member->joined && !member->leaving)
		send_load(member);
}

enum cad_status cad_member_report(struct cad_member *member, const Cadre__V1__NodeReport *report)
{
	return member->joined ? send_report(member, report) : CAD_AGAIN;
}

bool cad_member_has_room(const struct cad_member *member)
{
	return member->joined && !member->leaving && !member->full;
}
