/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl auto on|off|status`: whether the cluster moves experts by itself. */
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "orchestration/cli/operate.h"
#include "orchestration/cli/share.h"

#include <jansson.h>
#include <stdio.h>

struct options {
	struct cl_change change;
	uint64_t every_ns, bytes_per_hour;
	const char *gain_min;
};

static const struct cad_option on_table[] = {
	CAD_OPTION_DURATION(struct options, every_ns, "every", "0s", 0, 24 * 3600 * CAD_NS_PER_S,
		"how often to look, 1s at least; 0s: as before, at first every 10m"),
	CAD_OPTION_STRING(struct options, gain_min, "gain-min", "",
		"the least predicted gain that is worth moving experts: 3% or 0.03; empty: as before, at first 3%"),
	CAD_OPTION_BYTES(struct options, bytes_per_hour, "bytes-per-hour", "0", 0, UINT64_MAX,
		"how much it may move within an hour; 0: as before, at first 20G"),
	CL_CHANGE_OPTIONS(struct options, change),
};

static const struct cad_option off_table[] = {
	CL_CHANGE_OPTIONS(struct options, change),
};

static const struct cad_option status_table[] = { CL_PLACEMENT_OPTIONS(struct options, change.placement) };

static enum cad_status check_on(const void *values, struct cad_error *error)
{
	const struct options *options = values;
	double share;

	if (options->gain_min[0] && (!cl_share_parse(options->gain_min, &share) || share <= 0 || share >= 1))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--gain-min '%.40s': give a share above 0 and below 1, like 3%% or 0.03", options->gain_min);
	if (options->every_ns && options->every_ns < CAD_NS_PER_S)
		return cad_error_set(
			error, CAD_ERR_INVALID, "--every is below 1s: give 1s or more, or 0s to leave it as it is");
	return cl_change_check(options, error);
}

static const struct cad_options_spec on_spec = {
	.program = "cadrectl auto on",
	.summary =
		"Lets the placement service move experts by itself, when a plan is worth it on tokens that it has not seen. 'cadrectl history' says what it did, and why not.",
	.table = on_table,
	.count = sizeof on_table / sizeof *on_table,
	.check = check_on,
	.check_files = cl_placement_check_files,
};
static const struct cad_options_spec off_spec = {
	.program = "cadrectl auto off",
	.summary = "The placement service moves experts only when it is told to. What is under way goes on.",
	.table = off_table,
	.count = sizeof off_table / sizeof *off_table,
	.check = cl_change_check,
	.check_files = cl_placement_check_files,
};
static const struct cad_options_spec status_spec = {
	.program = "cadrectl auto status",
	.summary = "Shows whether the automatic mode is on, what it is told, and what came of its last look.",
	.table = status_table,
	.count = sizeof status_table / sizeof *status_table,
	.check = cl_placement_check,
	.check_files = cl_placement_check_files,
};

static bool on_status(void *context, const ProtobufCMessage *message)
{
	const struct options *options = context;
	const Cadre__V1__AutoStatus *status = (const Cadre__V1__AutoStatus *)message;
	const Cadre__V1__AutoSettings *settings = status->settings;
	char most[CAD_BYTES_TEXT_BYTES], moved[CAD_BYTES_TEXT_BYTES];

	if (!settings)
		return true;
	if (options->change.placement.format == CL_FORMAT_JSON) {
		cl_print_json(
			json_pack("{s:b, s:f, s:f, s:I, s:s, s:f, s:f, s:I, s:b}", "on", settings->on, "every_seconds",
				(double)settings->every_ms * 1e-3, "gain_min", settings->gain_min, "bytes_per_hour",
				(json_int_t)settings->bytes_per_hour, "last", status->last, "last_seconds_ago",
				(double)status->last_ms * 1e-3, "next_seconds", (double)status->next_ms * 1e-3,
				"bytes_moved", (json_int_t)status->bytes_moved, "dry_run", options->change.dry_run));
		return true;
	}

	if (options->change.dry_run)
		printf("dry run: that can be done, and nothing was changed\n");
	printf("auto is %s: it looks every %.0f s, wants a gain of %.4g %%, and moves at most %s within an hour (%s in the last)\n",
		settings->on ? "on" : "off", (double)settings->every_ms * 1e-3, 100 * settings->gain_min,
		cad_bytes_text(settings->bytes_per_hour, most), cad_bytes_text(status->bytes_moved, moved));
	if (status->last[0])
		cl_line(stdout, "last look, %.0f s ago: %s", (double)status->last_ms * 1e-3, status->last);
	if (settings->on)
		printf("next look in %.0f s\n", (double)status->next_ms * 1e-3);
	return true;
}

static int set(int argc, char **argv, const struct cad_options_spec *spec, const char *command, bool on)
{
	struct options options = { .gain_min = "" };
	struct cad_options *parsed;
	Cadre__V1__SetAutoRequest request = CADRE__V1__SET_AUTO_REQUEST__INIT;
	Cadre__V1__AutoSettings settings = CADRE__V1__AUTO_SETTINGS__INIT;
	Cadre__V1__Change change;
	int exit_code;

	if (!cad_options_main(spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	settings.on = on;
	settings.every_ms = options.every_ns / CAD_NS_PER_MS;
	settings.bytes_per_hour = options.bytes_per_hour;
	(void)cl_share_parse(options.gain_min, &settings.gain_min);
	request.settings = &settings;
	request.change = cl_change_to_proto(&options.change, &change);
	exit_code = cl_placement_ask(command, &options.change.placement, CL_PLACEMENT_METHOD("SetAuto"), &request.base,
		&cadre__v1__auto_status__descriptor, on_status, &options);
	cad_options_destroy(parsed);
	return exit_code;
}

int cl_auto_on(int argc, char **argv) { return set(argc, argv, &on_spec, "auto on", true); }

int cl_auto_off(int argc, char **argv) { return set(argc, argv, &off_spec, "auto off", false); }

int cl_auto_status(int argc, char **argv)
{
	struct options options = { .gain_min = "" };
	struct cad_options *parsed;
	Cadre__V1__GetAutoRequest request = CADRE__V1__GET_AUTO_REQUEST__INIT;
	int exit_code;

	if (!cad_options_main(&status_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;
	exit_code = cl_placement_ask("auto status", &options.change.placement, CL_PLACEMENT_METHOD("GetAuto"),
		&request.base, &cadre__v1__auto_status__descriptor, on_status, &options);
	cad_options_destroy(parsed);
	return exit_code;
}
