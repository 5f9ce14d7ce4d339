/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every long-running program does first: signals, limits, names.
 */
#ifndef CADRE_COMMON_PROCESS_PROCESS_H
#define CADRE_COMMON_PROCESS_PROCESS_H

#include "common/base/status.h"

#include <stdbool.h>

/*
 * First thing in main(), before any thread is started (and before grpc_init): ignores SIGPIPE,
 * blocks SIGINT, SIGTERM and SIGHUP in this and all later threads (cad_signals takes them), raises
 * the limit on open files to what the system allows, and has large blocks of memory given back when
 * they are freed.
 */
CAD_MUST_USE enum cad_status cad_process_init(struct cad_error *error);

/* SIGINT, SIGTERM and SIGHUP as events of a libuv loop. The callback runs in the loop's thread,
 * once per signal. */
struct uv_loop_s;
struct cad_signals;
typedef void cad_signal_fn(void *context, int signal);
CAD_MUST_USE enum cad_status cad_signals_create(struct uv_loop_s *loop, cad_signal_fn *fn, void *context,
	struct cad_signals **signals, struct cad_error *error);
/* In the loop's thread; memory goes in the loop's close phase. NULL is allowed. */
void cad_signals_close(struct cad_signals *signals);

/* True if SIGINT or SIGTERM has arrived and nobody has taken it yet: for waits before the loop
 * runs. Any thread. */
bool cad_signals_pending(void);

/* A file that only its user should read, which is said in the log where others can; whole, at most
 * bytes_max. `what` names it in errors ("token file"). The caller frees (after clearing) *text. */
CAD_MUST_USE enum cad_status cad_private_file_read(
	const char *path, const char *what, size_t bytes_max, char **text, size_t *size, struct cad_error *error);

/* A secret: the file's content without trailing white space, at least 16 bytes; `what` names it in
 * errors ("cluster secret"). The caller frees (after clearing) *secret. */
CAD_MUST_USE enum cad_status cad_secret_read(
	const char *path, const char *what, char **secret, struct cad_error *error);

/* Clears a text that nobody may read in freed memory, and frees it; NULL is fine. */
void cad_secret_free(char *secret);

/* What processes of a cluster call each other by: 1 to 63 letters, digits and ._:- */
enum { CAD_PROCESS_NAME_BYTES = 64 };
bool cad_process_name_is_legal(const char *name);
/* "host-1a2b": a name for a process that was given none: host name, pid. */
void cad_process_name(char *text, size_t bytes);

#endif
