/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an untrusted GenerateRequest to a request that the engine takes; every refusal is a sentence
 * that says what to change. Re-entrant; allocates for the prompt, does not block.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_REQUEST_H
#define CADRE_ROUTER_SVC_FRONTEND_REQUEST_H

#include "cadre/v1/inference.pb-c.h"
#include "common/model/model.h"
#include "router-svc/frontend/answer.h"
#include "router-svc/request.h"

enum { RT_STOP_STRINGS_MAX = 16, RT_STOP_STRING_BYTES_MAX = 256 };

struct rt_request_limits {
	const struct cad_model_spec *spec;
	uint32_t context_max;                  /* prompt and answer together */
	const struct cad_tokenizer *tokenizer; /* NULL: there is none */
	const char *fingerprint;               /* of model, settings and policies; NULL: not compared */
};

/* `request` borrows from `message` and from `ids`, which holds the tokens of a text and is the
 * caller's to free, in case of failure too. Deadline and context are left to the caller.
 * CAD_ERR_INVALID for everything that the client can change; CAD_ERR_REFUSED: there is text, but no
 * tokenizer. */
CAD_MUST_USE enum cad_status rt_request_read(const struct rt_request_limits *limits,
	const Cadre__V1__GenerateRequest *message, struct cad_ids *ids, struct rt_request *request,
	struct cad_error *error);

/* After rt_request_read: what makes text of the answer's tokens, those that `resume` brings behind
 * it. CAD_ERR_INVALID: a stop string is among them. The caller ends it with rt_answer_fini. */
CAD_MUST_USE enum cad_status rt_request_answer(const struct rt_request_limits *limits,
	const Cadre__V1__GenerateRequest *message, struct rt_answer *answer, struct cad_error *error);

#endif
