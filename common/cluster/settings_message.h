/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How processes tell each other their settings: as a message to and from the placement service, and
 * in the identity that the two sides of an exchange's connection compare. Functions of their
 * arguments; from_proto allocates a table.
 */
#ifndef CADRE_COMMON_CLUSTER_SETTINGS_MESSAGE_H
#define CADRE_COMMON_CLUSTER_SETTINGS_MESSAGE_H

#include "common/cluster/settings.h"

/* cadre.v1.Settings. to_proto fills a message (strings and table borrowed from `storage` and
 * `settings`); from_proto checks the fingerprint against the rest. */
struct Cadre__V1__Settings;
struct cad_settings_storage {
	char fingerprint[33];
};
void cad_settings_to_proto(
	const struct cad_settings *settings, struct cad_settings_storage *storage, struct Cadre__V1__Settings *message);
CAD_MUST_USE enum cad_status cad_settings_from_proto(
	const struct Cadre__V1__Settings *message, struct cad_settings *settings, struct cad_error *error);

/* Fills the parts of an identity: names cut to size, fingerprints, the readable settings. */
void cad_identity_fill(struct cadre_wire_identity *identity, const char *cluster, const char *node,
	const char *model_fingerprint, const struct cad_settings *settings);

#endif
