/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON as Python's json module writes and reads it. Files beside a checkpoint are made by it, and hold
 * what JSON does not allow, mostly in keys that nobody reads.
 *
 *   NaN, Infinity, -Infinity, 1e999     an object {"__float__": "Infinity"}, as transformers writes
 *                                       them: no reader of a number takes it for one
 *   a whole number beyond 64 bits       a real number
 *   half of a surrogate pair, \u0000    U+FFFD
 *   a key twice in an object            the last counts
 *
 * Everything else is jansson's. Blocks for nothing; allocates the value, and a text as long as this
 * one. Any thread.
 */
#ifndef CADRE_COMMON_BASE_JSON_H
#define CADRE_COMMON_BASE_JSON_H

#include <jansson.h>
#include <stddef.h>

/* NULL: `problem` says what is wrong and in which line; its text is empty when there was no memory. */
json_t *cad_json_parse(const char *text, size_t bytes, json_error_t *problem);
/* The same, with texts as they stand: U+0000 stays, though in no key; half of a pair is an error. */
json_t *cad_json_parse_exact(const char *text, size_t bytes, json_error_t *problem);
/* "NaN", "Infinity" or "-Infinity", if that is what stood there, or what transformers wrote for it; else
 * NULL. */
const char *cad_json_not_finite(const json_t *value);

#endif
