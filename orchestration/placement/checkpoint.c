/* SPDX-License-Identifier: Apache-2.0 */
/* Shape, settings and checksums of the checkpoint. */
#include "orchestration/placement/checkpoint.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernels/packed.h"
#include "kernels/quantum.h"
#include "kernels/source.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define COMPONENT "placement"

enum { BATCH = 16 }; /* checksums of one visit to a worker thread: between two visits the queue may change */

struct pl_checkpoint {
	struct pl_state *state;
	uv_loop_t *loop;
	struct cad_model *model;
	char fingerprint[33];
	struct cad_settings settings;
	uint32_t *layers;
	struct pl_shape shape;
	uint64_t expert_bytes, image_bytes;
	void (*ready)(void *context, uint32_t cell);
	void *ready_context;
	char (*checksums)[33]; /* [cells]; "" while unknown */
	uint8_t *asked;        /* [cells] */
	uint32_t asked_from;   /* no lower cell is asked for */
	bool working;
	uv_work_t work; /* the batch belongs to the worker thread while `working` */
	uint32_t batch[BATCH];
	char batch_hex[BATCH][33];
	uint32_t batch_count;
	/* of what routers compute with; the worker thread's while `router_working` */
	uv_work_t router_work;
	uint8_t (*router_parts)[CAD_DIGEST_BYTES];
	uint64_t router_ns;
	char router_hex[33], router_checksum[33]; /* computed; known, or "" */
	bool router_working;
	_Atomic bool closing;
};

/* ---- what it is ---- */

static enum cad_status read_shape(struct pl_checkpoint *checkpoint, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(checkpoint->model);
	uint32_t moe_layers = cad_model_spec_moe_layers(spec);

	checkpoint->layers = malloc((moe_layers + 1) * sizeof *checkpoint->layers);
	if (!checkpoint->layers)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the shape of the model");
	uint32_t count = 0;
	for (uint32_t layer = 0; layer < spec->layers_count; layer++)
		if (spec->layers[layer].moe)
			checkpoint->layers[count++] = layer;
	checkpoint->shape = (struct pl_shape){ checkpoint->layers, count, count ? spec->gate.experts : 0 };
	uint32_t cells = pl_shape_cells(&checkpoint->shape);
	checkpoint->checksums = calloc(cells + 1u, sizeof *checkpoint->checksums);
	checkpoint->asked = calloc(cells + 1u, 1);
	if (!checkpoint->checksums || !checkpoint->asked)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u checksums", cells);
	return CAD_OK;
}

static enum cad_status compute_quanta(struct pl_checkpoint *checkpoint, struct kn_device *device,
	const struct cad_settings *settings, struct cad_error *error)
{
	struct kn_queue *queue;
	uint64_t start_ns = cad_clock_now_ns(&cad_clock_system);
	enum cad_status status = device->ops->queue_create(device, kn_threads_default(), &queue);

	if (status != CAD_OK)
		return cad_error_set(error, status, "cannot start threads to compute the quantum table");

	cad_log_info(COMPONENT, "computing the quantum table", CAD_U("layers", checkpoint->shape.layers_count));
	status = kn_quantum_table(queue, checkpoint->model, cad_settings_expert_weights(settings), settings->wire,
		settings->quanta, error);
	if (status == CAD_OK)
		cad_log_info(COMPONENT, "quantum table",
			CAD_F("seconds", (double)(cad_clock_now_ns(&cad_clock_system) - start_ns) * 1e-9));
	device->ops->queue_destroy(queue);

	return status;
}

/* The quantum table, from the state file or computed and put there; and what an expert takes. */
static enum cad_status ask_device(
	struct pl_checkpoint *checkpoint, const struct cad_settings *settings, struct cad_error *error)
{
	enum cad_weights weights = cad_settings_expert_weights(settings);
	struct kn_device *device;
	char key[128];
	enum cad_status status = kn_packed_check_experts(checkpoint->model, weights, error);

	if (status == CAD_OK)
		status = kn_device_open(&(struct kn_device_options){ 0 }, &device, error);
	if (status != CAD_OK)
		return status;

