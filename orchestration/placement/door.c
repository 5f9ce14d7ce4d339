/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/door.h"

#include "common/base/address.h"
#include "common/base/log.h"
#include "common/base/network.h"
#include "common/base/utf8.h"
#include "common/transport/exchange_address.h"
#include "orchestration/placement/probe.h"
#include "proto/cadre_wire.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

enum { SHOWN_BYTES = 61 }; /* of a text that is refused */

/* ---- the secret ---- */

static void name_guest(struct pl_guest *guest, const char *id)
{
	cad_utf8_copy(guest->id, sizeof guest->id, id);
	for (char *at = guest->id; (at = strchr(at, ' '));)
		*at = '?';
}

enum cad_status pl_door_challenge(const struct pl_door *door, struct pl_guest *guest,
	const Cadre__V1__Challenge *challenge, uint8_t mac[CAD_PROOF_BYTES], struct cad_error *error)
{
	name_guest(guest, challenge->id);
	if (!door->secret)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"'%s' has a cluster secret, and this placement service has none: start it with the same --secret-file",
			guest->id);
	if (guest->challenged || challenge->nonce.len != CAD_PROOF_BYTES)
		return cad_error_set(
			error, CAD_ERR_INVALID, "a challenge of '%s' comes twice, or is not one", guest->id);

	guest->challenged = true;
	memcpy(guest->nonces.member, challenge->nonce.data, CAD_PROOF_BYTES);
	cad_proof_nonce(guest->nonces.service);
	cad_proof_of_service(door->secret, &guest->nonces, door->cluster, mac);
	return CAD_OK;
}

static enum cad_status check_secret(
	const struct pl_door *door, struct pl_guest *guest, const Cadre__V1__NodeHello *hello, struct cad_error *error)
{
	uint8_t mac[CAD_PROOF_BYTES];

	if (!door->secret)
		return CAD_OK;
	guest->stranger = true;
	if (!guest->challenged)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"'%s' has no cluster secret, and this placement service asks for one: start '%s' with the same --secret-file",
			guest->id, guest->id);
	cad_proof_of_member(door->secret, &guest->nonces, hello, mac);
	if (!cad_proof_right(mac, hello->mac.data, hello->mac.len))
		return cad_error_set(error, CAD_ERR_REFUSED,
			"'%s' does not know the cluster secret of this placement service: give both the same --secret-file",
			guest->id);
	guest->stranger = false;
	return CAD_OK;
}

/* ---- texts ---- */

/* Any of them may come into a log, a refusal or the status. */
static enum cad_status check_text(
	const struct pl_guest *guest, const char *what, const char *text, struct cad_error *error)
{
	char shown[SHOWN_BYTES];

	if (cad_utf8_is_printable(text, strlen(text)))
		return CAD_OK;
	cad_utf8_copy(shown, sizeof shown, text);
	return cad_error_set(error, CAD_ERR_INVALID, "'%s' has characters that cannot be shown in its %s: '%s'",
		guest->id, what, shown);
}

static enum cad_status check_texts(
	const struct pl_guest *guest, const Cadre__V1__NodeHello *hello, struct cad_error *error)
{
	const struct {
		const char *what, *text;
	} texts[] = {
		{ "node id", hello->id },
		{ "cluster", hello->cluster },
		{ "HTTP address", hello->http_address },
		{ "gRPC address", hello->grpc_address },
		{ "version", hello->version },
		{ "isa", hello->isa },
		{ "model fingerprint", hello->model_fingerprint },
		{ "kernels fingerprint", hello->kernels_fingerprint },
		{ "settings fingerprint", hello->settings_fingerprint },
		{ "settings", hello->settings },
		{ "router checksum", hello->router_checksum },
	};
	enum cad_status status = CAD_OK;

	for (size_t i = 0; status == CAD_OK && i < sizeof texts / sizeof texts[0]; i++)
		status = check_text(guest, texts[i].what, texts[i].text, error);
	return status;
}

/* ---- addresses ---- */

static enum cad_status check_place(const char *exchange_address, struct cad_error *error)
{
	char place[CAD_ADDRESS_BYTES];
	struct cad_address address;

	cad_exchange_address_host(exchange_address, place);
	return cad_address_parse(place, &address, error);
}

/* UCX's form has three more parts; other links have HOST:PORT alone. A
 * router without a link has none. */
enum cad_status pl_door_exchange_address(const struct pl_guest *guest, const char *text, struct cad_error *error)
{
	struct cad_exchange_address address;
	enum cad_status status = check_text(guest, "exchange address", text, error);

	if (status != CAD_OK || !text[0])
		return status;
	if (strchr(text, '/'))
		status = cad_exchange_address_parse(text, &address, error);
	if (status == CAD_OK)
		status = check_place(text, error);
	return status == CAD_OK ? CAD_OK : cad_error_prefix(error, "exchange address of '%s'", guest->id);
}

static bool is_unspecified(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;
	return (inet_pton(AF_INET, host, &v4) == 1 && v4.s_addr == htonl(INADDR_ANY)) ||
		(inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6));
}

/* HTTP and gRPC addresses are for people: nobody in the cluster connects there, and many
 * listen on all interfaces. */
