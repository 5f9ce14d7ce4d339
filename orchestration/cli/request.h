/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation on the command line: the request and its result, each to and from JSON.
 *
 * Both structs are zero-initialised by their owner and freed with their fini. A result's JSON
 * contains its request, so that `cadrectl verify` can ask again from the JSON alone.
 */
#ifndef CADRE_ORCHESTRATION_CLI_REQUEST_H
#define CADRE_ORCHESTRATION_CLI_REQUEST_H

#include "cadre/v1/inference.pb-c.h"
#include "common/tokenizer/tokenizer.h"
#include "common/base/status.h"
#include "proto/cadre_wire.h"

#include <jansson.h>
#include <stdbool.h>

struct cl_request {
	char *text; /* NULL: ids are the prompt */
	struct cad_ids ids;
	uint32_t max_tokens;
	bool ignore_eos, routing;
	float temperature, top_p, min_p;
	uint32_t top_k;
	uint64_t seed;
	char *stop; /* NULL: none */
};
void cl_request_fini(struct cl_request *request);
/* "1,2,3" */
CAD_MUST_USE enum cad_status cl_request_parse_ids(const char *text, struct cad_ids *ids, struct cad_error *error);
CAD_MUST_USE enum cad_status cl_request_from_json(
	const json_t *json, struct cl_request *request, struct cad_error *error);
json_t *cl_request_to_json(const struct cl_request *request); /* NULL: out of memory */

/* The protobuf form, borrowing from the request. Do not move it. */
struct cl_request_message {
	Cadre__V1__GenerateRequest message;
	Cadre__V1__Tokens tokens;
	Cadre__V1__Sampling sampling;
	char *stop[1];
};
void cl_request_to_message(const struct cl_request *request, struct cl_request_message *message);

struct cl_result {
	struct cad_ids ids;
	struct cad_text text;
	json_t *routing; /* NULL: none came */
	uint32_t routed; /* positions whose routing came: what comes again is left out */
	bool finished;   /* the last message came; what follows is its */
	Cadre__V1__FinishReason finish_reason;
	char digest[40], settings[CADRE_TEXT_BYTES]; /* settings: "": of a router that did not say them */
	uint64_t prompt_tokens, generated_tokens, first_token_us, total_us, nodes_touched, routed_rows, bytes_sent,
		bytes_received;
	char policy[16];
	double factor;
	uint64_t dropped, spilled;
	uint64_t calls_hedged, hedges_won, rows_diverted;
	char absent_policy[16];
	uint64_t absent_slots, absent_rows;
	uint64_t resumed, gap_us; /* struct cl_run_report; the caller's to fill */
};
/* The text of a message as it is, U+0000 included. */
const char *cl_response_text(const Cadre__V1__GenerateResponse *response, size_t *size);
void cl_result_fini(struct cl_result *result);
/* Adds one message of the stream. */
CAD_MUST_USE enum cad_status cl_result_add(
	struct cl_result *result, const Cadre__V1__GenerateResponse *response, struct cad_error *error);
/* `where`: what computed it, for the reader. NULL: out of memory. */
json_t *cl_result_to_json(const struct cl_result *result, const struct cl_request *request, const char *where);
const char *cl_finish_name(Cadre__V1__FinishReason reason); /* "length", "stop" */

#endif