	snprintf(key, sizeof key, "%s %s %s %s", checkpoint->fingerprint, cad_profile_name(settings->profile),
		cad_wire_name(settings->wire), cad_weights_name(weights));
	checkpoint->expert_bytes = kn_expert_bytes(device, checkpoint->model, weights);
	checkpoint->image_bytes = kn_expert_image_bytes(checkpoint->model, weights);
	if (checkpoint->shape.layers_count > 0 &&
		pl_state_quanta_load(checkpoint->state, key, settings->quanta, settings->layers) != CAD_OK) {
		status = compute_quanta(checkpoint, device, settings, error);
		if (status == CAD_OK)
			status = pl_state_quanta_store(
				checkpoint->state, key, settings->quanta, settings->layers, error);
	}

	device->ops->destroy(device);
	return status;
}

static enum cad_status make_settings(
	struct pl_checkpoint *checkpoint, const struct pl_checkpoint_options *options, struct cad_error *error)
{
	struct cad_settings settings = options->settings;
	enum cad_status status = cad_settings_complete(&settings, error);

	if (status != CAD_OK)
		return status;

	settings.layers = cad_model_spec(checkpoint->model)->layers_count;
	settings.quanta = calloc(settings.layers + 1u, sizeof *settings.quanta);
	if (!settings.quanta)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the quantum table");

	status = ask_device(checkpoint, &settings, error);
	if (status == CAD_OK)
		status = cad_settings_init(&checkpoint->settings, &settings, error);
	free(settings.quanta);
	if (status != CAD_OK)
		return status;
	char fingerprint[33], text[CADRE_TEXT_BYTES];
	bool fresh;
	cad_settings_fingerprint(&checkpoint->settings, fingerprint);
	cad_settings_text(&checkpoint->settings, text);
	status = pl_state_settings(options->state, fingerprint, &fresh, error);
	if (status == CAD_OK)
		cad_log_info(COMPONENT, "settings", CAD_S("settings", text), CAD_S("fingerprint", fingerprint),
			CAD_B("new", fresh));

	return status;
}

/* ---- what routers compute with ---- */

static void compute_router(uv_work_t *work)
{
	struct pl_checkpoint *checkpoint = work->data;
	uint64_t start_ns = cad_clock_now_ns(&cad_clock_system);

	for (uint32_t i = 0; i < cad_model_router_parts(checkpoint->model) && !atomic_load(&checkpoint->closing); i++)
		cad_model_router_part(checkpoint->model, i, checkpoint->router_parts[i]);
	cad_model_router_checksum(checkpoint->model, (const uint8_t(*)[CAD_DIGEST_BYTES])checkpoint->router_parts,
		checkpoint->router_hex);
	checkpoint->router_ns = cad_clock_now_ns(&cad_clock_system) - start_ns;
}

static void router_done(uv_work_t *work, int status)
{
	struct pl_checkpoint *checkpoint = work->data;
	struct cad_error error;

	(void)status; /* nobody cancels it */
	checkpoint->router_working = false;
	if (atomic_load(&checkpoint->closing))
		return;

	memcpy(checkpoint->router_checksum, checkpoint->router_hex, sizeof checkpoint->router_checksum);
	cad_log_info(COMPONENT, "checksum of what routers compute with", CAD_S("checksum", checkpoint->router_checksum),
		CAD_U("bytes", cad_model_sizes(checkpoint->model).router),
		CAD_F("seconds", (double)checkpoint->router_ns * 1e-9));
	pl_state_begin(checkpoint->state);
	pl_state_put_router_checksum(checkpoint->state, checkpoint->router_checksum);
	if (pl_state_commit(checkpoint->state, &error) != CAD_OK)
		cad_log_warn(COMPONENT, "cannot save the checksums; a restart will compute them again",
			CAD_S("error", error.text));
}

/* The files are others, and what the cluster's nodes and routers hold is of those before: the same,
 * only copied or touched? That has to be known before anybody joins. */
