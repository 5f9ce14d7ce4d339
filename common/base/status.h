/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Status codes: what every fallible function of Cadre returns, and the sentence that goes with a
 * failure.
 *
 * 0 is success, a positive code means "not yet" (nothing failed, call again), a negative code is a
 * failure. The failures are grouped by what must be given up: the request, the connection to a
 * peer, or the process. A control-path function also takes a `struct cad_error` and fills it with a
 * sentence that says what happened, to what, and what to change; the function that first decides
 * that something is an error writes the sentence. No function here allocates or blocks; all may be
 * called from any thread.
 */
#ifndef CADRE_COMMON_BASE_STATUS_H
#define CADRE_COMMON_BASE_STATUS_H

#include <stddef.h>

/* name, value, short text */
#define CAD_STATUS_LIST(X) \
	X(OK, 0, "ok") \
	/* not yet */ \
	X(AGAIN, 1, "not yet") \
	X(FULL, 2, "accepted, but send no more until notified") \
	/* the request is given up */ \
	X(ERR_INVALID, -1, "invalid argument") \
	X(ERR_NOT_FOUND, -2, "not found") \
	X(ERR_RANGE, -3, "out of range") \
	X(ERR_EXHAUSTED, -4, "a stated limit is reached") \
	X(ERR_DEADLINE, -5, "deadline passed") \
	X(ERR_CANCELLED, -6, "cancelled") \
	X(ERR_CORRUPT, -7, "malformed or truncated data") \
	X(ERR_UNSUPPORTED, -8, "not supported") \
	X(ERR_NOT_FINITE, -9, "NaN or infinity in a result") \
	/* the connection to a peer is given up */ \
	X(ERR_PEER_LOST, -20, "peer lost") \
	X(ERR_UNREACHABLE, -21, "peer unreachable") \
	X(ERR_REFUSED, -22, "refused by the peer") \
	X(ERR_PROTOCOL, -23, "the peer broke the protocol") \
	/* the process (or what it was starting) is given up */ \
	X(ERR_MEMORY, -40, "out of memory") \
	X(ERR_IO, -41, "input/output error") \
	X(ERR_INTERNAL, -42, "internal error")

enum cad_status {
#define X(name, value, text) CAD_##name = (value),
	CAD_STATUS_LIST(X)
#undef X
};

#define CAD_MUST_USE __attribute__((warn_unused_result))

/* "ERR_DEADLINE" and "deadline passed"; "UNKNOWN" for a value outside the list. */
const char *cad_status_name(enum cad_status status);
const char *cad_status_text(enum cad_status status);

enum { CAD_ERROR_TEXT_BYTES = 512 };

/* Embedded by the caller; `text` is always terminated. Written only on failure. */
struct cad_error {
	enum cad_status status;
	char text[CAD_ERROR_TEXT_BYTES];
};

/* Writes status and sentence (cut at the end of `text` on a UTF-8 border) and returns `status`, so
 * that `return cad_error_set(...)` reads well. `error` may be NULL. */
enum cad_status cad_error_set(struct cad_error *error, enum cad_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Puts "text: " before the existing sentence: what was being done when it happened. Returns the
 * status. */
enum cad_status cad_error_prefix(struct cad_error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* clang's analyzer does not look into other files: this tells it what is returned. */
#ifdef __clang_analyzer__
#define cad_error_set(error, status, ...) ((void)cad_error_set(error, status, __VA_ARGS__), (status))
#endif

/* A programmer's mistake, on in release too: prints file, line and sentence, and aborts. Bad input
 * and dead peers are statuses, never this. */
#define CAD_ASSERT(condition) ((condition) ? (void)0 : cad_assert_failed(__FILE__, __LINE__, #condition))
_Noreturn void cad_assert_failed(const char *file, int line, const char *condition);

#endif
