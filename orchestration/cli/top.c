/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl top`: what the nodes do now, again and again. Plain text with three ANSI sequences
 * (cursor home, erase to the end of the line, of the screen): nothing of the terminal is changed,
 * so nothing has to be put back. */
#include "cadre/v1/placement.pb-c.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/plural.h"
#include "orchestration/cli/figures.h"
#include "orchestration/cli/follow.h"
#include "orchestration/cli/operate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { COLUMNS = 80, LINES_DEFAULT = 24, HOTTEST = 5, BREAKERS = 3, LOOK_MS = 100, LINES_ANY = 1 << 20 };

struct options {
	struct cl_placement placement;
	bool once;
	uint64_t every_ns;
};

static const struct cad_option table[] = {
	CAD_OPTION_BOOL(struct options, once, "once", "false", "print it once, with all nodes, and end"),
	CAD_OPTION_DURATION(struct options, every_ns, "every", "1s", 100 * CAD_NS_PER_MS, 3600 * CAD_NS_PER_S,
		"how often it is asked for"),
	CL_PLACEMENT_OPTIONS(struct options, placement),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *options = values;
	if (options->placement.format == CL_FORMAT_JSON && !options->once)
		return cad_error_set(error, CAD_ERR_INVALID, "-o json prints one object: give --once with it");
	return cl_placement_check(options, error);
}

static const struct cad_options_spec spec = {
	.program = "cadrectl top",
	.summary =
		"Shows what the cluster does now, until Ctrl-C: tokens, nodes per token, and of each node rows per second, the share of the time in which it computes, and calls that wait; of each router the share of its calls that were late and went to copies too, and what its circuit breakers leave out; experts that move; for operators the hottest experts, which are as confidential as prompts. Never wider than 80 columns.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.check = check,
	.check_files = cl_placement_check_files,
};

/* ---- what is shown ---- */

static bool is_live_expert(const Cadre__V1__NodeStatus *node)
{
	return node->role == CADRE__V1__ROLE__ROLE_EXPERT && node->state == CADRE__V1__NODE_STATE__NODE_STATE_LIVE;
}

/* In percent, as it is shown: what looks equal is in the order of names. */
static long busy_of(const Cadre__V1__NodeStatus *node) { return node->work ? lround(100 * node->work->busy) : 0; }

/* Expert nodes first, the busiest first; then by name. */
static int by_business(const void *a, const void *b)
{
	const Cadre__V1__NodeStatus *x = *(Cadre__V1__NodeStatus *const *)a, *y = *(Cadre__V1__NodeStatus *const *)b;
	if (x->role != y->role)
		return (int)y->role - (int)x->role;
	if (busy_of(x) != busy_of(y))
		return busy_of(x) < busy_of(y) ? 1 : -1;
	return strcmp(x->id, y->id);
}

static void print_head(FILE *stream, const Cadre__V1__ClusterStatus *status)
{
	const Cadre__V1__Figures *figures = cl_figures_find(status, 10);
	uint32_t experts = 0, routers = 0;
	char sent[16], received[16];

	for (size_t i = 0; i < status->n_nodes; i++) {
		experts += is_live_expert(status->nodes[i]);
		routers += status->nodes[i]->role == CADRE__V1__ROLE__ROLE_ROUTER &&
			status->nodes[i]->state == CADRE__V1__NODE_STATE__NODE_STATE_LIVE;
	}
	cl_line(stream, "%.32s: %u expert %s, %u %s, epoch %llu", status->cluster, experts,
		cad_plural(experts, "node", "nodes"), routers, cad_plural(routers, "router", "routers"),
		(unsigned long long)status->epoch);
	if (status->experts_unplaced)
		cl_line(stream, "ATTENTION: no node holds %u of %u experts", status->experts_unplaced,
			status->moe_layers * status->experts_per_layer);
	if (!figures) {
		cl_line(stream, "nothing was routed in the last 10 s");
		return;
	}
	cl_short_bytes(figures->bytes_sent_per_token, sent);
	cl_short_bytes(figures->bytes_received_per_token, received);
	cl_line(stream, "%.1f tokens/s; a token and layer: %.2f nodes, %s bytes out, %s back",
		figures->tokens_per_second, figures->nodes_per_token, sent, received);
	cl_line(stream, "busiest over mean: load %.2f, experts in a step %.2f (mean %.1f); 10 s",
		figures->load_max_over_mean, figures->activated_max_over_mean, figures->activated);
}

/* Nodes and copies that a router leaves out now. */
static uint32_t open_of(const Cadre__V1__NodeStatus *node)
{
	return node->expert_calls ? node->expert_calls->breakers_open + node->expert_calls->copies_open : 0;
}

static uint32_t count_open(const Cadre__V1__ClusterStatus *status)
{
	uint32_t open = 0;
	for (size_t i = 0; i < status->n_nodes; i++)
		open += open_of(status->nodes[i]);
	return open;
}

/* Some of them, and how many more there are. */
static void print_breakers(FILE *stream, const Cadre__V1__ClusterStatus *status)
{
	uint32_t open = count_open(status), shown = 0;

	for (size_t i = 0; i < status->n_nodes; i++) {
		const Cadre__V1__ExpertCalls *calls = status->nodes[i]->expert_calls;
		for (size_t b = 0; calls && b < calls->n_breakers && shown < BREAKERS; b++, shown++) {
			const Cadre__V1__Breaker *breaker = calls->breakers[b];
			char copy[40] = "";
			if (breaker->copy)
				snprintf(copy, sizeof copy, "layer %u expert %u of ", breaker->copy->layer,
					breaker->copy->expert);
			cl_line(stream, "%.24s leaves out %s%.24s: %s", status->nodes[i]->id, copy, breaker->node,
				breaker->why);
		}
	}
	if (open > shown)
		cl_line(stream, "and %u more; see cadrectl status", open - shown);
}

/* What is wrong, and what is being moved: a line each. */
static void print_news(FILE *stream, const Cadre__V1__ClusterStatus *status)
{
	const Cadre__V1__Rebalance *r = status->rebalance;
	size_t troubled = status->n_refused;
	char done[CAD_BYTES_TEXT_BYTES], all[CAD_BYTES_TEXT_BYTES];

	for (size_t i = 0; i < status->n_nodes; i++) {
		const Cadre__V1__NodeStatus *node = status->nodes[i];
		troubled += node->problem[0] != 0 || node->absence[0] != 0;
	}
	if (troubled > 0)
		cl_line(stream, "ATTENTION: %zu %s a problem; see cadrectl status", troubled,
			cad_plural(troubled, "node has", "nodes have"));
	print_breakers(stream, status);
	if (r && !r->measuring)
		cl_line(stream, "rebalance %llu, %s: %u of %u %s, %u in flight, %s of %s", (unsigned long long)r->id,
			cl_rebalance_state_name(r->state), r->moves_done, r->moves,
			cad_plural(r->moves, "move", "moves"), r->moves_in_flight, cad_bytes_text(r->bytes_done, done),
			cad_bytes_text(r->bytes, all));
}

/* Of less than a millisecond in small models. */
static void print_step(double ms, char text[24])
{
	if (ms <= 0)
		snprintf(text, 24, "-");
	else if (ms < 1)
		snprintf(text, 24, "%.0f us", ms * 1e3);
	else
		snprintf(text, 24, "%.4g ms", ms);
}

static void print_expert(FILE *stream, const Cadre__V1__NodeStatus *node)
{
	static const Cadre__V1__NodeWork idle = CADRE__V1__NODE_WORK__INIT;
	const Cadre__V1__NodeWork *work = node->work ? node->work : &idle;
	char step[24];

	print_step(work->step_ms, step);

	cl_line(stream, "%-24.24s %-4s %7u %10.1f %5ld%% %6u %7.1f %8s", node->id,
		is_live_expert(node) ? "live" : "dead", node->experts, work->rows_per_second, busy_of(node),
		node->queue, work->waiting, step);
}

static void print_router(FILE *stream, const Cadre__V1__NodeStatus *node)
{
	static const Cadre__V1__RouterWork idle = CADRE__V1__ROUTER_WORK__INIT;
	const Cadre__V1__RouterWork *work = node->router_work ? node->router_work : &idle;
	double hedged = work->calls_per_second > 0 ? work->hedged_per_second / work->calls_per_second : 0;

	cl_line(stream, "%-24.24s %-4s %10.1f %10u %8u %6.2f%% %8u", node->id,
		node->state == CADRE__V1__NODE_STATE__NODE_STATE_LIVE ? "live" : "dead", work->tokens_per_second,
		node->sequences, node->queue, 100 * hedged, open_of(node));
}

static size_t count_role(const Cadre__V1__ClusterStatus *status, Cadre__V1__Role role)
{
	size_t count = 0;
	for (size_t i = 0; i < status->n_nodes; i++)
		count += status->nodes[i]->role == role;
	return count;
}

/* At most `max` of a role, and how many are left out. */
static void print_nodes(FILE *stream, const Cadre__V1__ClusterStatus *status, Cadre__V1__Role role, size_t max)
{
	size_t count = count_role(status, role), shown = 0;

	for (size_t i = 0; i < status->n_nodes && shown < max; i++) {
		if (status->nodes[i]->role != role)
			continue;
		shown++;
		if (role == CADRE__V1__ROLE__ROLE_EXPERT)
			print_expert(stream, status->nodes[i]);
		else
			print_router(stream, status->nodes[i]);
	}
	if (shown < count)
		cl_line(stream, "(%zu more: --once)", count - shown);
}

/* Expert nodes have what routers and hottest experts leave of the lines. */
static void print_all(FILE *stream, const Cadre__V1__ClusterStatus *status, size_t lines)
{
	enum { HEAD = 6, TITLES = 6, EXPERTS_MIN = 3, ROUTERS = 4 };
	size_t routers = count_role(status, CADRE__V1__ROLE__ROLE_ROUTER),
	       hottest = status->n_hottest < HOTTEST ? status->n_hottest : HOTTEST;
	routers = lines < LINES_ANY && routers > ROUTERS ? ROUTERS : routers;
	uint32_t open = count_open(status);
	size_t taken = HEAD + TITLES + (open > BREAKERS ? BREAKERS + 1 : open) + routers + hottest;

	if (status->n_nodes > 1)
		qsort(status->nodes, status->n_nodes, sizeof *status->nodes, by_business);
	print_head(stream, status);
	print_news(stream, status);
	fputc('\n', stream);
	cl_line(stream, "%-24s %-4s %7s %10s %6s %6s %7s %8s", "EXPERT NODE", "", "EXPERTS", "ROWS/S", "BUSY", "QUEUE",
		"WAITING", "STEP");
	print_nodes(stream, status, CADRE__V1__ROLE__ROLE_EXPERT,
		lines > taken + EXPERTS_MIN ? lines - taken : EXPERTS_MIN);
	cl_line(stream, "%-24s %-4s %10s %10s %8s %7s %8s", "ROUTER", "", "TOKENS/S", "SEQUENCES", "WAITING", "HEDGED",
		"BREAKERS");
	print_nodes(stream, status, CADRE__V1__ROLE__ROLE_ROUTER, routers);
	if (hottest > 0)
		cl_line(stream, "HOTTEST EXPERTS of the last minute");
	cl_figures_print_hottest(stream, status, hottest);
}

static json_t *to_json(const Cadre__V1__ClusterStatus *status)
{
	json_t *nodes = json_array(),
	       *object = json_pack("{s:s, s:I}", "cluster", status->cluster, "epoch", (json_int_t)status->epoch);

	for (size_t i = 0; i < status->n_nodes; i++) {
		const Cadre__V1__NodeStatus *node = status->nodes[i];
		bool live = node->state == CADRE__V1__NODE_STATE__NODE_STATE_LIVE;
		(void)json_array_append_new(nodes,
			json_pack("{s:s, s:s, s:s, s:I, s:f, s:I, s:I, s:o, s:o*}", "id", node->id, "role",
				node->role == CADRE__V1__ROLE__ROLE_EXPERT ? "expert" : "router", "state",
				live ? "live" : "dead", "experts", (json_int_t)node->experts, "tokens_per_second",
				node->tokens_per_second, "sequences", (json_int_t)node->sequences, "queue",
				(json_int_t)node->queue, "work", cl_work_to_json(node), "expert_calls",
				cl_calls_to_json(node->expert_calls)));
	}
	(void)json_object_set_new(object, "nodes", nodes);
	cl_figures_to_json(status, object);
	(void)json_object_set_new(
		object, "rebalance", status->rebalance ? cl_rebalance_to_json(status->rebalance) : json_null());
	return object;
}

/* ---- the screen ---- */

struct screen {
	const struct options *options;
	bool terminal; /* it is shown in place */
	bool begun;
};

static size_t lines_of(const struct screen *screen)
{
	struct winsize size;
	if (screen->options->once || !screen->terminal)
		return LINES_ANY;
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row - 1u : LINES_DEFAULT;
}

/* Lines are cut where the screen ends, between characters. */
static void put_frame(struct screen *screen, const char *text, size_t lines)
{
	if (screen->terminal)
		fputs(screen->begun ? "\033[H" : "\033[H\033[2J", stdout);
	for (size_t line = 0; *text && line < lines; line++) {
		size_t length = strcspn(text, "\n"), width = length < COLUMNS ? length : COLUMNS;
		while (width < length && width > 0 && ((unsigned char)text[width] & 0xc0) == 0x80)
			width--;
		printf("%.*s%s\n", (int)width, text, screen->terminal ? "\033[K" : "");
		text += length + (text[length] == '\n');
	}
	if (screen->terminal)
		fputs("\033[J", stdout);
	else if (!screen->options->once)
		putchar('\n');
	fflush(stdout);
	screen->begun = true;
}

static bool on_status(void *context, const ProtobufCMessage *message)
{
	struct screen *screen = context;
	const Cadre__V1__ClusterStatus *status = (const Cadre__V1__ClusterStatus *)message;
	char *text = NULL;
	size_t bytes = 0, lines = lines_of(screen);

	if (screen->options->placement.format == CL_FORMAT_JSON) {
		cl_print_json(to_json(status));
		return true;
	}
	FILE *stream = open_memstream(&text, &bytes);
	if (!stream)
		return false;
	print_all(stream, status, lines);
	(void)fclose(stream);
	put_frame(screen, text, lines);
	free(text);
	return true;
}

/* In pieces, so that Ctrl-C ends it soon. */
static void pause_for(struct cl_session *session, uint64_t ms)
{
	for (uint64_t waited = 0; waited < ms && !cl_interrupted(); waited += LOOK_MS)
		cad_rpc_blocking_pause(session->client.rpc, ms - waited < LOOK_MS ? ms - waited : LOOK_MS);
}

static enum cad_status show(struct screen *screen, struct cl_session *session, struct cad_error *error)
{
	Cadre__V1__GetStatusRequest request = CADRE__V1__GET_STATUS_REQUEST__INIT;
	enum cad_status status = CAD_OK;

	while (!cl_interrupted()) {
		status = cl_session_call(session, CL_PLACEMENT_METHOD("GetStatus"), &request.base,
			&cadre__v1__cluster_status__descriptor, on_status, screen, NULL, error);
		if (screen->options->once || (status != CAD_OK && !screen->begun))
			break;
		if (status != CAD_OK && !cl_interrupted()) /* it may come back */
			put_frame(screen, error->text, 1);
		pause_for(session, screen->options->every_ns / CAD_NS_PER_MS);
	}
	return status;
}

int cl_top(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cl_session session;
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	struct screen screen = { .options = &options, .terminal = !options.once && isatty(STDOUT_FILENO) };
	enum cad_status status = cl_session_open(&session, &options.placement, &error);
	if (status == CAD_OK)
		status = show(&screen, &session, &error);
	if (status != CAD_OK && !(screen.begun && cl_interrupted())) /* Ctrl-C is how it ends */
		exit_code = cl_session_fail(&session, "top", status, &error);
	else
		exit_code = CL_EXIT_OK;
	cl_session_close(&session);
	cad_options_destroy(parsed);
	return exit_code;
}
