/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/settings_message.h"

#include "cadre/v1/types.pb-c.h"
#include "common/base/limits.h"
#include "proto/cadre_wire.h"

#include <string.h>

void cad_settings_to_proto(
	const struct cad_settings *settings, struct cad_settings_storage *storage, Cadre__V1__Settings *message)
{
	cad_settings_fingerprint(settings, storage->fingerprint);
	cadre__v1__settings__init(message);
	message->profile = (char *)cad_profile_name(settings->profile);
	message->router_profile = (char *)cad_profile_name(settings->router_profile);
	message->wire = (char *)cad_wire_name(settings->wire);
	message->weights = (char *)cad_weights_name(settings->weights);
	message->kv = (char *)cad_kv_name(settings->kv);
	message->n_quanta = settings->layers;
	message->quanta = settings->quanta;
	message->fingerprint = storage->fingerprint;
	message->exchange_version = CADRE_WIRE_VERSION;
}

enum cad_status cad_settings_from_proto(
	const Cadre__V1__Settings *message, struct cad_settings *settings, struct cad_error *error)
{
	struct cad_settings said = { .layers = (uint32_t)message->n_quanta, .quanta = message->quanta }, made;

	/* a placement service of an earlier release would let this process
	 * join, and nobody reach it */
	if (message->exchange_version != CADRE_WIRE_VERSION)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"the placement service belongs to a release with version %u of the token exchange, and this program speaks version %d: run the same release everywhere",
			message->exchange_version ? message->exchange_version : 1, CADRE_WIRE_VERSION);
	if (cad_profile_parse(message->profile, &said.profile) != CAD_OK)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the cluster uses the numerics profile '%s', which this program does not know",
			message->profile);
	if (cad_profile_parse(message->router_profile, &said.router_profile) != CAD_OK)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the cluster's routers use the numerics profile '%s', which this program does not know",
			message->router_profile);
	if (cad_wire_parse(message->wire, &said.wire) != CAD_OK)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the cluster uses the wire '%s', which this program does not know", message->wire);
	if (cad_weights_parse(message->weights, &said.weights) != CAD_OK)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the cluster keeps weights as '%s', which this program does not know", message->weights);
	if (cad_kv_parse(message->kv, &said.kv) != CAD_OK)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the cluster keeps keys and values as '%s', which this program does not know", message->kv);
	if (message->n_quanta > CAD_LAYERS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "the quantum table has %zu layers; a model has at most %d",
			message->n_quanta, CAD_LAYERS_MAX);
	enum cad_status status = cad_settings_init(&made, &said, error);
	if (status != CAD_OK)
		return status;
	char fingerprint[33];
	cad_settings_fingerprint(&made, fingerprint);

	if (strcmp(fingerprint, message->fingerprint) != 0) {
		cad_settings_fini(&made);
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"the cluster's settings name fingerprint '%s', but their own is %s: the programs are different versions",
			message->fingerprint, fingerprint);
	}

	*settings = made;
	return CAD_OK;
}

/* Zero padded, always terminated. */
static void put(char *to, size_t bytes, const char *text)
{
	memset(to, 0, bytes);
	memcpy(to, text, strnlen(text, bytes - 1));
}

void cad_identity_fill(struct cadre_wire_identity *identity, const char *cluster, const char *node,
	const char *model_fingerprint, const struct cad_settings *settings)
{
	char hex[33], text[CADRE_TEXT_BYTES];
	cad_settings_fingerprint(settings, hex);
	cad_settings_text(settings, text);
	put(identity->cluster, sizeof identity->cluster, cluster);
	put(identity->node, sizeof identity->node, node);
	put(identity->model, sizeof identity->model, model_fingerprint);
	put(identity->settings, sizeof identity->settings, hex);
	put(identity->settings_text, sizeof identity->settings_text, text);
}