static enum cad_status check_address(
	const struct pl_guest *guest, const Cadre__V1__NodeHello *hello, const char *peer, struct cad_error *error)
{
	char place[CAD_ADDRESS_BYTES], host[CAD_ADDRESS_HOST_BYTES], peer_host[INET6_ADDRSTRLEN] = "";
	struct sockaddr_storage from;
	enum cad_status status = pl_door_exchange_address(guest, hello->exchange_address, error);

	if (status != CAD_OK || !hello->exchange_address[0] || !pl_probe_peer(peer, &from))
		return status;

	cad_exchange_address_host(hello->exchange_address, place);
	cad_address_host(place, host);
	if (is_unspecified(host))
		return cad_error_set(error, CAD_ERR_REFUSED,
			"'%s' gives %s as its exchange address, where nobody can connect: give it --exchange HOST:PORT with the address of one interface",
			guest->id, place);
	uv_ip_name((const struct sockaddr *)&from, peer_host, sizeof peer_host);
	if (cad_address_is_here(peer_host) || !cad_address_is_loopback(place))
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_REFUSED,
		"'%s' joins from %s but gives %s as its exchange address, which no other machine can reach: give it --exchange HOST:PORT with its address in the cluster's network",
		guest->id, peer_host, place);
}

/* ---- libraries ---- */

/* The library of a process's exchange address; "" for links that have none. */
static void library_of(const char *text, char library[CAD_EXCHANGE_LIBRARY_BYTES])
{
	struct cad_exchange_address address;
	struct cad_error ignored;
	library[0] = 0;
	if (strchr(text, '/') && cad_exchange_address_parse(text, &address, &ignored) == CAD_OK)
		memcpy(library, address.library, CAD_EXCHANGE_LIBRARY_BYTES);
}

/* Two that do not work together can end each other's processes, so one of them stays outside. */
static enum cad_status check_library(const struct pl_guest *guest, const Cadre__V1__NodeHello *hello,
	const struct pl_registry *registry, struct cad_error *error)
{
	char ours[CAD_EXCHANGE_LIBRARY_BYTES], theirs[CAD_EXCHANGE_LIBRARY_BYTES];

	library_of(hello->exchange_address, theirs);

	for (uint32_t slot = 0; theirs[0] && slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &registry->nodes[slot];
		if ((node->presence != PL_LIVE && node->presence != PL_BROKEN) || strcmp(node->id, hello->id) == 0)
			continue;
		library_of(node->exchange_address, ours);
		if (ours[0] && !cad_exchange_libraries_work(theirs, ours))
			return cad_error_set(error, CAD_ERR_REFUSED,
				"'%s' has %s and '%s' has %s, which are not known to work together: install the same version",
				guest->id, theirs, node->id, ours);
	}
	return CAD_OK;
}

enum cad_status pl_door_hello(const struct pl_door *door, struct pl_guest *guest, const Cadre__V1__NodeHello *hello,
	const char *peer, const struct pl_registry *registry, struct cad_error *error)
{
	name_guest(guest, hello->id);
	enum cad_status status = check_secret(door, guest, hello, error);
	if (status == CAD_OK)
		status = check_texts(guest, hello, error);
	if (status != CAD_OK)
		return status;

	if (hello->role != CADRE__V1__ROLE__ROLE_ROUTER && hello->role != CADRE__V1__ROLE__ROLE_EXPERT)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the hello of '%s' names no role: ROLE_ROUTER or ROLE_EXPERT is needed", guest->id);
	if (hello->cluster[0] && strcmp(hello->cluster, door->cluster) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"'%s' belongs to cluster '%.60s', and this is the placement service of '%.60s': check --placement",
			guest->id, hello->cluster, door->cluster);
	if (hello->exchange_version != CADRE_WIRE_VERSION)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"'%s' speaks version %u of the token exchange, this cluster version %u: run the same release everywhere",
			guest->id, hello->exchange_version ? hello->exchange_version : 1, CADRE_WIRE_VERSION);
	status = check_address(guest, hello, peer, error);
	return status == CAD_OK ? check_library(guest, hello, registry, error) : status;
}

/* ---- who was refused ---- */

static struct pl_refusal *find_refusal(struct pl_door *door, const char *id)
{
	for (int i = 0; i < PL_REFUSALS_MAX; i++)
		if (door->refusals[i].last_ns && strcmp(door->refusals[i].id, id) == 0)
			return &door->refusals[i];
	return NULL;
}

/* What a stranger wrote is cut to size, and must be text that can be shown:
 * one message has all of it. */
bool pl_door_remember(struct pl_door *door, const char *id_said, const char *why_said, uint64_t now_ns)
{
	char id[CAD_MAP_ID_BYTES], why[CAD_ERROR_TEXT_BYTES];
	cad_utf8_copy(id, sizeof id, id_said);
	cad_utf8_copy(why, sizeof why, why_said);
	struct pl_refusal *refusal = find_refusal(door, id);
	bool known = refusal && strcmp(refusal->why, why) == 0 && now_ns < refusal->last_ns + PL_REFUSAL_SHOWN_NS;

	for (int i = 0; !refusal && i < PL_REFUSALS_MAX; i++)
		if (door->refusals[i].last_ns == 0)
			refusal = &door->refusals[i];
	if (!refusal) {
		refusal = &door->refusals[0];
		for (int i = 1; i < PL_REFUSALS_MAX; i++)
			if (door->refusals[i].last_ns < refusal->last_ns)
				refusal = &door->refusals[i];
	}

	if (!known) {
		*refusal = (struct pl_refusal){ .last_ns = 0 };
		memcpy(refusal->id, id, sizeof id);
		memcpy(refusal->why, why, sizeof why);
	}
	refusal->times++;
	refusal->last_ns = now_ns ? now_ns : 1;
	return !known;
}

void pl_door_refused(struct pl_door *door, const char *id, const char *why, uint64_t now_ns)
{
	if (pl_door_remember(door, id, why, now_ns))
		cad_log_warn("placement", "refused", CAD_S("node", id), CAD_S("why", why));
}

void pl_door_forget(struct pl_door *door, const char *id)
{
	struct pl_refusal *refusal = find_refusal(door, id);
	if (refusal)
		*refusal = (struct pl_refusal){ 0 };
}
