/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the placement service takes from the checkpoint: its shape, its settings (the quantum table
 * among them) and the checksums of its experts.
 *
 * main() opens it before anything is served: the quantum table is computed once per checkpoint and
 * settings, which takes a moment, and kept in the state file. Checksums of experts are computed on
 * libuv's worker threads on request, a few at a time, that of what routers compute with from the
 * start; they are kept there too, as long as the files are the same: even the largest checkpoint is
 * read only once. All functions belong to the loop's thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_CHECKPOINT_H
#define CADRE_ORCHESTRATION_PLACEMENT_CHECKPOINT_H

#include "common/model/model.h"
#include "common/cluster/settings.h"
#include "orchestration/placement/shape.h"
#include "orchestration/placement/state.h"

struct uv_loop_s;
struct pl_checkpoint;

struct pl_checkpoint_options {
	const char *directory;
	const char *cluster;
	struct cad_settings settings; /* as asked for; layers and quanta are filled in */
	struct pl_state *state;       /* borrowed; claimed here */
	struct uv_loop_s *loop;       /* borrowed */
};

CAD_MUST_USE enum cad_status pl_checkpoint_open(
	const struct pl_checkpoint_options *options, struct pl_checkpoint **checkpoint, struct cad_error *error);
/* Called when a requested checksum is ready. */
void pl_checkpoint_on_checksum(
	struct pl_checkpoint *checkpoint, void (*ready)(void *context, uint32_t cell), void *context);
/* Waits for the worker that may be running. NULL is fine. */
void pl_checkpoint_close(struct pl_checkpoint *checkpoint);

const struct cad_model *pl_checkpoint_model(const struct pl_checkpoint *checkpoint);
const char *pl_checkpoint_fingerprint(const struct pl_checkpoint *checkpoint);
const struct cad_settings *pl_checkpoint_settings(const struct pl_checkpoint *checkpoint);
/* its layers live as long as the checkpoint */
struct pl_shape pl_checkpoint_shape(const struct pl_checkpoint *checkpoint);
/* of one expert: packed by a CPU; as it moves. 0 for a dense model */
uint64_t pl_checkpoint_expert_bytes(const struct pl_checkpoint *checkpoint);
uint64_t pl_checkpoint_image_bytes(const struct pl_checkpoint *checkpoint);

/* CAD_AGAIN: it is being computed, and `ready` will be called. The signature that control.h wants:
 * `context` is the checkpoint. */
enum cad_status pl_checkpoint_checksum(void *context, uint32_t cell, char hex[33]);
/* The same over what routers compute with (cad_model_router_checksum); nobody is called when it is
 * ready. */
enum cad_status pl_checkpoint_router_checksum(void *context, char hex[33]);

#endif
