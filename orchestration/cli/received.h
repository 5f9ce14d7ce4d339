/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has been received of an answer, over all streams that it took, and the request for the rest
 * (Resume of proto/cadre/v1/inference.proto). Zero-initialised by its owner, and freed with its
 * fini. One thread; allocates for the tokens.
 */
#ifndef CADRE_ORCHESTRATION_CLI_RECEIVED_H
#define CADRE_ORCHESTRATION_CLI_RECEIVED_H

#include "cadre/v1/inference.pb-c.h"
#include "common/base/status.h"
#include "common/tokenizer/text.h"

#include <stdbool.h>

struct cl_received {
	struct cad_ids ids;
	char digest[33], fingerprint[80]; /* as they came; "": none did */
	bool finished;
	uint32_t messages; /* of this stream */
	bool resuming;     /* this stream continues an answer */
};

void cl_received_fini(struct cl_received *received);

/* A request, borrowing from the first one and from what was received. Do not move it. */
struct cl_rest {
	Cadre__V1__GenerateRequest message;
	Cadre__V1__Resume resume;
};
/* The next stream begins: for the first one `rest` is the request itself, then what is missing.
 * CAD_ERR_UNSUPPORTED and a sentence: the router that gave the tokens did not say what a
 * request for the rest needs. */
CAD_MUST_USE enum cad_status cl_received_begin(struct cl_received *received, const Cadre__V1__GenerateRequest *request,
	struct cl_rest *rest, struct cad_error *error);
/* One message of the stream. CAD_ERR_UNSUPPORTED and a sentence: this router answers from the
 * beginning, because it does not know how to resume; nothing was added. */
CAD_MUST_USE enum cad_status cl_received_add(
	struct cl_received *received, const Cadre__V1__GenerateResponse *response, struct cad_error *error);

#endif
