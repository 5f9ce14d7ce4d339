/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop strings in a stream of text: text is held back as long as it may be the beginning of one,
 * and released as soon as it cannot be. Embedded by its owner, one thread. Pieces must end between
 * characters, as a streaming decoder's do; so do the pieces that come out.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_STOP_TEXT_H
#define CADRE_ROUTER_SVC_FRONTEND_STOP_TEXT_H

#include "common/tokenizer/tokenizer.h"

struct rt_stop_text {
	char **strings;
	size_t count;
	struct cad_text held;
};

/* Appends bytes, keeping a terminator after them. CAD_ERR_MEMORY. */
CAD_MUST_USE enum cad_status rt_text_append(struct cad_text *text, const char *bytes, size_t size);

/* What a string of a message shows of a text: U+FFFD stands for each U+0000, where it would end.
 * Bytes that this takes, the terminator included; and the text itself. */
size_t rt_text_shown_bytes(const char *text, size_t size);
void rt_text_show(const char *text, size_t size, char *shown);

/* Copies the strings, none of which is empty; with count 0 everything passes. */
CAD_MUST_USE enum cad_status rt_stop_text_init(struct rt_stop_text *stop, char *const *strings, size_t count);
void rt_stop_text_fini(struct rt_stop_text *stop); /* also takes a zeroed struct */
/* Appends to `out` what is certain now. *found: a stop string was found; `out` ends before it, and
 * nothing more may be added. Where several match, the one that begins first counts. */
CAD_MUST_USE enum cad_status rt_stop_text_add(
	struct rt_stop_text *stop, const char *bytes, size_t size, struct cad_text *out, bool *found);
/* At the end of the text: releases what is held back. */
CAD_MUST_USE enum cad_status rt_stop_text_flush(struct rt_stop_text *stop, struct cad_text *out);

#endif