static enum cad_status compare_files(struct pl_checkpoint *checkpoint, const char *before, struct cad_error *error)
{
	cad_log_warn(COMPONENT,
		"the checkpoint's files, or how they are rounded, are not those of last time; reading what routers compute with",
		CAD_U("bytes", cad_model_sizes(checkpoint->model).router));
	compute_router(&checkpoint->router_work);
	if (strcmp(checkpoint->router_hex, before) == 0)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_INVALID,
		"the state file belongs to other weights: all but routed experts had the checksum '%s', and has '%s' in '%s': use another --state, or the files of before",
		before, checkpoint->router_hex, cad_model_directory(checkpoint->model));
}

/* From the state file if they are of these files, else begun. */
static enum cad_status find_checksums(struct pl_checkpoint *checkpoint, struct cad_error *error)
{
	char files[64], before[33];
	enum cad_status status = CAD_OK;

	checkpoint->router_work.data = checkpoint;
	checkpoint->router_parts = calloc(cad_model_router_parts(checkpoint->model), sizeof *checkpoint->router_parts);
	if (!checkpoint->router_parts)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for checksums");

	cad_model_files(checkpoint->model, files);
	enum cad_weights weights = cad_settings_expert_weights(&checkpoint->settings);
	if (weights != CAD_WEIGHTS_AS_IS) /* images are others then */
		snprintf(files + strlen(files), sizeof files - strlen(files), " %s", cad_weights_name(weights));
	bool known = pl_state_router_checksum(checkpoint->state, before) == CAD_OK;
	if (known && !pl_state_has_files(checkpoint->state, files))
		status = compare_files(checkpoint, before, error);
	if (status == CAD_OK)
		status = pl_state_put_files(checkpoint->state, files, error);
	if (status != CAD_OK)
		return status;
	if (known) {
		memcpy(checkpoint->router_checksum, before, sizeof before);
		return CAD_OK;
	}

	checkpoint->router_working = true;
	int code = uv_queue_work(checkpoint->loop, &checkpoint->router_work, compute_router, router_done);
	CAD_ASSERT(code == 0);

	return CAD_OK;
}

enum cad_status pl_checkpoint_router_checksum(void *context, char hex[33])
{
	struct pl_checkpoint *checkpoint = context;
	memcpy(hex, checkpoint->router_checksum, sizeof checkpoint->router_checksum);
	return hex[0] ? CAD_OK : CAD_AGAIN;
}

/* ---- opening and closing ---- */

enum cad_status pl_checkpoint_open(
	const struct pl_checkpoint_options *options, struct pl_checkpoint **checkpoint, struct cad_error *error)
{
	struct pl_checkpoint *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the checkpoint");

	made->state = options->state;
	made->loop = options->loop;
	made->work.data = made;
	enum cad_status status = cad_model_open(options->directory, &made->model, error);
	if (status == CAD_OK) {
		cad_model_fingerprint(made->model, made->fingerprint);
		status = pl_state_claim(options->state, options->cluster, made->fingerprint, error);
	}

	if (status == CAD_OK)
		status = read_shape(made, error);
	if (status == CAD_OK)
		status = make_settings(made, options, error);
	if (status == CAD_OK)
		status = find_checksums(made, error);
	if (status != CAD_OK) {
		pl_checkpoint_close(made);
		return status;
	}

	*checkpoint = made;
	return CAD_OK;
}

void pl_checkpoint_on_checksum(
	struct pl_checkpoint *checkpoint, void (*ready)(void *context, uint32_t cell), void *context)
{
	checkpoint->ready = ready;
	checkpoint->ready_context = context;
}

void pl_checkpoint_close(struct pl_checkpoint *checkpoint)
{
	if (!checkpoint)
		return;

	checkpoint->ready = NULL;
	atomic_store(&checkpoint->closing, true);
	if (checkpoint->asked)
		memset(checkpoint->asked, 0, pl_shape_cells(&checkpoint->shape));
	while (checkpoint->working || checkpoint->router_working)
		uv_run(checkpoint->loop, UV_RUN_ONCE);
	cad_settings_fini(&checkpoint->settings);
	free(checkpoint->router_parts);
	free(checkpoint->asked);
	free(checkpoint->checksums);
	free(checkpoint->layers);
	if (checkpoint->model)
		cad_model_close(checkpoint->model);
	free(checkpoint);
}

