/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/follow.h"

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/plural.h"
#include "orchestration/cli/effect.h"
#include "orchestration/cli/when.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_MS = 250, LINE_EVERY_S = 10 };

const char *cl_rebalance_state_name(Cadre__V1__RebalanceState state)
{
	static const char *const names[] = { "unknown", "planning", "running", "paused", "done", "cancelled", "failed",
		"undone" };
	return state > 0 && (size_t)state < sizeof names / sizeof names[0] ? names[state] : names[0];
}

/* ---- printing ---- */

static json_t *id_to_json(uint64_t id) { return id ? json_integer((json_int_t)id) : json_null(); }

json_t *cl_rebalance_to_json(const Cadre__V1__Rebalance *r)
{
	char started[CL_WHEN_BYTES];
	json_t *warnings = json_array();

	cl_when_iso(started, r->started_ms);
	for (size_t i = 0; i < r->n_warnings; i++)
		(void)json_array_append_new(warnings, json_string(r->warnings[i]));
	json_t *json = json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:o, s:b, s:b, s:o, s:o}", "id", (json_int_t)r->id,
		"state", cl_rebalance_state_name(r->state), "what", r->what, "who", r->who, "reason", r->reason, "text",
		r->text, "warnings", warnings, "dry_run", r->dry_run, "measuring", r->measuring, "predicted",
		cl_effect_to_json(r->predicted), "measured", cl_effect_to_json(r->measured));
	json_t *more = json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:s, s:o, s:o}", "moves",
		(json_int_t)r->moves, "moves_done", (json_int_t)r->moves_done, "moves_failed",
		(json_int_t)r->moves_failed, "bytes", (json_int_t)r->bytes, "bytes_done", (json_int_t)r->bytes_done,
		"seconds", r->seconds, "planning_seconds", r->planning_seconds, "tokens_planned_on",
		(json_int_t)r->tokens_planned_on, "tokens_measured_on", (json_int_t)r->tokens_measured_on, "started",
		started, "undoes", id_to_json(r->undoes), "undone_by", id_to_json(r->undone_by));

	if (json && more)
		(void)json_object_update(json, more);
	json_decref(more);
	return json;
}

static void print_value(const Cadre__V1__EffectPoint *point, double value, const char *format)
{
	char text[24] = "-";
	if (point && value > 0)
		snprintf(text, sizeof text, format, value);
	printf(" %11s", text);
}

static void print_figures(const Cadre__V1__Rebalance *r)
{
	const Cadre__V1__EffectPoint *points[] = {
		r->predicted ? r->predicted->before : NULL,
		r->predicted ? r->predicted->after : NULL,
		r->measured ? r->measured->before : NULL,
		r->measured ? r->measured->after : NULL,
	};

	if (!points[0] && !points[1] && !points[2] && !points[3])
		return;
	printf("\n%-28s %23s %23s\n%-28s %11s %11s %11s %11s\n", "", "predicted", "measured", "", "before", "after",
		"before", "after");
	printf("%-28s", "nodes per token and layer");
	for (int i = 0; i < 4; i++)
		print_value(points[i], points[i] ? points[i]->nodes_per_token : 0, "%.3f");
	printf("\n%-28s", "bytes per token and layer");
	for (int i = 0; i < 4; i++)
		print_value(points[i], points[i] ? points[i]->bytes_per_token : 0, "%.0f");
	printf("\n%-28s", "busiest node over the mean");
	for (int i = 0; i < 4; i++)
		print_value(points[i], points[i] ? points[i]->load_max_over_mean : 0, "%.3f");
	printf("\n");
}

static void print_table(const Cadre__V1__Rebalance *r)
{
	char bytes[CAD_BYTES_TEXT_BYTES];

	cl_line(stdout, "%s (%llu)%s: %s%s%s", r->what, (unsigned long long)r->id, r->dry_run ? ", dry run" : "",
		cl_rebalance_state_name(r->state), r->text[0] ? ", " : "", r->text);
	if (r->reason[0])
		cl_line(stdout, "  by %s: %s", r->who, r->reason);
	if (r->tokens_planned_on && r->tokens_measured_on)
		printf("  planned in %.1f s on %llu tokens, the prediction is of %llu others\n", r->planning_seconds,
			(unsigned long long)r->tokens_planned_on, (unsigned long long)r->tokens_measured_on);
	printf("  %u %s to load, %s", r->moves, cad_plural(r->moves, "copy", "copies"),
		cad_bytes_text(r->bytes, bytes));
	if (!r->dry_run && r->state != CADRE__V1__REBALANCE_STATE__REBALANCE_STATE_PLANNING)
		printf("; %u done in %.1f s, %u backed out", r->moves_done, r->seconds, r->moves_failed);
	printf("%s\n", r->measuring ? "; the effect is being measured" : "");
	if (r->undone_by)
		printf("  undone by rebalance %llu\n", (unsigned long long)r->undone_by);
	print_figures(r);
}

void cl_rebalance_print(const char *command, const Cadre__V1__Rebalance *r, enum cl_format format)
{
	for (size_t i = 0; i < r->n_warnings; i++)
		cl_line(stderr, "cadrectl %s: %s", command, r->warnings[i]);
	if (format == CL_FORMAT_JSON)
		cl_print_json(cl_rebalance_to_json(r));
	else
		print_table(r);
}

/* ---- following ---- */

