/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8 as bytes and as characters: no overlong forms, no surrogates, nothing above U+10FFFF.
 *
 * Pure functions over memory; any thread. A character is a code point.
 */
#ifndef CADRE_COMMON_BASE_UTF8_H
#define CADRE_COMMON_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- any bytes ---- */

/* Offset of the first byte that is not part of a well-formed character; `size` if there is none. */
size_t cad_utf8_valid(const char *bytes, size_t size);
/* How many bytes of `size` end on a whole character, when something was cut off there:
 * `size`, or up to three less. */
size_t cad_utf8_whole(const char *bytes, size_t size);
/* Whether it is text that a terminal and a line of a log can show: well-formed, without control
 * characters, ends of lines and what turns the direction of writing. */
bool cad_utf8_is_printable(const char *bytes, size_t size);
/* In place: each character and byte that is not printable becomes '?'. */
void cad_utf8_make_printable(char *text);
/* Copies as many whole characters as fit, terminates, and makes it printable. */
void cad_utf8_copy(char *out, size_t bytes, const char *text);
/* Bytes of the character that begins with `lead`; 0: none does. */
size_t cad_utf8_expected(char lead);
/* Whether `byte` may be at `position` (1 to 3) of a character that begins with `lead`. */
bool cad_utf8_continues(char lead, size_t position, char byte);

/* ---- well-formed text ---- */

/* The character at bytes, and its length in bytes. */
uint32_t cad_utf8_get(const char *bytes, size_t *size);
size_t cad_utf8_size(char lead); /* bytes of the character that begins so */
/* Start of the character that ends before `at` (at > 0). */
size_t cad_utf8_before(const char *bytes, size_t at);
/* Writes a character, which must not be above U+10FFFF; returns its length. */
size_t cad_utf8_put(uint32_t character, char out[4]);

#endif
