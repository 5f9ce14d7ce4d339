/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl history`: who changed what in the cluster, and why. */
#include "cadre/v1/placement.pb-c.h"
#include "common/base/clock.h"
#include "orchestration/cli/effect.h"
#include "orchestration/cli/operate.h"
#include "orchestration/cli/when.h"

#include <jansson.h>

struct options {
	struct cl_placement placement;
	uint64_t since_ns;
};

static const struct cad_option table[] = {
	CAD_OPTION_DURATION(struct options, since_ns, "since", "24h", 0, 366 * 24 * 3600 * CAD_NS_PER_S,
		"only what happened within this time; 0s: everything that is kept"),
	CL_PLACEMENT_OPTIONS(struct options, placement),
};

static const struct cad_options_spec spec = {
	.program = "cadrectl history",
	.summary = "Shows who changed what in the cluster and why, and what the placement service did by itself.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.check = cl_placement_check,
	.check_files = cl_placement_check_files,
};

static void print_effect(const char *name, const Cadre__V1__Effect *effect)
{
	char text[CL_EFFECT_TEXT_BYTES];

	cl_effect_text(effect, text);
	if (text[0])
		printf("%21s%s: %s\n", "", name, text);
}

static void print_entry(const Cadre__V1__HistoryEntry *entry)
{
	char last[CL_WHEN_BYTES], first[CL_WHEN_BYTES], times[80] = "";

	cl_when_plain(last, entry->last_ms);
	cl_when_plain(first, entry->first_ms);
	if (entry->times > 1)
		snprintf(times, sizeof times, " (%llu times since %s)", (unsigned long long)entry->times, first);
	cl_line(stdout, "%s  %-16s  %s%s%s%s", last, entry->who, entry->what, entry->outcome[0] ? ": " : "",
		entry->outcome, times);
	if (entry->why[0])
		cl_line(stdout, "%21swhy: %s", "", entry->why);
	print_effect("predicted", entry->predicted);
	print_effect("measured", entry->measured);
}

static json_t *entry_to_json(const Cadre__V1__HistoryEntry *entry)
{
	char first[CL_WHEN_BYTES], last[CL_WHEN_BYTES];

	cl_when_iso(first, entry->first_ms);
	cl_when_iso(last, entry->last_ms);
	return json_pack("{s:I, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:o, s:o}", "id", (json_int_t)entry->id, "first",
		first, "last", last, "times", (json_int_t)entry->times, "who", entry->who, "what", entry->what, "why",
		entry->why, "outcome", entry->outcome, "predicted", cl_effect_to_json(entry->predicted), "measured",
		cl_effect_to_json(entry->measured));
}

static bool on_history(void *context, const ProtobufCMessage *message)
{
	const struct options *options = context;
	const Cadre__V1__History *history = (const Cadre__V1__History *)message;

	if (options->placement.format == CL_FORMAT_TABLE) {
		for (size_t i = 0; i < history->n_entries; i++)
			print_entry(history->entries[i]);
		return true;
	}

	json_t *entries = json_array();
	for (size_t i = 0; i < history->n_entries; i++)
		(void)json_array_append_new(entries, entry_to_json(history->entries[i]));
	cl_print_json(json_pack("{s:o}", "entries", entries));
	return true;
}

int cl_history(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	Cadre__V1__GetHistoryRequest request = CADRE__V1__GET_HISTORY_REQUEST__INIT;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	request.since_ms = options.since_ns / CAD_NS_PER_MS;
	exit_code = cl_placement_ask("history", &options.placement, CL_PLACEMENT_METHOD("GetHistory"), &request.base,
		&cadre__v1__history__descriptor, on_history, &options);
	cad_options_destroy(parsed);
	return exit_code;
}
