/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer's text: tokens in, text out, held back as long as it may be the beginning of a stop
 * string. Knows neither threads nor how an answer is sent.
 *
 * What ends an answer: an end-of-sequence id, a stop id or a length, which the engine decides
 * (struct rt_event: is_text, reason); or a stop string, which is found here.
 *
 * What comes out is decided by the tokens alone: an answer that goes on after tokens which were
 * sent before (rt_answer_skip) gives the text that one stream would have given after them.
 *
 * Embedded by its owner, one thread; may be moved; allocates as text grows.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_ANSWER_H
#define CADRE_ROUTER_SVC_FRONTEND_ANSWER_H

#include "router-svc/frontend/stop_text.h"

struct rt_answer {
	struct cad_decoder *decoder; /* NULL: no tokenizer, so no text */
	struct rt_stop_text stop;
};

/* `tokenizer` is borrowed, and may be NULL; the strings are copied. CAD_ERR_MEMORY. */
CAD_MUST_USE enum cad_status rt_answer_init(
	struct rt_answer *answer, const struct cad_tokenizer *tokenizer, char *const *stops, size_t stops_count);
void rt_answer_fini(struct rt_answer *answer); /* also takes a zeroed struct */

/* Appends to `text` what one more token makes certain. *stopped: a stop string was found; the text
 * ends before it, and nothing more may be added. */
CAD_MUST_USE enum cad_status rt_answer_token(struct rt_answer *answer, int32_t id, bool is_text, struct cad_text *text,
	bool *stopped, struct cad_error *error);
/* Tokens that were sent before, each of which is text: their text is thrown away. *skipped < count:
 * token [*skipped] completed a stop string. */
CAD_MUST_USE enum cad_status rt_answer_skip(
	struct rt_answer *answer, const int32_t *ids, size_t count, size_t *skipped, struct cad_error *error);
/* After the last token: releases what was held back, in full or up to a stop string. */
CAD_MUST_USE enum cad_status rt_answer_end(
	struct rt_answer *answer, struct cad_text *text, bool *stopped, struct cad_error *error);

#endif