/* ---- checksums ---- */

static void compute_batch(uv_work_t *work)
{
	struct pl_checkpoint *checkpoint = work->data;
	for (uint32_t i = 0; i < checkpoint->batch_count; i++)
		kn_expert_checksum(checkpoint->model, pl_cell_layer(&checkpoint->shape, checkpoint->batch[i]),
			pl_cell_expert(&checkpoint->shape, checkpoint->batch[i]),
			cad_settings_expert_weights(&checkpoint->settings), checkpoint->batch_hex[i]);
}

static void next_batch(struct pl_checkpoint *checkpoint);

static void batch_done(uv_work_t *work, int status)
{
	struct pl_checkpoint *checkpoint = work->data;
	struct cad_error error;

	(void)status; /* nobody cancels it */
	uint32_t cells[BATCH], count = checkpoint->batch_count;
	pl_state_begin(checkpoint->state);

	for (uint32_t i = 0; i < count; i++) {
		cells[i] = checkpoint->batch[i];
		memcpy(checkpoint->checksums[cells[i]], checkpoint->batch_hex[i], sizeof checkpoint->batch_hex[i]);
		pl_state_put_checksum(checkpoint->state, pl_cell_layer(&checkpoint->shape, cells[i]),
			pl_cell_expert(&checkpoint->shape, cells[i]), checkpoint->batch_hex[i]);
	}

	if (pl_state_commit(checkpoint->state, &error) != CAD_OK)
		cad_log_warn(COMPONENT, "cannot save the checksums; a restart will compute them again",
			CAD_S("error", error.text));
	checkpoint->working = false;
	next_batch(checkpoint);
	for (uint32_t i = 0; checkpoint->ready && i < count; i++)
		checkpoint->ready(checkpoint->ready_context, cells[i]);
}

static void next_batch(struct pl_checkpoint *checkpoint)
{
	uint32_t cells = pl_shape_cells(&checkpoint->shape), cell = checkpoint->asked_from, count = 0;
	for (; cell < cells && count < BATCH; cell++)
		if (checkpoint->asked[cell]) {
			checkpoint->asked[cell] = 0;
			checkpoint->batch[count++] = cell;
		}
	checkpoint->asked_from = cell;
	checkpoint->batch_count = count;
	if (count == 0)
		return;
	checkpoint->working = true;
	int code = uv_queue_work(checkpoint->loop, &checkpoint->work, compute_batch, batch_done);
	CAD_ASSERT(code == 0);
}

enum cad_status pl_checkpoint_checksum(void *context, uint32_t cell, char hex[33])
{
	struct pl_checkpoint *checkpoint = context;
	char *known = checkpoint->checksums[cell];

	if (!known[0]) {
		char stored[33];
		if (pl_state_checksum(checkpoint->state, pl_cell_layer(&checkpoint->shape, cell),
			    pl_cell_expert(&checkpoint->shape, cell), stored) == CAD_OK)
			memcpy(known, stored, sizeof stored);
	}

	if (known[0]) {
		memcpy(hex, known, 33);
		return CAD_OK;
	}

	checkpoint->asked[cell] = 1;
	checkpoint->asked_from = cell < checkpoint->asked_from ? cell : checkpoint->asked_from;
	if (!checkpoint->working)
		next_batch(checkpoint);

	return CAD_AGAIN;
}

/* ---- reading ---- */

const struct cad_model *pl_checkpoint_model(const struct pl_checkpoint *checkpoint) { return checkpoint->model; }
const char *pl_checkpoint_fingerprint(const struct pl_checkpoint *checkpoint) { return checkpoint->fingerprint; }
const struct cad_settings *pl_checkpoint_settings(const struct pl_checkpoint *checkpoint)
{
	return &checkpoint->settings;
}
struct pl_shape pl_checkpoint_shape(const struct pl_checkpoint *checkpoint) { return checkpoint->shape; }
uint64_t pl_checkpoint_expert_bytes(const struct pl_checkpoint *checkpoint) { return checkpoint->expert_bytes; }
uint64_t pl_checkpoint_image_bytes(const struct pl_checkpoint *checkpoint) { return checkpoint->image_bytes; }
