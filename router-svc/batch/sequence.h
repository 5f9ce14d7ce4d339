/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence: one request on its way through the engine. Created by submit on the caller's thread;
 * from then on the engine's thread owns it until it has ended, and its memory is freed by a thread
 * that submits (inbox.h).
 *
 *   tokens   prompt | received | generated ...   count tokens known, `computed` of them in the KV cache
 *
 * A sequence in the batch computes rows for positions computed .. computed + n - 1; when that
 * reaches `count`, the last row's logits choose the next token.
 */
#ifndef CADRE_ROUTER_SVC_BATCH_SEQUENCE_H
#define CADRE_ROUTER_SVC_BATCH_SEQUENCE_H

#include "router-svc/batch/kv_cache.h"
#include "router-svc/request.h"

enum rt_sequence_state {
	/* Each in the list of its name, oldest first. */
	RT_SEQUENCE_WAITING, /* for a slot and pages; may hold pages, if it ran before */
	RT_SEQUENCE_RUNNING, /* holds a slot and pages */
	RT_SEQUENCE_PAUSED,  /* computes nothing; may hold pages */
	RT_SEQUENCE_ENDED,   /* in no list; its last event is out, or comes now */
};

struct rt_sequence {
	uint64_t id;    /* ascends with age */
	uint32_t place; /* in the inbox */
	enum rt_sequence_state state;
	struct rt_sequence *before, *after; /* in its list */
	struct rt_request request;          /* prompt, received point into tokens; stop_ids is owned */
	int32_t *tokens;
	uint32_t given;                       /* tokens that came with the request */
	uint32_t count, computed, tokens_max; /* tokens_max: given + max_tokens, at most the context */
	uint32_t rotation;                    /* of what is computed (cad_rope_rotation) */
	struct rt_kv_pages kv;
	uint64_t submitted_ns;
	struct rt_usage usage;
	uint8_t digest[16];
	/* routing and logits were reported up to this position:
	 * recomputation does not repeat them */
	uint32_t reported;
	bool paused; /* wanted; the scheduler acts on it before the next step */
	/* Why it must end: found during a step, applied at its end. */
	enum cad_status doomed;
	char doom[CAD_ERROR_TEXT_BYTES];
};

/* Whether a sequence can be made of it, with room for one more token in the context:
 * CAD_ERR_INVALID and a sentence. */
CAD_MUST_USE enum cad_status rt_sequence_check(
	const struct rt_request *request, uint32_t context_max, uint32_t vocab, struct cad_error *error);
/* Copies the request. tokens_max must be at least what it gives. NULL when memory is short. */
struct rt_sequence *rt_sequence_create(const struct rt_request *request, uint32_t tokens_max);
void rt_sequence_destroy(struct rt_sequence *sequence);
/* Marks it to end with a failure; the first reason stays. */
void rt_sequence_doom(struct rt_sequence *sequence, enum cad_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A list in order of age; a sequence is in at most one. */
struct rt_sequence_list {
	struct rt_sequence *first, *last;
	uint32_t count;
};
/* at its place by id: older ids first */
void rt_list_add(struct rt_sequence_list *list, struct rt_sequence *sequence);
void rt_list_remove(struct rt_sequence_list *list, struct rt_sequence *sequence);

#endif
