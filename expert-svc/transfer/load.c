/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/transfer/load.h"

#include "kernels/image.h"
#include "kernels/source.h"

#include <stdio.h>
#include <stdlib.h>

enum { PART_BYTES_MIN = 16 << 10 };

/* A quarter of a second of the rate, so that no part makes others wait for long. */
static uint32_t part_bytes(uint64_t bytes_per_second)
{
	uint64_t bytes = bytes_per_second / 4;
	if (bytes_per_second == 0 || bytes > EX_PART_BYTES)
		return EX_PART_BYTES;
	return bytes < PART_BYTES_MIN ? PART_BYTES_MIN : (uint32_t)bytes;
}

/* ---- from a node ---- */

struct coming {
	const struct ex_load_run *run;
	uint64_t bytes; /* so far */
};

static bool part_came(void *context, uint64_t bytes)
{
	struct coming *coming = context;
	uint64_t more = bytes - coming->bytes;
	coming->bytes = bytes;
	return coming->run->read(coming->run->context, coming->run->load->node, more);
}

static void pass_over(struct ex_load_result *result, enum ex_source_failure failure, const char *text)
{
	result->failure = failure;
	snprintf(result->passed_over, sizeof result->passed_over, "%.255s", text);
}

/* The image, if it is the right one. */
static enum cad_status image_get(const struct ex_load_run *run, uint8_t *image, size_t bytes,
	struct ex_load_result *result, struct cad_error *error)
{
	struct coming coming = { .run = run };
	const struct ex_ask ask = {
		.node = run->load->node,
		.address = run->load->address,
		.layer = run->layer,
		.expert = run->expert,
		.kind = kn_image_kind(ex_store_weights(ex_engine_store(run->engine))),
		.image_bytes = bytes,
		.part_bytes = part_bytes(run->load->bytes_per_second),
		.come = part_came,
		.context = &coming,
	};
	enum ex_source_failure failure = EX_SOURCE_FINE;
	enum cad_status status = run->ask(run->asker, &ask, image, &failure, error);
	if (status != CAD_OK) {
		if (status != CAD_ERR_CANCELLED)
			pass_over(result, failure, error->text);
		return status;
	}

	char checksum[33];
	kn_image_bytes_checksum(image, bytes, checksum);
	if (strcmp(checksum, run->load->checksum) == 0)
		return CAD_OK;
	snprintf(result->passed_over, sizeof result->passed_over,
		"%s: it gave wrong bytes: their checksum is %s, and %s was expected", run->load->node, checksum,
		run->load->checksum);
	result->failure = EX_SOURCE_WRONG;
	return CAD_ERR_PEER_LOST;
}

static enum cad_status load_from_node(
	const struct ex_load_run *run, struct ex_load_result *result, struct cad_error *error)
{
	struct ex_store *store = ex_engine_store(run->engine);
	struct kn_expert_source form = ex_store_image(store, run->layer, run->expert);
	size_t bytes = (size_t)kn_image_bytes(&form);
	uint8_t *image = malloc(bytes); /* a device packs from any memory */

	if (!image) {
		pass_over(result, EX_SOURCE_REFUSED, "this node has no memory for an expert on its way");
		return CAD_ERR_MEMORY;
	}

	enum cad_status status = image_get(run, image, bytes, result, error);
	if (status == CAD_OK) {
		const struct ex_weights weights = { image, run->load->checksum };
		result->node = run->load->node;
		result->image_bytes = bytes;
		status = ex_store_load(store, run->layer, run->expert, &weights, &result->loaded, error);
	}
	free(image);
	return status;
}

/* ---- from the checkpoint ---- */

static bool piece_read(void *context, size_t count)
{
	const struct ex_load_run *run = context;
	return run->read(run->context, "", count);
}

/* Hashing reads it from the disk, at the order's rate; packing finds it in memory, and where that was
 * work, the whole image. */
static enum cad_status load_from_checkpoint(
	const struct ex_load_run *run, struct ex_load_result *result, struct cad_error *error)
{
	struct ex_store *store = ex_engine_store(run->engine);
	struct kn_expert_source form = ex_store_image(store, run->layer, run->expert),
				source = kn_expert_source_of(ex_engine_model(run->engine), run->layer, run->expert);
	size_t bytes = (size_t)kn_image_bytes(&form);
	bool make = cad_dtype_quantised(form.gate.dtype) && source.gate.dtype != form.gate.dtype;
	void *image = make ? malloc(bytes) : NULL;
	char checksum[33];
	enum cad_status status = cad_model_expert_check(ex_engine_model(run->engine), run->layer, run->expert, error);

	if (status == CAD_OK &&
		!kn_image_checksum_by_pieces(
			&source, ex_store_weights(store), image, piece_read, (void *)run, checksum))
		status = CAD_ERR_CANCELLED;
	if (status == CAD_OK)
		status =
			cad_model_expert_verify(ex_engine_model(run->engine), run->layer, run->expert, checksum, error);
	if (status == CAD_OK) {
		const struct ex_weights weights = { image, checksum };
		result->node = "";
		result->image_bytes = bytes;
		status = ex_store_load(store, run->layer, run->expert, &weights, &result->loaded, error);
	}
	free(image);
	return status;
}

enum cad_status ex_load_run(const struct ex_load_run *run, struct ex_load_result *result, struct cad_error *error)
{
	struct ex_store *store = ex_engine_store(run->engine);
	*result = (struct ex_load_result){ .node = NULL };

	/* held already, or nothing of this model: the store says which */
	if (ex_store_holds(store, run->layer, run->expert) || !ex_store_image(store, run->layer, run->expert).gate.n)
		return ex_store_load(store, run->layer, run->expert, NULL, &result->loaded, error);

	if (run->load->node && run->ask) {
		enum cad_status status = load_from_node(run, result, error);
		if (status == CAD_OK || status == CAD_ERR_CANCELLED || result->failure == EX_SOURCE_FINE)
			return status;
	}
	return load_from_checkpoint(run, result, error);
}
