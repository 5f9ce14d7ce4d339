/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/received.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cl_received_fini(struct cl_received *received) { cad_ids_fini(&received->ids); }

static enum cad_status rest_of(const struct cl_received *received, const Cadre__V1__GenerateRequest *request,
	struct cl_rest *rest, struct cad_error *error)
{
	uint64_t limit = request->max_tokens;

	if (!received->digest[0])
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"the router's version did not say how its answer can be resumed: ask again");
	if (limit > 0 && received->ids.count >= limit)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "all %zu tokens have come, but not the end: ask again",
			received->ids.count);

	cadre__v1__resume__init(&rest->resume);
	rest->resume.token_ids = received->ids.ids;
	rest->resume.n_token_ids = received->ids.count;
	rest->resume.digest = (char *)(uintptr_t)received->digest;
	rest->resume.fingerprint = (char *)(uintptr_t)received->fingerprint;
	rest->resume.no_limit = limit == 0;
	rest->message.resume = &rest->resume;
	rest->message.max_tokens = limit == 0 ? 0 : (uint32_t)(limit - received->ids.count);
	return CAD_OK;
}

enum cad_status cl_received_begin(struct cl_received *received, const Cadre__V1__GenerateRequest *request,
	struct cl_rest *rest, struct cad_error *error)
{
	rest->message = *request;
	received->messages = 0;
	received->resuming = received->ids.count > 0;
	return received->resuming ? rest_of(received, request, rest, error) : CAD_OK;
}

static enum cad_status ids_add(struct cad_ids *ids, const int32_t *more, size_t count, struct cad_error *error)
{
	if (ids->capacity - ids->count < count) {
		size_t capacity = 2 * (ids->count + count);
		int32_t *grown = realloc(ids->ids, capacity * sizeof *grown);
		if (!grown)
			return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %zu token ids", capacity);
		ids->ids = grown;
		ids->capacity = capacity;
	}
	if (count > 0)
		memcpy(ids->ids + ids->count, more, count * sizeof *more);
	ids->count += count;
	return CAD_OK;
}

enum cad_status cl_received_add(
	struct cl_received *received, const Cadre__V1__GenerateResponse *response, struct cad_error *error)
{
	if (received->messages++ == 0) {
		if (received->resuming && !response->fingerprint[0])
			return cad_error_set(error, CAD_ERR_UNSUPPORTED,
				"its version does not know how to resume, and begins from the beginning");
		snprintf(received->fingerprint, sizeof received->fingerprint, "%s", response->fingerprint);
	}

	enum cad_status status = ids_add(&received->ids, response->token_ids, response->n_token_ids, error);
	if (status != CAD_OK)
		return status;
	if (response->n_token_ids > 0)
		snprintf(received->digest, sizeof received->digest, "%s", response->digest_so_far);
	received->finished = response->finish_reason != CADRE__V1__FINISH_REASON__FINISH_REASON_UNSPECIFIED;

	return CAD_OK;
}