/* What a look saw, and whether that is the end. */
struct following {
	const char *command;
	const struct cl_follow *follow;
	enum cl_format format;
	bool over, terminal; /* terminal: stderr is one */
	int exit_code;
	char shown[160];
	uint64_t shown_ns;
};

static bool is_over(const Cadre__V1__Rebalance *r, const struct cl_follow *follow)
{
	if (r->state == CADRE__V1__REBALANCE_STATE__REBALANCE_STATE_PLANNING)
		return false;
	bool moving = r->state == CADRE__V1__REBALANCE_STATE__REBALANCE_STATE_RUNNING ||
		r->state == CADRE__V1__REBALANCE_STATE__REBALANCE_STATE_PAUSED;
	if (follow->wait)
		return !moving && !r->measuring;
	return !follow->wait_moves || !moving;
}

/* On a terminal one line that changes, else a line now and then. */
static void show(struct following *following, const char *text)
{
	uint64_t now = cad_clock_now_ns(&cad_clock_system);

	if (following->terminal) {
		fprintf(stderr, "\r%-100.100s", text);
		return;
	}
	if (strcmp(text, following->shown) == 0 || now < following->shown_ns + LINE_EVERY_S * CAD_NS_PER_S)
		return;
	snprintf(following->shown, sizeof following->shown, "%s", text);
	following->shown_ns = now;
	fprintf(stderr, "%s\n", text);
}

static void hide(struct following *following)
{
	if (following->terminal)
		fprintf(stderr, "\r%100s\r", "");
}

static void show_progress(struct following *following, const Cadre__V1__Rebalance *r)
{
	char text[160], done[CAD_BYTES_TEXT_BYTES], all[CAD_BYTES_TEXT_BYTES];

	if (r->state == CADRE__V1__REBALANCE_STATE__REBALANCE_STATE_PLANNING)
		snprintf(text, sizeof text, "rebalance %llu: planning", (unsigned long long)r->id);
	else if (r->measuring)
		snprintf(text, sizeof text, "rebalance %llu: %u %s done in %.1f s, measuring",
			(unsigned long long)r->id, r->moves_done, cad_plural(r->moves_done, "move", "moves"),
			r->seconds);
	else
		snprintf(text, sizeof text, "rebalance %llu: %s, %u of %u %s, %s of %s, %u under way",
			(unsigned long long)r->id, cl_rebalance_state_name(r->state), r->moves_done, r->moves,
			cad_plural(r->moves, "move", "moves"), cad_bytes_text(r->bytes_done, done),
			cad_bytes_text(r->bytes, all), r->moves_in_flight);
	show(following, text);
}

static bool on_rebalance(void *context, const ProtobufCMessage *message)
{
	struct following *following = context;
	const Cadre__V1__Rebalance *r = (const Cadre__V1__Rebalance *)message;

	following->over = is_over(r, following->follow);
	if (following->over) {
		hide(following);
		cl_rebalance_print(following->command, r, following->format);
		if (r->state == CADRE__V1__REBALANCE_STATE__REBALANCE_STATE_FAILED ||
			r->state == CADRE__V1__REBALANCE_STATE__REBALANCE_STATE_CANCELLED) {
			cl_line(stderr, "cadrectl %s: rebalance %llu %s: %s", following->command,
				(unsigned long long)r->id, cl_rebalance_state_name(r->state), r->text);
			following->exit_code = CL_EXIT_FAILED;
		}
	} else {
		show_progress(following, r);
	}
	return true;
}

/* CAD_OK also when the service is away for a moment. */
static enum cad_status look(struct cl_session *session, struct following *following, uint64_t id, uint64_t *heard_ns,
	struct cad_error *error)
{
	Cadre__V1__GetRebalanceRequest request = CADRE__V1__GET_REBALANCE_REQUEST__INIT;
	enum cad_rpc_code code;

	request.id = id;
	enum cad_status status = cl_session_call(session, CL_PLACEMENT_METHOD("GetRebalance"), &request.base,
		&cadre__v1__rebalance__descriptor, on_rebalance, following, &code, error);
	if (status == CAD_OK) {
		*heard_ns = cad_clock_now_ns(&cad_clock_system);
		return CAD_OK;
	}
	if (!cl_session_is_away(code, *heard_ns))
		return status;
	show(following, "the placement service does not answer: waiting for it");
	return CAD_OK;
}

int cl_follow(struct cl_session *session, const char *command, const struct cl_follow *follow, enum cl_format format,
	uint64_t id)
{
	struct following following = {
		.command = command,
		.follow = follow,
		.format = format,
		.terminal = isatty(STDERR_FILENO) == 1,
	};
	struct cad_error error;
	uint64_t heard_ns = cad_clock_now_ns(&cad_clock_system);
	enum cad_status status = CAD_OK;

	while (status == CAD_OK && !following.over && !cl_interrupted()) {
		status = look(session, &following, id, &heard_ns, &error);
		if (status == CAD_OK && !following.over)
			cad_rpc_blocking_pause(session->client.rpc, LOOK_MS);
	}
	if (following.over)
		return following.exit_code;

	hide(&following);
	fprintf(stderr,
		"rebalance %llu goes on: 'cadrectl rebalance show %llu' shows it, 'cadrectl rebalance cancel %llu' ends it\n",
		(unsigned long long)id, (unsigned long long)id, (unsigned long long)id);
	return cl_fail(command, &error);
}
