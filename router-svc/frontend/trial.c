/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/trial.h"

#include "router-svc/frontend/answer.h"

#include <stdio.h>

static uint64_t now_ns(const struct rt_trial *trial) { return cad_clock_now_ns(trial->hub->options.engine.clock); }

/* ---- the reactor's thread ---- */

static void end(struct rt_trial *trial, enum cad_status status, const char *why)
{
	pthread_mutex_lock(&trial->mutex);
	trial->running = false;
	trial->ended_ns = now_ns(trial);
	trial->status = status;
	snprintf(trial->why, sizeof trial->why, "%s", why);
	pthread_mutex_unlock(&trial->mutex);
	cad_counter_add(status == CAD_OK ? trial->passed : trial->failed, 1);
}

static enum cad_status sink_piece(void *context, const struct rt_piece *piece, struct cad_error *error)
{
	(void)context;
	(void)piece;
	(void)error;
	return CAD_OK;
}

static enum cad_status sink_end(
	void *context, const struct rt_piece *piece, const struct rt_end *answer, struct cad_error *error)
{
	(void)piece;
	(void)answer;
	(void)error;
	end(context, CAD_OK, "");
	return CAD_OK;
}

static void sink_fail(void *context, enum cad_status status, const char *sentence) { end(context, status, sentence); }

static const struct rt_sink sink = { .piece = sink_piece, .end = sink_end, .fail = sink_fail };

static void begin(void *context)
{
	struct rt_trial *trial = context;
	const int32_t token = (int32_t)(trial->serial++ % trial->vocab);
	struct rt_request request = {
		.prompt = &token,
		.prompt_count = 1,
		.max_tokens = 1,
		.ignore_eos = true,
		.trial = true,
		.deadline_ns = now_ns(trial) + RT_TRIAL_MS * CAD_NS_PER_MS,
	};
	struct rt_answer no_text = { 0 };
	struct rt_stream *stream;
	struct cad_error error;

	if (trial->over) {
		end(trial, CAD_ERR_CANCELLED, "the router is stopping");
		return;
	}
	enum cad_status status = rt_stream_open(trial->hub, &request, &no_text, &sink, trial, &stream, &error);
	if (status != CAD_OK)
		end(trial, status, error.text);
}

void rt_trial_stop(struct rt_trial *trial) { trial->over = true; }

/* ---- any thread ---- */

static bool is_fresh(uint64_t at_ns, uint64_t now)
{
	return at_ns > 0 && now < at_ns + RT_TRIAL_KEEP_MS * CAD_NS_PER_MS;
}

/* Under the mutex. */
static enum cad_status answer(struct rt_trial *trial, uint64_t now, char why[CAD_NOTE_BYTES])
{
	const struct rt_stream_engine *engine = &trial->hub->options.engine;
	uint64_t late_ns = trial->begun_ns + (RT_TRIAL_MS + RT_TRIAL_LATE_MS) * CAD_NS_PER_MS;

	if (engine->advanced_ns && is_fresh(engine->advanced_ns(engine->engine), now))
		return CAD_OK;
	if (trial->running && now >= late_ns) {
		snprintf(why, CAD_NOTE_BYTES, "no token in %d ms, and no word from the engine", RT_TRIAL_MS);
		return CAD_ERR_DEADLINE;
	}
	if (!trial->running && is_fresh(trial->ended_ns, now) && trial->status != CAD_OK) {
		snprintf(why, CAD_NOTE_BYTES, "no token: %.230s", trial->why);
		return trial->status;
	}
	if (!trial->running && is_fresh(trial->ended_ns, now))
		return CAD_OK;

	if (!trial->running) {
		trial->running = true;
		trial->begun_ns = now;
		cad_rpc_wakeup_send(&trial->begin);
	}
	return CAD_AGAIN;
}

enum cad_status rt_trial_ask(struct rt_trial *trial, char why[CAD_NOTE_BYTES])
{
	why[0] = 0;
	pthread_mutex_lock(&trial->mutex);
	enum cad_status status = answer(trial, now_ns(trial), why);
	pthread_mutex_unlock(&trial->mutex);
	return status;
}

/* ---- life ---- */

void rt_trial_init(struct rt_trial *trial, struct rt_stream_hub *hub, uint32_t vocab, struct cad_rpc_reactor *reactor,
	struct cad_metrics *metrics)
{
	static const struct cad_label passed = { "outcome", "passed" }, failed = { "outcome", "failed" };
	const char *name = "cadre_router_trials_total", *help = "Tokens that were generated for /readyz?generate";

	*trial = (struct rt_trial){ .hub = hub, .vocab = vocab };
	trial->passed = cad_metrics_counter(metrics, name, help, &passed, 1);
	trial->failed = cad_metrics_counter(metrics, name, help, &failed, 1);
	pthread_mutex_init(&trial->mutex, NULL);
	cad_rpc_wakeup_init(&trial->begin, reactor, begin, trial);
}

void rt_trial_fini(struct rt_trial *trial) { pthread_mutex_destroy(&trial->mutex); }
