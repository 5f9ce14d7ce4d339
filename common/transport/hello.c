/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hello: who is who, the same cluster, model and settings, and, when there is a secret, that
 * both know it.
 *
 *   client                                   server
 *   HELLO(identity, nonce)            ->     compares; else REFUSE
 *   compares, checks            <-           CHALLENGE(identity, nonce, mac)
 *   PROOF(mac)                        ->     checks; else REFUSE
 *   READY                       <-           WELCOME(session, credits, mac)
 *
 * Every mac is HMAC-SHA-256 under the secret over a label of its own, both nonces and both
 * identities, so that none can be replayed, reflected or carried to another pair. A REFUSE says why
 * in a sentence and leaves the connection open until the peer goes: a forced close could overtake
 * it.
 */
#include "common/base/utf8.h"
#include "common/transport/protocol.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

_Static_assert(CADRE_MAC_BYTES == crypto_auth_hmacsha256_BYTES, "the wire's mac is HMAC-SHA-256");

enum { MAC_LABEL_BYTES = 16 };
static const char MAC_SERVER[MAC_LABEL_BYTES] = "cadre server", MAC_CLIENT[MAC_LABEL_BYTES] = "cadre client",
		  MAC_WELCOME[MAC_LABEL_BYTES] = "cadre welcome";

static void mac_of(const struct cad_connection *c, const char label[MAC_LABEL_BYTES], const void *extra,
	size_t extra_bytes, uint8_t mac[CADRE_MAC_BYTES])
{
	const struct cad_transport *t = c->transport;
	memset(mac, 0, CADRE_MAC_BYTES);
	if (!t->secret)
		return;
	const struct cadre_wire_identity *own = &t->options.identity;
	crypto_auth_hmacsha256_state state;
	crypto_auth_hmacsha256_init(&state, (const unsigned char *)t->secret, t->secret_bytes);
	crypto_auth_hmacsha256_update(&state, (const unsigned char *)label, MAC_LABEL_BYTES);
	crypto_auth_hmacsha256_update(&state, c->nonce_client, CADRE_NONCE_BYTES);
	crypto_auth_hmacsha256_update(&state, c->nonce_server, CADRE_NONCE_BYTES);
	crypto_auth_hmacsha256_update(&state, (const unsigned char *)(c->server ? &c->peer : own), sizeof *own);
	crypto_auth_hmacsha256_update(&state, (const unsigned char *)(c->server ? own : &c->peer), sizeof *own);
	crypto_auth_hmacsha256_update(&state, extra, extra_bytes);
	crypto_auth_hmacsha256_final(&state, mac);
}

/* Without a secret here every mac is as good as another; a peer that has one checks ours. */
static bool mac_right(const struct cad_connection *c, const char label[MAC_LABEL_BYTES], const void *extra,
	size_t extra_bytes, const uint8_t mac[CADRE_MAC_BYTES])
{
	uint8_t want[CADRE_MAC_BYTES];
	mac_of(c, label, extra, extra_bytes, want);
	return !c->transport->secret || sodium_memcmp(want, mac, CADRE_MAC_BYTES) == 0;
}

void cad_connection_refuse(struct cad_connection *c, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(c->text, sizeof c->text, format, arguments);
	va_end(arguments);
	c->status = CAD_ERR_REFUSED;
	c->phase = CAD_PHASE_REFUSING;
	c->phase_awake_ns = c->transport->awake_ns;
	struct cad_notice *message = cad_notice_get(c, CADRE_WIRE_REFUSE);
	if (!message) {
		cad_connection_fail(c, CAD_ERR_REFUSED, "%s", c->text);
		return;
	}

	size_t bytes = cad_utf8_whole(c->text, strnlen(c->text, CADRE_TEXT_BYTES - 1));
	memcpy(message->message.refuse.text, c->text, bytes);
	cad_notice_send(message, sizeof message->message.refuse);
}

/* Names from the wire end somewhere (cad_wire_header_check) but hold any bytes; what is printed is
 * printable. */
static void identity_clean(struct cadre_wire_identity *identity)
{
	char *bytes = (char *)identity;
	for (size_t i = 0; i < sizeof *identity; i++)
		if (((unsigned char)bytes[i] < ' ' && bytes[i] != 0) || bytes[i] == 0x7f)
			bytes[i] = '?';
}

