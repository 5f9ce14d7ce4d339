/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that ask something of the placement service, and those that change something there.
 *
 * What they have in common: --placement and how it is reached, -o json (stdout is one object then;
 * progress goes to stderr), and if they change something --dry-run and --reason. No command asks
 * back. The exit codes are those of command.h: what is refused, or cannot be done, is 1.
 *
 * The options of a command begin with a struct cl_placement, or if it changes something with a
 * struct cl_change, which has one:
 *
 *     struct options {
 *         struct cl_change change;
 *         ...
 *     };
 *     static const struct cad_option table[] = { CL_CHANGE_OPTIONS(struct options, change) };
 *     static const struct cad_options_spec spec = {
 *         ...
 *         .check = cl_change_check,
 *         .check_files = cl_placement_check_files,
 *     };
 *     ...
 *     Cadre__V1__Change change;
 *     request.change = cl_change_to_proto(&options.change, &change);
 *     exit_code = cl_placement_ask("pin", &options.change.placement,
 *     CL_PLACEMENT_METHOD("SetPin"), &request.base,
 *                                  &cadre__v1__changed__descriptor, on_answer, &options);
 *
 * One thread; calls block, and end with Ctrl-C (command.h).
 */
#ifndef CADRE_ORCHESTRATION_CLI_OPERATE_H
#define CADRE_ORCHESTRATION_CLI_OPERATE_H

#include "cadre/v1/operate.pb-c.h"
#include "orchestration/cli/access.h"
#include "orchestration/cli/cluster_file.h"
#include "orchestration/cli/command.h"

/* Where the placement service is, how it is reached, and how its answer is printed. */
struct cl_placement {
	const char *address; /* "": the one in run/cluster.json */
	struct cl_access access;
	enum cl_format format;
};

/* Lines of an option table; `member` is a struct cl_placement inside `owner`. */
#define CL_PLACEMENT_OPTIONS(owner, member) \
	CAD_OPTION_STRING(owner, member.address, "placement", "", \
		"HOST:PORT of the placement service; empty: the one in run/cluster.json"), \
		CL_TLS_OPTIONS(owner, member.access), CL_TOKEN_OPTION(owner, member.access), \
		CL_FORMAT_OPTION(owner, member.format, "output format")

/* The `check` and `check_files` of options that begin with a struct cl_placement. */
CAD_MUST_USE enum cad_status cl_placement_check(const void *values, struct cad_error *error);
CAD_MUST_USE enum cad_status cl_placement_check_files(const void *values, struct cad_error *error);

/* Of a command that changes something. */
struct cl_change {
	struct cl_placement placement;
	bool dry_run;
	const char *reason;
};

enum { CL_REASON_BYTES_MAX = 512 };

#define CL_CHANGE_OPTIONS(owner, member) \
	CAD_OPTION_BOOL(owner, member.dry_run, "dry-run", "false", "say what would be done, and do nothing"), \
		CAD_OPTION_STRING( \
			owner, member.reason, "reason", "", "why, for 'cadrectl history'; at most 512 bytes"), \
		CL_PLACEMENT_OPTIONS(owner, member.placement)

/* The `check` of options that begin with a struct cl_change. */
CAD_MUST_USE enum cad_status cl_change_check(const void *values, struct cad_error *error);
/* Fills the message, which borrows from `change`, and returns it. */
Cadre__V1__Change *cl_change_to_proto(const struct cl_change *change, Cadre__V1__Change *message);

#define CL_PLACEMENT_METHOD(name) "/cadre.v1.Placement/" name

/* ---- one call ---- */

/* Connects, calls, and disconnects; on_message gets the answer. Prints what went wrong. Returns the
 * exit code. */
int cl_placement_ask(const char *command, const struct cl_placement *placement, const char *method,
	const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context);

/* ---- several calls ---- */

struct cl_session {
	struct cl_client client;
	struct cl_cluster cluster;
	const char *address; /* NULL: it is not known */
};

/* CAD_ERR_NOT_FOUND: no address was given, and there is no run/cluster.json. */
CAD_MUST_USE enum cad_status cl_session_open(
	struct cl_session *session, const struct cl_placement *placement, struct cad_error *error);
/* CAD_OK: on_message has got the answer. `code` may be NULL. */
CAD_MUST_USE enum cad_status cl_session_call(struct cl_session *session, const char *method,
	const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context, enum cad_rpc_code *code,
	struct cad_error *error);
/* After a call that ended with `code`: whether it is worth asking again, because the service is
 * only away, and was last heard less than two minutes ago. Not after Ctrl-C. */
bool cl_session_is_away(enum cad_rpc_code code, uint64_t heard_ns);
/* With a stream of requests, as cad_rpc_blocking_upload. */
CAD_MUST_USE enum cad_status cl_session_upload(struct cl_session *session, const char *method,
	const ProtobufCMessage *(*next)(void *context), const ProtobufCMessageDescriptor *reply,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context, struct cad_error *error);
/* Prints why it failed; returns the exit code. */
int cl_session_fail(
	const struct cl_session *session, const char *command, enum cad_status status, const struct cad_error *error);
void cl_session_close(struct cl_session *session); /* may be called twice */

#endif
