/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the placement service must not forget: the epoch, the nodes and what they hold, the quantum
 * table, the checksums of the checkpoint. SQLite.
 *
 * Every change is a transaction: a process that is killed at any instant finds the file as it was
 * before or after one, never between. The file is opened for exclusive use, so that two services
 * cannot share it. One thread; calls block on the disk (a commit waits for it).
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_STATE_H
#define CADRE_ORCHESTRATION_PLACEMENT_STATE_H

#include "common/base/status.h"
#include "orchestration/placement/registry.h"

struct pl_state;

/*
 * Creates the file if it does not exist; path "" keeps everything in memory. A file of an older
 * format is brought up to date. All of it is read: one that is damaged is renamed (F.damaged-TIME),
 * and another one begun; pl_state_loss says so. CAD_ERR_IO: it cannot be opened, or another service
 * has it. CAD_ERR_UNSUPPORTED: a newer format, or a database of another program; it is left as it
 * is. CAD_ERR_CORRUPT: damaged, and it cannot be renamed.
 */
CAD_MUST_USE enum cad_status pl_state_open(const char *path, struct pl_state **state, struct cad_error *error);
void pl_state_close(struct pl_state *state); /* NULL is fine */
/* "" or a sentence: the file was damaged, and what it is called now. */
const char *pl_state_loss(const struct pl_state *state);

/*
 * The state belongs to one cluster and one checkpoint: the first call records both, later ones
 * compare (CAD_ERR_INVALID and a sentence). If the settings' fingerprint differs from last time,
 * what nodes hold is forgotten, and `fresh` is set.
 */
CAD_MUST_USE enum cad_status pl_state_claim(
	struct pl_state *state, const char *cluster, const char *model_fingerprint, struct cad_error *error);
CAD_MUST_USE enum cad_status pl_state_settings(
	struct pl_state *state, const char *settings_fingerprint, bool *fresh, struct cad_error *error);

/* The checksums of experts are those of certain files (cad_model_files, and how weights are
 * rounded): of these, as far as is known? Putting others than before forgets them. */
bool pl_state_has_files(struct pl_state *state, const char *files);
CAD_MUST_USE enum cad_status pl_state_put_files(struct pl_state *state, const char *files, struct cad_error *error);

/* The quantum table under a key that names everything it depends on. CAD_ERR_NOT_FOUND: none of
 * that key and length. */
CAD_MUST_USE enum cad_status pl_state_quanta_load(
	struct pl_state *state, const char *key, float *quanta, uint32_t layers);
CAD_MUST_USE enum cad_status pl_state_quanta_store(
	struct pl_state *state, const char *key, const float *quanta, uint32_t layers, struct cad_error *error);
/* The checksum of one expert of the checkpoint: CAD_ERR_NOT_FOUND when none was put. */
CAD_MUST_USE enum cad_status pl_state_checksum(struct pl_state *state, uint32_t layer, uint32_t expert, char hex[33]);

/* The same of what routers compute with. */
CAD_MUST_USE enum cad_status pl_state_router_checksum(struct pl_state *state, char hex[33]);

uint64_t pl_state_epoch(struct pl_state *state); /* of the last map that was published; 0: none */
/* The kernels' fingerprint that experts are placed under; "" if there is none yet. */
void pl_state_kernels(struct pl_state *state, char text[PL_TEXT_BYTES]);

/* Everything that is remembered, nodes first. The hello's strings live during the call. */
struct pl_state_reader {
	void (*node)(void *context, const struct pl_hello *hello);
	void (*held)(void *context, const char *id, uint32_t layer, uint32_t expert);
	void *context;
};
CAD_MUST_USE enum cad_status pl_state_read(
	struct pl_state *state, const struct pl_state_reader *reader, struct cad_error *error);

/* One transaction: begin, any number of changes, commit. Changes report nothing; commit fails when
 * any of them did, and then nothing has changed. */
void pl_state_begin(struct pl_state *state);
void pl_state_put_epoch(struct pl_state *state, uint64_t epoch);
void pl_state_put_kernels(struct pl_state *state, const char *text);
void pl_state_put_node(struct pl_state *state, const struct pl_node *node);
void pl_state_delete_node(struct pl_state *state, const char *id); /* and what it holds */
void pl_state_put_held(struct pl_state *state, const char *id, uint32_t layer, uint32_t expert, bool held);
void pl_state_put_checksum(struct pl_state *state, uint32_t layer, uint32_t expert, const char *hex);
void pl_state_put_router_checksum(struct pl_state *state, const char *hex);
CAD_MUST_USE enum cad_status pl_state_commit(struct pl_state *state, struct cad_error *error);

#endif