static bool identities_match(struct cad_connection *c)
{
	const struct cadre_wire_identity *own = &c->transport->options.identity, *peer = &c->peer;
	if (strcmp(own->cluster, peer->cluster) != 0)
		cad_connection_refuse(c,
			"'%s' belongs to cluster '%s' and '%s' to cluster '%s': check the addresses, or give both the same cluster id",
			own->node, own->cluster, peer->node, peer->cluster);
	else if (strcmp(own->model, peer->model) != 0)
		cad_connection_refuse(c,
			"'%s' serves model %s and '%s' model %s: start both with the same model directory", own->node,
			own->model, peer->node, peer->model);
	else if (strcmp(own->settings, peer->settings) != 0)
		cad_connection_refuse(c, "settings of '%s': %.80s (%.12s); of '%s': %.80s (%.12s): make them equal",
			own->node, own->settings_text, own->settings, peer->node, peer->settings_text, peer->settings);
	else
		return true;
	return false;
}

void cad_hello_start(struct cad_connection *c)
{
	struct cad_notice *message = cad_notice_get(c, CADRE_WIRE_HELLO);
	if (!message) {
		cad_connection_fail(
			c, CAD_ERR_EXHAUSTED, "no room for a hello: too many connections are being opened at once");
		return;
	}
	randombytes_buf(c->nonce_client, CADRE_NONCE_BYTES);
	message->message.hello.identity = c->transport->options.identity;
	memcpy(message->message.hello.nonce, c->nonce_client, CADRE_NONCE_BYTES);
	cad_notice_send(message, sizeof message->message.hello);
}

static void hello_arrived(struct cad_connection *c, const struct cadre_wire_hello *hello)
{
	c->peer = hello->identity;
	identity_clean(&c->peer);
	if (!identities_match(c))
		return;
	if (c->surplus) {
		cad_connection_refuse(c, "'%s' has no room: %u processes are connected: raise its --connections-max",
			c->transport->options.identity.node, c->transport->options.connections_max);
		return;
	}

	c->peer = hello->identity; /* as sent: the mac covers these bytes */
	memcpy(c->nonce_client, hello->nonce, CADRE_NONCE_BYTES);
	randombytes_buf(c->nonce_server, CADRE_NONCE_BYTES);
	struct cad_notice *message = cad_notice_get(c, CADRE_WIRE_CHALLENGE);
	if (!message) {
		cad_connection_fail(
			c, CAD_ERR_EXHAUSTED, "no room for a challenge: too many connections are being opened at once");
		return;
	}

	struct cadre_wire_challenge *challenge = &message->message.challenge;
	challenge->identity = c->transport->options.identity;
	memcpy(challenge->nonce, c->nonce_server, CADRE_NONCE_BYTES);
	mac_of(c, MAC_SERVER, NULL, 0, challenge->mac);
	c->phase = CAD_PHASE_PROOF;
	cad_notice_send(message, sizeof *challenge);
}

static void challenge_arrived(struct cad_connection *c, const struct cadre_wire_challenge *challenge)
{
	c->peer = challenge->identity;
	memcpy(c->nonce_server, challenge->nonce, CADRE_NONCE_BYTES);
	bool right = mac_right(c, MAC_SERVER, NULL, 0, challenge->mac);
	struct cadre_wire_identity as_sent = c->peer;
	identity_clean(&c->peer);

	if (!right) {
		cad_connection_refuse(c, "'%s' does not know the cluster secret of '%s': give both the same secret",
			c->peer.node, c->transport->options.identity.node);
		return;
	}

	if (!identities_match(c))
		return;
	c->peer = as_sent;
	struct cad_notice *message = cad_notice_get(c, CADRE_WIRE_PROOF);
	if (!message) {
		cad_connection_fail(
			c, CAD_ERR_EXHAUSTED, "no room for a proof: too many connections are being opened at once");
		return;
	}

	mac_of(c, MAC_CLIENT, NULL, 0, message->message.proof.mac);
	c->phase = CAD_PHASE_PROOF;
	cad_notice_send(message, sizeof message->message.proof);
}

