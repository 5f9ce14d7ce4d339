/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/speed.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/process/metrics.h"
#include "expert-svc/serve/exec.h"
#include "kernels/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	EXPERTS_MAX = 16,
	WEIGHTS_MAX = 4 << 20, /* of an expert */
	PAIRS_MAX = 4096,
	TINY = 64, /* sides of the expert of a step with nearly nothing to do */
	PACK_MS = 50,
	REPEAT_MS = 10, /* of one step, and so many times at least; the fastest counts */
	REPEATS = 8,
	LONG_US = 200,  /* so long, and a step is what its experts take; no longer, so that some are not interrupted */
	ROWS_US = 2000, /* likewise, with many rows */
	SLOW_US = 250,  /* no device takes so long for next to nothing, unless it is emulated */
};

struct measuring {
	const struct kn_ops *ops;
	struct kn_device *device;
	struct kn_queue *queue;
	enum cad_weights weights;
	struct kn_expert experts[EXPERTS_MAX];
	uint32_t count;
	uint64_t end_ns;
};

static uint64_t now_ns(void) { return cad_clock_now_ns(&cad_clock_system); }

/* ---- made-up experts ---- */

/* Of any sign, from 2^-7 to 2^-6: two bf16 or f16, or one f32. */
static uint32_t draw(struct cad_random *random, enum cad_dtype dtype)
{
	uint32_t bits = (uint32_t)cad_random_next(random);
	return dtype == CAD_DTYPE_F32    ? (bits & 0x807fffff) | 0x3c000000
		: dtype == CAD_DTYPE_F16 ? (bits & 0x83ff83ff) | 0x20002000
					 : (bits & 0x807f807f) | 0x3c003c00;
}

/* One block of random weights, again and again. */
static void *make_weights(enum cad_dtype dtype, size_t bytes)
{
	uint32_t block[4096];
	struct cad_random random = { 7 };
	char *data = malloc(bytes + sizeof block);

	for (size_t i = 0; i < sizeof block / sizeof *block; i++)
		block[i] = draw(&random, dtype);
	for (size_t at = 0; data && at < bytes; at += sizeof block)
		memcpy(data + at, block, sizeof block);
	return data;
}

/* Experts of that shape, as many as there is time and memory for; the first always. */
static enum cad_status make_experts(
	struct measuring *m, const struct kn_expert_source *like, size_t hidden, size_t ffn, uint32_t most)
{
	enum cad_dtype own = like->gate.dtype,
		       dtype = own == CAD_DTYPE_F32 || own == CAD_DTYPE_F16 ? own : CAD_DTYPE_BF16;
	void *data = make_weights(dtype, hidden * ffn * cad_dtype_bytes(dtype));
	struct cad_ffn_spec spec = *like->spec;
	spec.size = (uint32_t)ffn;
	spec.bias = false;
	const struct kn_expert_source source = {
		.gate = kn_source_plain(data, dtype, ffn, hidden),
		.up = kn_source_plain(data, dtype, ffn, hidden),
		.down = kn_source_plain(data, dtype, hidden, ffn),
		.spec = &spec,
	};
	uint64_t end_ns = now_ns() + PACK_MS * CAD_NS_PER_MS;
	enum cad_status status = data ? CAD_OK : CAD_ERR_MEMORY;

	for (m->count = 0; status == CAD_OK && m->count < most && (m->count == 0 || now_ns() < end_ns);) {
		status = m->ops->expert_create(m->device, &source, m->weights, &m->experts[m->count]);
		m->count += status == CAD_OK;
	}
	free(data);
	return m->count > 0 ? CAD_OK : status;
}

static void drop_experts(struct measuring *m)
{
	while (m->count > 0)
		m->ops->expert_destroy(m->device, &m->experts[--m->count]);
}

/* ---- steps ---- */

/* A step of some experts, each with the same rows, in the buffers of a step that serves. */
struct step {
	uint32_t experts;
	size_t rows, pairs;
	struct ex_exec exec;
};

/* Rows of small numbers, and which row each pair has, at a weight of 1. */
static enum cad_status fill(struct measuring *m, struct step *step)
{
	struct ex_exec *exec = &step->exec;
	float *x = calloc(1, exec->x_bytes), *weight = malloc(exec->pair_bytes);
	uint32_t *row = malloc(exec->pair_bytes);
	enum cad_status status = x && weight && row ? CAD_OK : CAD_ERR_MEMORY;

