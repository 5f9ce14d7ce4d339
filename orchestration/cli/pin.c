/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl pin`, `unpin` and `replicate`: what an operator says about one expert. */
#include "cadre/v1/placement.pb-c.h"
#include "common/base/bytes.h"
#include "common/base/plural.h"
#include "orchestration/cli/operate.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct options {
	struct cl_change change;
};

static const struct cad_option table[] = {
	CL_CHANGE_OPTIONS(struct options, change),
};

#define SPEC(command, text, arguments, most) \
	{ \
		.program = "cadrectl " command, .summary = (text), .positional = (arguments), \
		.positional_max = (most), .table = table, .count = sizeof table / sizeof *table, \
		.check = cl_change_check, .check_files = cl_placement_check_files, \
	}
static const struct cad_options_spec pin_spec = SPEC("pin",
	"Keeps one copy of an expert on a node, from now on: it takes the place of another copy. Plans, levelling and drains keep to it; 'cadrectl unpin' ends it.",
	"LAYER EXPERT NODE", 3);
static const struct cad_options_spec unpin_spec = SPEC("unpin",
	"An expert may be anywhere again; it stays where it is until something else moves it.", "LAYER EXPERT", 2);
static const struct cad_options_spec replicate_spec = SPEC("replicate",
	"Keeps at least so many copies of an expert, on different nodes; 1: as many as of every other.",
	"LAYER EXPERT COPIES", 3);

/* ---- arguments ---- */

static bool take_number(const char *command, const char *what, const char *text, uint32_t *value)
{
	char *end;
	errno = 0;
	unsigned long found = strtoul(text, &end, 10);

	if (errno == 0 && end != text && !*end && *text != '-' && found <= UINT32_MAX) {
		*value = (uint32_t)found;
		return true;
	}
	cl_line(stderr, "cadrectl %s: %s '%.40s' is no whole number", command, what, text);
	return false;
}

/* Layer and expert; false: they are wrong, or too few arguments were given, and that was said. */
static bool take_expert(const struct cad_options_spec *spec, const char *command, const struct cad_options *parsed,
	uint32_t *layer, uint32_t *expert)
{
	if (cad_options_positional_count(parsed) != spec->positional_max) {
		fprintf(stderr, "cadrectl %s: give %s\n", command, spec->positional);
		return false;
	}
	return take_number(command, "layer", cad_options_positional(parsed, 0), layer) &&
		take_number(command, "expert", cad_options_positional(parsed, 1), expert);
}

/* ---- the answer ---- */

static bool on_changed(void *context, const ProtobufCMessage *message)
{
	const struct options *options = context;
	const Cadre__V1__Changed *changed = (const Cadre__V1__Changed *)message;
	char bytes[CAD_BYTES_TEXT_BYTES];

	if (options->change.placement.format == CL_FORMAT_JSON)
		cl_print_json(json_pack("{s:I, s:I, s:b}", "moves", (json_int_t)changed->moves, "bytes",
			(json_int_t)changed->bytes, "dry_run", options->change.dry_run));
	else
		printf("%s: %u %s, %s\n", options->change.dry_run ? "dry run" : "done", changed->moves,
			cad_plural(changed->moves, "move", "moves"), cad_bytes_text(changed->bytes, bytes));
	return true;
}

static int ask(const char *command, const struct options *options, const char *method, const ProtobufCMessage *request)
{
	return cl_placement_ask(command, &options->change.placement, method, request, &cadre__v1__changed__descriptor,
		on_changed, (void *)(uintptr_t)options);
}

/* ---- the commands ---- */

static int pin(int argc, char **argv, const struct cad_options_spec *spec, const char *command)
{
	struct options options;
	struct cad_options *parsed;
	Cadre__V1__SetPinRequest request = CADRE__V1__SET_PIN_REQUEST__INIT;
	Cadre__V1__Change change;
	int exit_code;

	if (!cad_options_main(spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	request.change = cl_change_to_proto(&options.change, &change);
	exit_code = CL_EXIT_USAGE;
	if (take_expert(spec, command, parsed, &request.layer, &request.expert)) {
		if (spec->positional_max == 3)
			request.node = (char *)cad_options_positional(parsed, 2);
		if (spec->positional_max == 3 && !request.node[0])
			fprintf(stderr, "cadrectl %s: give the id of an expert node; 'cadrectl status' has them\n",
				command);
		else
			exit_code = ask(command, &options, CL_PLACEMENT_METHOD("SetPin"), &request.base);
	}

	cad_options_destroy(parsed);
	return exit_code;
}

int cl_pin(int argc, char **argv) { return pin(argc, argv, &pin_spec, "pin"); }

int cl_unpin(int argc, char **argv) { return pin(argc, argv, &unpin_spec, "unpin"); }

int cl_replicate(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	Cadre__V1__SetCopiesRequest request = CADRE__V1__SET_COPIES_REQUEST__INIT;
	Cadre__V1__Change change;
	int exit_code;

	if (!cad_options_main(&replicate_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	request.change = cl_change_to_proto(&options.change, &change);
	exit_code = CL_EXIT_USAGE;
	if (take_expert(&replicate_spec, "replicate", parsed, &request.layer, &request.expert) &&
		take_number("replicate", "copies", cad_options_positional(parsed, 2), &request.copies))
		exit_code = ask("replicate", &options, CL_PLACEMENT_METHOD("SetCopies"), &request.base);
	cad_options_destroy(parsed);
	return exit_code;
}