static void connection_ready(struct cad_connection *c)
{
	identity_clean(&c->peer); /* no mac is needed any longer */
	c->phase = CAD_PHASE_READY;
	c->transport->stats.connections_opened++;
	cad_transport_event(c->transport, &c->ready);
}

static const size_t GRANT_BYTES =
	offsetof(struct cadre_wire_welcome, mac) - offsetof(struct cadre_wire_welcome, session);

static void proof_arrived(struct cad_connection *c, const struct cadre_wire_proof *proof)
{
	const struct cad_transport_options *o = &c->transport->options;
	if (!mac_right(c, MAC_CLIENT, NULL, 0, proof->mac)) {
		identity_clean(&c->peer);
		cad_connection_refuse(c, "'%s' does not know the cluster secret of '%s': give both the same secret",
			c->peer.node, o->identity.node);
		return;
	}

	struct cad_notice *message = cad_notice_get(c, CADRE_WIRE_WELCOME);
	if (!message) {
		cad_connection_fail(
			c, CAD_ERR_EXHAUSTED, "no room for a welcome: too many connections are being opened at once");
		return;
	}

	while (c->session == 0)
		randombytes_buf(&c->session, sizeof c->session);
	c->credit_calls = o->credit_calls < o->calls_max ? o->credit_calls : o->calls_max;

	/* one call must always fit */
	c->credit_bytes = o->credit_bytes > o->limits.payload_bytes_max ? o->credit_bytes : o->limits.payload_bytes_max;
	c->rows_max = o->limits.rows_max;
	struct cadre_wire_welcome *welcome = &message->message.welcome;
	welcome->session = c->session;
	welcome->credit_calls = c->credit_calls;
	welcome->credit_bytes = c->credit_bytes;
	welcome->rows_max = c->rows_max;
	mac_of(c, MAC_WELCOME, &welcome->session, GRANT_BYTES, welcome->mac);
	connection_ready(c);
	cad_notice_send(message, sizeof *welcome);
}

static void welcome_arrived(struct cad_connection *c, const struct cadre_wire_welcome *welcome)
{
	if (!mac_right(c, MAC_WELCOME, &welcome->session, GRANT_BYTES, welcome->mac)) {
		cad_connection_break(c, "%s: its welcome was not made with the cluster secret", cad_connection_name(c));
		return;
	}

	if (welcome->session == 0 || welcome->credit_calls == 0 || welcome->credit_bytes == 0 ||
		welcome->rows_max == 0) {
		cad_connection_break(c, "%s: a welcome without session or credit", cad_connection_name(c));
		return;
	}

	c->session = welcome->session;
	c->credit_calls = welcome->credit_calls;
	c->credit_bytes = welcome->credit_bytes;
	c->rows_max = welcome->rows_max;
	connection_ready(c);
}

static void refusal_arrived(struct cad_connection *c, struct cadre_wire_refuse *refusal)
{
	for (char *at = refusal->text; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
	cad_connection_fail(c, CAD_ERR_REFUSED, "refused: %s", refusal->text);
}

void cad_hello_message(struct cad_connection *c, uint8_t kind, const void *header)
{
	union {
		struct cadre_wire_hello hello;
		struct cadre_wire_challenge challenge;
		struct cadre_wire_proof proof;
		struct cadre_wire_welcome welcome;
		struct cadre_wire_refuse refuse;
	} message;
	memcpy(&message, header, cad_wire_header_bytes(kind));
	if (kind == CADRE_WIRE_HELLO && c->server && c->phase == CAD_PHASE_HELLO)
		hello_arrived(c, &message.hello);
	else if (kind == CADRE_WIRE_CHALLENGE && !c->server && c->phase == CAD_PHASE_HELLO)
		challenge_arrived(c, &message.challenge);
	else if (kind == CADRE_WIRE_PROOF && c->server && c->phase == CAD_PHASE_PROOF)
		proof_arrived(c, &message.proof);
	else if (kind == CADRE_WIRE_WELCOME && !c->server && c->phase == CAD_PHASE_PROOF)
		welcome_arrived(c, &message.welcome);
	else if (kind == CADRE_WIRE_REFUSE && c->phase != CAD_PHASE_READY)
		refusal_arrived(c, &message.refuse);
	else
		cad_connection_break(c, "%s: %s out of turn", cad_connection_name(c), cad_wire_kind_name(kind));
}
