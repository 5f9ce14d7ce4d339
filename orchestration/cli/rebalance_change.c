/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl rebalance show|pause|resume|cancel|undo`. */
#include "orchestration/cli/follow.h"

#include <errno.h>
#include <stdlib.h>

struct options {
	struct cl_change change;
	struct cl_follow follow;
};

static const struct cad_option show_table[] = { CL_PLACEMENT_OPTIONS(struct options, change.placement) };

static const struct cad_option change_table[] = {
	CL_CHANGE_OPTIONS(struct options, change),
};

static const struct cad_option undo_table[] = {
	CL_WAIT_OPTIONS(struct options, follow),
	CL_CHANGE_OPTIONS(struct options, change),
};

#define SPEC(name, about, what, options, checks) \
	{ \
		.program = "cadrectl rebalance " name, .summary = about, .positional = what, .positional_max = 1, \
		.table = options, .count = sizeof options / sizeof *options, .check = checks, \
		.check_files = cl_placement_check_files, \
	}
static const struct cad_options_spec show_spec = SPEC("show",
	"Shows a rebalance, the last one unless told otherwise: what it is doing, what was predicted, and what was measured.",
	"[ID]", show_table, cl_placement_check);
static const struct cad_options_spec pause_spec =
	SPEC("pause", "No further move of a running rebalance begins; those under way are finished.", "ID",
		change_table, cl_change_check);
static const struct cad_options_spec resume_spec =
	SPEC("resume", "A paused rebalance goes on.", "ID", change_table, cl_change_check);
static const struct cad_options_spec cancel_spec = SPEC("cancel",
	"Ends a rebalance where it is: experts stay where they are now.", "ID", change_table, cl_change_check);
static const struct cad_options_spec undo_spec = SPEC("undo",
	"Leads back to the placement before a rebalance, with a rebalance of its own; also after it is done.", "ID",
	undo_table, cl_change_check);

/* "7"; 0: it is none. */
static uint64_t parse_id(const char *text)
{
	char *end;
	errno = 0;
	unsigned long long id = strtoull(text, &end, 10);
	return errno == 0 && end != text && !*end && *text != '-' ? id : 0;
}

/* The id that was given; false: it is wrong, and was said. */
static bool take_id(const char *command, const struct cad_options *parsed, bool required, uint64_t *id)
{
	size_t count = cad_options_positional_count(parsed);

	*id = count ? parse_id(cad_options_positional(parsed, 0)) : 0;
	if (*id || (count == 0 && !required))
		return true;
	if (count)
		cl_line(stderr, "cadrectl %s: '%.40s' is not the id of a rebalance: give a number, such as 7", command,
			cad_options_positional(parsed, 0));
	else
		fprintf(stderr, "cadrectl %s: give the id of a rebalance; 'cadrectl rebalance show' has the last one\n",
			command);
	return false;
}

/* ---- show ---- */

static bool on_shown(void *context, const ProtobufCMessage *message)
{
	const struct options *options = context;
	cl_rebalance_print("rebalance show", (const Cadre__V1__Rebalance *)message, options->change.placement.format);
	return true;
}

int cl_rebalance_show(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	Cadre__V1__GetRebalanceRequest request = CADRE__V1__GET_REBALANCE_REQUEST__INIT;
	int exit_code;

	if (!cad_options_main(&show_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;
	exit_code = CL_EXIT_USAGE;
	if (take_id("rebalance show", parsed, false, &request.id))
		exit_code = cl_placement_ask("rebalance show", &options.change.placement,
			CL_PLACEMENT_METHOD("GetRebalance"), &request.base, &cadre__v1__rebalance__descriptor, on_shown,
			&options);
	cad_options_destroy(parsed);
	return exit_code;
}

/* ---- change ---- */

struct changed {
	const struct options *options;
	const char *command;
	bool follow;
	uint64_t id;
};

static bool on_changed(void *context, const ProtobufCMessage *message)
{
	struct changed *changed = context;
	const Cadre__V1__Rebalance *r = (const Cadre__V1__Rebalance *)message;

	changed->id = r->id;
	if (!changed->follow)
		cl_rebalance_print(changed->command, r, changed->options->change.placement.format);
	return true;
}

static int run(int argc, char **argv, const struct cad_options_spec *spec, const char *command,
	Cadre__V1__ChangeRebalanceRequest__Action action)
{
	struct options options = { .follow = { .wait = false } };
	struct cad_options *parsed;
	struct cl_session session = { .address = NULL };
	struct cad_error error;
	Cadre__V1__ChangeRebalanceRequest request = CADRE__V1__CHANGE_REBALANCE_REQUEST__INIT;
	Cadre__V1__Change change;
	struct changed changed = { .options = &options, .command = command };
	int exit_code;

	if (!cad_options_main(spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;
	exit_code = CL_EXIT_USAGE;
	if (!take_id(command, parsed, true, &request.id))
		goto destroy_options;

	request.change = cl_change_to_proto(&options.change, &change);
	request.action = action;
	changed.follow = action == CADRE__V1__CHANGE_REBALANCE_REQUEST__ACTION__ACTION_UNDO;
	enum cad_status status = cl_session_open(&session, &options.change.placement, &error);
	if (status == CAD_OK)
		status = cl_session_call(&session, CL_PLACEMENT_METHOD("ChangeRebalance"), &request.base,
			&cadre__v1__rebalance__descriptor, on_changed, &changed, NULL, &error);
	exit_code = status != CAD_OK ? cl_session_fail(&session, command, status, &error)
		: changed.follow
		? cl_follow(&session, command, &options.follow, options.change.placement.format, changed.id)
		: CL_EXIT_OK;
	cl_session_close(&session);

destroy_options:
	cad_options_destroy(parsed);
	return exit_code;
}

int cl_rebalance_pause(int argc, char **argv)
{
	return run(
		argc, argv, &pause_spec, "rebalance pause", CADRE__V1__CHANGE_REBALANCE_REQUEST__ACTION__ACTION_PAUSE);
}

int cl_rebalance_resume(int argc, char **argv)
{
	return run(argc, argv, &resume_spec, "rebalance resume",
		CADRE__V1__CHANGE_REBALANCE_REQUEST__ACTION__ACTION_RESUME);
}

int cl_rebalance_cancel(int argc, char **argv)
{
	return run(argc, argv, &cancel_spec, "rebalance cancel",
		CADRE__V1__CHANGE_REBALANCE_REQUEST__ACTION__ACTION_CANCEL);
}

int cl_rebalance_undo(int argc, char **argv)
{
	return run(argc, argv, &undo_spec, "rebalance undo", CADRE__V1__CHANGE_REBALANCE_REQUEST__ACTION__ACTION_UNDO);
}
