/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl trace record`: what flows in a cluster now, as a trace. */
#include "orchestration/planner/trace/own.h"
#include "orchestration/planner/trace/reservoir.h"

#include "cadre/v1/placement.pb-c.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/plural.h"
#include "common/process/process.h"
#include "orchestration/cli/operate.h"
#include "orchestration/cli/trace_shape.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Kept in memory until the end, since tokens of different requests arrive mixed. */
enum { TOKENS_BY_TIME_MAX = 1000000, TIME_BYTES = 32, ROUTERS_MAX = 64 };

struct options {
	struct cl_placement placement;
	const char *output;
	uint32_t tokens;
	uint64_t duration_ns;
};

static const struct cad_option table[] = {
	CAD_OPTION_FILE(
		struct options, output, "output", NULL, "file to write, in Cadre's own format, readable by you alone"),
	CAD_OPTION_U32(struct options, tokens, "tokens", "0", 0, PL_RESERVOIR_TOKENS_MAX,
		"end after so many tokens; 2 bytes of memory each for every expert of every MoE layer that a token selects; 0: with --duration, 1000000"),
	CAD_OPTION_DURATION(struct options, duration_ns, "duration", "0s", 0, 24 * 3600 * CAD_NS_PER_S,
		"end after so long; 0s: with --tokens, as long as it takes"),
	CL_PLACEMENT_OPTIONS(struct options, placement),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *options = values;
	if (options->tokens == 0 && options->duration_ns == 0)
		return cad_error_set(error, CAD_ERR_INVALID, "give --tokens N, --duration 30s, or both");
	return cl_placement_check(options, error);
}

static const struct cad_options_spec spec = {
	.program = "cadrectl trace record",
	.summary =
		"Records the routing of whole tokens that flow through a cluster now, of all its routers, in Cadre's own format. Which experts a text selects gives most of the text back: keep the file as you would keep prompts. Ctrl-C ends it and writes what has come.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.check = check,
	.check_files = cl_placement_check_files,
};

struct recording {
	const struct options *options;
	struct pl_reservoir *tokens; /* NULL before the head */
	uint32_t layers, experts, k;
	char cluster[128], recorded_by[128], model[1024], begun[TIME_BYTES];
	char routers[ROUTERS_MAX][CAD_PROCESS_NAME_BYTES]; /* the first that sent tokens; more count as the last */
	uint32_t routers_count;
	uint64_t seen, lost;
	bool ended; /* in order */
	enum cad_status status;
	struct cad_error *error;
};

static void now_text(char text[TIME_BYTES])
{
	time_t now = time(NULL);
	struct tm utc;
	if (!gmtime_r(&now, &utc) || strftime(text, TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
		snprintf(text, TIME_BYTES, "?");
}

/* ---- what comes ---- */

/* It keeps the first tokens: there is never one too many. */
static enum cad_status take_head(struct recording *recording, const Cadre__V1__TraceHead *head)
{
	const struct pl_reservoir_options reservoir = {
		.layers = (uint32_t)head->n_layers,
		.experts = head->experts,
		.k = head->experts_per_token,
		.layer = head->layers,
		.tokens = recording->options->tokens ? recording->options->tokens : TOKENS_BY_TIME_MAX,
	};
	enum cad_status status = pl_reservoir_create(&reservoir, &recording->tokens, recording->error);

	recording->layers = reservoir.layers;
	recording->experts = reservoir.experts;
	recording->k = reservoir.k;
	snprintf(recording->cluster, sizeof recording->cluster, "%s", head->cluster);
	snprintf(recording->recorded_by, sizeof recording->recorded_by, "%s", head->recorded_by);
	snprintf(recording->model, sizeof recording->model, "%s", head->model);
	return status;
}

static uint64_t number_of(struct recording *recording, const char *router)
{
	for (uint32_t i = 0; i < recording->routers_count; i++)
		if (strcmp(recording->routers[i], router) == 0)
			return i;
	if (recording->routers_count < ROUTERS_MAX)
		snprintf(recording->routers[recording->routers_count++], CAD_PROCESS_NAME_BYTES, "%s", router);
	return recording->routers_count - 1;
}

static enum cad_status take_tokens(struct recording *recording, const Cadre__V1__TraceTokens *tokens)
{
	size_t ids = (size_t)recording->layers * recording->k;
	uint16_t token[PL_TRACE_LAYERS_MAX * PL_TRACE_TOPK_MAX];

	if (tokens->experts.len != tokens->n_requests * ids * sizeof *token)
		return cad_error_set(recording->error, CAD_ERR_PROTOCOL,
			"the placement service sent %zu tokens in %zu bytes", tokens->n_requests, tokens->experts.len);
	recording->lost = tokens->lost;
	uint64_t router = number_of(recording, tokens->router);
	for (size_t i = 0; i < tokens->n_requests; i++) {
		uint64_t request = (router << 40) + tokens->requests[i];
		memcpy(token, tokens->experts.data + i * ids * sizeof *token, ids * sizeof *token);
		if (pl_reservoir_add(recording->tokens, 0, 1, request, token) != CAD_OK)
			return cad_error_set(recording->error, CAD_ERR_PROTOCOL,
				"the placement service sent a token with experts that do not exist");
	}
	return CAD_OK;
}

static void take_end(struct recording *recording, const Cadre__V1__TraceEnd *end)
{
	recording->seen = end->seen;
	recording->lost = end->lost;
	recording->ended = true;
}

static bool is_full(const struct recording *recording)
{
	return recording->options->tokens == 0 && pl_reservoir_seen(recording->tokens) >= TOKENS_BY_TIME_MAX;
}

static bool on_part(void *context, const ProtobufCMessage *message)
{
	struct recording *recording = context;
	const Cadre__V1__RecordTraceResponse *part = (const Cadre__V1__RecordTraceResponse *)message;
	bool head = part->part_case == CADRE__V1__RECORD_TRACE_RESPONSE__PART_HEAD;

	if (head == (recording->tokens != NULL)) {
		recording->status = cad_error_set(
			recording->error, CAD_ERR_PROTOCOL, "the placement service sent a recording without order");
		return false;
	}
	switch (part->part_case) {
	case CADRE__V1__RECORD_TRACE_RESPONSE__PART_HEAD: recording->status = take_head(recording, part->head); break;
	case CADRE__V1__RECORD_TRACE_RESPONSE__PART_TOKENS:
		recording->status = take_tokens(recording, part->tokens);
		break;
	case CADRE__V1__RECORD_TRACE_RESPONSE__PART_END: take_end(recording, part->end); break;
	default: break;
	}
	return recording->status == CAD_OK && !is_full(recording);
}

static enum cad_status record(struct cl_session *session, struct recording *recording, struct cad_error *error)
{
	const struct options *o = recording->options;
	Cadre__V1__RecordTraceRequest request = CADRE__V1__RECORD_TRACE_REQUEST__INIT;

	request.tokens = o->tokens;
	request.duration_ms = o->duration_ns / CAD_NS_PER_MS;
	now_text(recording->begun);
	enum cad_status status = cl_client_call(&session->client, CL_PLACEMENT_METHOD("RecordTrace"), &request.base,
		&cadre__v1__record_trace_response__descriptor, 0, on_part, recording, NULL, error);
	if (recording->status != CAD_OK)
		status = recording->status;
	if (status != CAD_OK)
		(void)cad_error_prefix(error, "placement service %s", session->address);
	return status;
}

/* ---- what is written ---- */

static enum cad_status name_trace(const struct recording *recording, struct pl_trace *trace, struct cad_error *error)
{
	char provenance[PL_TRACE_NAME_BYTES_MAX], ended[TIME_BYTES], seen[80] = "", routers[1024] = "";
	size_t length = 0;

	now_text(ended);
	for (uint32_t i = 0; i < recording->routers_count && length + CAD_PROCESS_NAME_BYTES + 8 < sizeof routers; i++)
		length += (size_t)snprintf(
			routers + length, sizeof routers - length, "%s%s", i ? ", " : "", recording->routers[i]);
	if (recording->ended)
		snprintf(seen, sizeof seen, " of %llu that were computed", (unsigned long long)recording->seen);
	snprintf(provenance, sizeof provenance,
		"confidential, as prompts are: live routing of cluster '%s', routers %s, from %s to %s, recorded by %s: %llu tokens%s",
		recording->cluster, routers, recording->begun, ended, recording->recorded_by,
		(unsigned long long)trace->tokens, seen);
	return pl_trace_set_names(trace, recording->model, provenance, error);
}

static void say(const struct recording *recording, const struct pl_trace *trace)
{
	const char *output = recording->options->output;

	if (recording->options->placement.format == CL_FORMAT_JSON) {
		cl_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "output", output, "tokens",
			(json_int_t)trace->tokens, "requests", (json_int_t)pl_trace_requests(trace), "layers",
			(json_int_t)trace->layers, "experts", (json_int_t)trace->experts, "experts_per_token",
			(json_int_t)trace->k, "seen", (json_int_t)recording->seen, "lost", (json_int_t)recording->lost,
			"complete", recording->ended));
		return;
	}
	printf("%s: ", output);
	cl_trace_print_shape(trace);
	printf("\n");
	if (recording->lost > 0)
		fprintf(stderr, "cadrectl trace record: %llu %s too fast, and %s not in it\n",
			(unsigned long long)recording->lost, cad_plural(recording->lost, "token came", "tokens came"),
			cad_plural(recording->lost, "is", "are"));
}

/* The file is there, or it is as it was. */
static enum cad_status write_trace(
	const struct recording *recording, struct cad_file_writer *file, struct cad_error *error)
{
	struct pl_trace *trace = NULL;
	enum cad_status status = CAD_OK;

	if (!recording->tokens || pl_reservoir_kept(recording->tokens) == 0)
		status = cad_error_set(error, CAD_ERR_NOT_FOUND,
			"no token was routed in the time, so nothing was written: send requests while it records");
	if (status == CAD_OK)
		status = pl_reservoir_trace(recording->tokens, &trace, error);
	if (status == CAD_OK)
		status = name_trace(recording, trace, error);
	if (status == CAD_OK)
		status = pl_trace_write_to(file->stream, trace, error);

	if (status == CAD_OK)
		status = cad_file_writer_commit(file, error);
	else
		cad_file_writer_abandon(file);
	if (status == CAD_OK)
		say(recording, trace);
	pl_trace_free(trace);
	return status;
}

/* What has come is written, however the recording ended. */
static int finish(
	struct recording *recording, struct cad_file_writer *file, enum cad_status status, struct cad_error *error)
{
	struct cad_error unwritten;
	enum cad_status written = write_trace(recording, file, &unwritten);

	if (status != CAD_OK && !cl_interrupted())
		return cl_fail("trace record", error);
	if (written != CAD_OK)
		return cl_fail("trace record", &unwritten);
	return cl_interrupted() ? CL_EXIT_INTERRUPTED : CL_EXIT_OK;
}

int cl_trace_record(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cl_session session;
	struct cad_error error;
	struct recording recording = { .options = &options, .error = &error };
	struct cad_file_writer file; /* opened first: what will have been recorded has a place */
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	if (cad_file_writer_open_private(&file, options.output, &error) != CAD_OK) {
		exit_code = cl_fail("trace record", &error);
		cad_options_destroy(parsed);
		return exit_code;
	}
	enum cad_status status = cl_session_open(&session, &options.placement, &error);
	if (status == CAD_OK)
		status = record(&session, &recording, &error);
	if (status != CAD_OK && !recording.tokens) {
		cad_file_writer_abandon(&file);
		exit_code = cl_session_fail(&session, "trace record", status, &error);
	} else {
		exit_code = finish(&recording, &file, status, &error);
	}
	cl_session_close(&session);
	pl_reservoir_destroy(recording.tokens);
	cad_options_destroy(parsed);
	return exit_code;
}