	for (size_t r = 0; status == CAD_OK && r < step->rows; r++)
		for (size_t i = 0; i < exec->hidden; i++)
			x[r * exec->ld + i] = (float)((r + i) % 7) - 3;
	for (size_t p = 0; status == CAD_OK && p < step->pairs; p++) {
		row[p] = (uint32_t)(p % step->rows);
		weight[p] = 1;
	}
	if (status == CAD_OK) {
		m->ops->copy_in(m->queue, exec->x, x, exec->x_bytes);
		m->ops->copy_in(m->queue, exec->pair_row, row, exec->pair_bytes);
		m->ops->copy_in(m->queue, exec->pair_weight, weight, exec->pair_bytes);
		status = m->ops->wait(m->queue);
	}
	free(row);
	free(weight);
	free(x);
	return status;
}

/* With the experts from `first` on, round and round: what was read last is not read again soon. */
static enum cad_status run(struct measuring *m, const struct step *step, uint32_t first)
{
	const struct kn_expert *experts[EXPERTS_MAX];
	uint32_t begin[EXPERTS_MAX + 1];

	for (uint32_t e = 0; e <= step->experts; e++)
		begin[e] = (uint32_t)(e * step->rows);
	for (uint32_t e = 0; e < step->experts; e++)
		experts[e] = &m->experts[(first + e) % m->count];
	ex_exec_ffn(&step->exec, experts, step->experts, begin, step->rows, 0x1p-20f);
	return m->ops->wait(m->queue);
}

/* The fastest of such steps. */
static enum cad_status time_step(struct measuring *m, uint32_t experts, size_t rows, double *seconds)
{
	struct step step = { .experts = experts, .rows = rows, .pairs = rows * experts };
	enum cad_status status =
		ex_exec_init(&step.exec, m->queue, rows, step.pairs, m->experts[0].hidden, m->experts[0].ffn);
	if (status == CAD_OK)
		status = fill(m, &step);

	uint64_t until_ns = now_ns() + REPEAT_MS * CAD_NS_PER_MS, least_ns = UINT64_MAX;
	for (uint32_t i = 0; status == CAD_OK; i++) {
		uint64_t at_ns = now_ns();
		if (i > 0 && (at_ns >= m->end_ns || (i >= REPEATS && at_ns >= until_ns)))
			break;
		status = run(m, &step, i * experts % m->count);
		uint64_t took_ns = now_ns() - at_ns;
		least_ns = took_ns < least_ns ? took_ns : least_ns;
	}

	ex_exec_fini(&step.exec);
	*seconds = (double)(least_ns > 0 ? least_ns : 1) * 1e-9;
	return status;
}

/* ---- figures ---- */

/* What the experts themselves take of a step. */
static double without_step(double seconds, const struct ex_speed *speed)
{
	return fmax(seconds - speed->step_s, seconds / 2);
}

static double multiply_adds(const struct measuring *m, size_t pairs)
{
	return 3.0 * (double)(m->experts[0].hidden * m->experts[0].ffn * pairs);
}

/* A step with nearly nothing to do. A device that is slow even there is not asked for more. */
static enum cad_status measure_tiny(struct measuring *m, const struct kn_expert_source *like, struct ex_speed *speed)
{
	enum cad_status status = make_experts(m, like, TINY, TINY, 1);
	if (status == CAD_OK)
		status = time_step(m, 1, 1, &speed->step_s);
	if (status != CAD_OK)
		return status;

	speed->read_bytes_per_second = (double)m->experts[0].bytes / speed->step_s;
	speed->multiply_adds_per_second = multiply_adds(m, 1) / speed->step_s;
	return CAD_OK;
}

/* First experts and then the rows of each go up until a step takes long. */
static enum cad_status measure_experts(struct measuring *m, const struct kn_expert_source *like, struct ex_speed *speed)
{
	size_t hidden = like->gate.k, ffn = like->gate.n, most = WEIGHTS_MAX / (3 * hidden) / TINY * TINY;
	ffn = ffn < most ? ffn : most > TINY ? most : TINY;
	enum cad_status status = make_experts(m, like, hidden, ffn, EXPERTS_MAX);

	uint32_t experts = 1;
	double seconds = 0;
	while (status == CAD_OK) {
		status = time_step(m, experts, 1, &seconds);
		if (2 * experts > m->count || seconds >= LONG_US * 1e-6)
			break;
		experts *= 2;
	}
	if (status != CAD_OK)
		return status;
	double experts_s = without_step(seconds, speed);
	speed->read_bytes_per_second = (double)(m->experts[0].bytes * experts) / experts_s;
	speed->multiply_adds_per_second = multiply_adds(m, experts) / experts_s;

	for (size_t rows = 4; seconds < ROWS_US * 1e-6 && rows * experts <= PAIRS_MAX && now_ns() < m->end_ns;
		rows *= 4) {
		status = time_step(m, experts, rows, &seconds);
		if (status != CAD_OK)
			return status == CAD_ERR_MEMORY ? CAD_OK : status;
		double rate = multiply_adds(m, experts * rows) / without_step(seconds, speed);
		speed->multiply_adds_per_second = fmax(speed->multiply_adds_per_second, rate);
	}
	return CAD_OK;
}

enum cad_status ex_speed_measure_like(struct kn_device *device, const struct kn_expert_source *like,
	enum cad_weights weights, unsigned threads, struct ex_speed *speed)
{
	struct measuring m = {
		.ops = device->ops,
		.device = device,
		.weights = weights,
		.end_ns = now_ns() + EX_SPEED_MS * CAD_NS_PER_MS,
	};
	struct ex_speed made = { 0 };
	enum cad_status status = device->ops->queue_create(device, threads, &m.queue);
	if (status != CAD_OK)
		return status;

	status = measure_tiny(&m, like, &made);
	drop_experts(&m);
	if (status == CAD_OK && made.step_s < SLOW_US * 1e-6)
		status = measure_experts(&m, like, &made);
	drop_experts(&m);
	m.ops->queue_destroy(m.queue);
	if (status == CAD_OK)
		*speed = made;
	return status;
}

enum cad_status ex_speed_measure(struct kn_device *device, const struct cad_model *model, enum cad_weights weights,
	unsigned threads, struct ex_speed *speed)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct kn_device_info info;
	uint32_t layer = 0;

	*speed = (struct ex_speed){ 0 };
	device->ops->describe(device, &info);
	while (layer < spec->layers_count && !spec->layers[layer].moe)
		layer++;
	if (layer == spec->layers_count || !(info.profiles >> cad_weights_profile(weights) & 1))
		return CAD_OK;

	const struct kn_expert_source like = kn_expert_source_of(model, layer, 0);
	return ex_speed_measure_like(device, &like, weights, threads, speed);
}

/* ---- what others see of it ---- */

static void show(const struct ex_speed *speed, struct cad_metrics *metrics)
{
	cad_log_info("expert", "measured", CAD_F("read_bytes_per_second", speed->read_bytes_per_second),
		CAD_F("multiply_adds_per_second", speed->multiply_adds_per_second),
		CAD_F("step_us", speed->step_s * 1e6));
	cad_gauge_set(cad_metrics_gauge(metrics, "cadre_expert_measured_read_bytes_per_second",
			      "weights that experts read with one row each, as measured at start", NULL, 0),
		speed->read_bytes_per_second);
	cad_gauge_set(cad_metrics_gauge(metrics, "cadre_expert_measured_multiply_adds_per_second",
			      "multiply-adds of experts with many rows each, as measured at start", NULL, 0),
		speed->multiply_adds_per_second);
	cad_gauge_set(cad_metrics_gauge(metrics, "cadre_expert_measured_step_seconds",
			      "time of a step with nearly nothing to do, as measured at start", NULL, 0),
		speed->step_s);
}

enum cad_status ex_speed_find(struct kn_device *device, const struct cad_model *model, enum cad_weights weights,
	unsigned threads, struct cad_metrics *metrics, struct ex_speed *speed, struct cad_error *error)
{
	if (speed->given > 0)
		return CAD_OK;

	enum cad_status status = ex_speed_measure(device, model, weights, threads, speed);
	if (status == CAD_OK && speed->read_bytes_per_second > 0)
		show(speed, metrics);
	else if (status == CAD_ERR_MEMORY)
		cad_log_warn("expert", "too little memory to measure this node's speed: it counts as the median one");
	else if (status != CAD_OK)
		return cad_error_set(
			error, status, "the device '%s' failed while its speed was measured", device->ops->name);
	return CAD_OK;
}
