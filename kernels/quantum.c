/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/quantum.h"

#include "common/base/progress.h"
#include "kernels/packed.h"
#include "kernels/philox.h"
#include "kernels/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	ROWS = 64,
	EXPERTS_MAX = 8,
	EMBEDDINGS_MAX = 64,
	BITS_BELOW = 10,
	BITS_BELOW_F32 = 21, /* of the typical output */
	/* a quantum stays far from the ends of f32, whatever a checkpoint holds */
	EXPONENT_MIN = -100,
	EXPONENT_MAX = 100,
};

struct host {
	uint32_t begin[EXPERTS_MAX + 1], index[EXPERTS_MAX * ROWS];
	_Alignas(64) float y[]; /* [experts * ROWS][ld]: the noise, then outputs */
};

struct job {
	struct kn_queue *queue;
	const struct kn_ops *ops;
	const struct cad_model *model;
	const struct cad_model_spec *spec;
	enum cad_weights weights;
	uint32_t experts; /* how many are looked at */
	size_t ld, rows_bytes, y_bytes, scratch_bytes, host_bytes;
	float *noise, *x, *y; /* device: [ROWS][ld], [ROWS][ld], [experts * ROWS][ld] */
	uint32_t *index;      /* device: row 0 .. ROWS - 1, for each expert */
	void *scratch;
	struct host *host; /* what the device reads and writes */
	double rms[EXPERTS_MAX * ROWS];
	double *stream; /* [H], where no norm is before experts: mean squares of the residual stream */
};

/* Bell-shaped: the eight 16-bit halves of one Philox block, summed; integers, so that the bits are
 * the same everywhere. */
static float noise_at(uint32_t row, uint32_t element)
{
	philox4x32_ctr_t random =
		philox4x32_R(10, (philox4x32_ctr_t){ { element, row, 0, 1 } }, (philox4x32_key_t){ { 0xcad2e, 0 } });
	int32_t sum = 0;
	for (int i = 0; i < 4; i++)
		sum += (int32_t)(random.v[i] & 0xffff) + (int32_t)(random.v[i] >> 16);
	return (float)(2 * sum - 8 * 65535);
}

static uint32_t expert_at(const struct job *job, uint32_t i)
{
	return (uint32_t)((uint64_t)i * job->spec->gate.experts / job->experts);
}

static enum cad_status experts_verify(const struct job *job, uint32_t layer, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	for (uint32_t i = 0; i < job->experts && status == CAD_OK; i++)
		status = kn_packed_verify_expert(job->model, layer, expert_at(job, i), error);
	return status;
}

static enum cad_status experts_create(const struct job *job, uint32_t layer, struct kn_expert *experts)
{
	for (uint32_t i = 0; i < job->experts; i++) {
		struct kn_expert_source source = kn_expert_source_of(job->model, layer, expert_at(job, i));
		enum cad_status status =
			job->ops->expert_create(job->queue->device, &source, job->weights, &experts[i]);
		if (status != CAD_OK)
			return status;
		cad_model_forget_expert(job->model, layer, expert_at(job, i));
	}
	return CAD_OK;
}

/* ---- experts without a norm before them ---- */

/* Adds squares of n numbers, times factor, to the stream's. */
static enum cad_status stream_add(struct job *job, const struct kn_source *source, double factor)
{
	struct kn_device *device = job->queue->device;
	size_t n = job->spec->hidden;
	float *vector = NULL, *values = job->host->y;
	enum cad_status status = job->ops->vector_create(device, source, &vector);

	if (status != CAD_OK)
		return status;
	job->ops->copy_out(job->queue, values, vector, n * sizeof *values);
	status = job->ops->wait(job->queue);
	job->ops->vector_destroy(device, vector, n);
	for (size_t i = 0; status == CAD_OK && i < n; i++)
		job->stream[i] += factor * (double)values[i] * (double)values[i];
	return status;
}

/* It begins with embeddings: of ids that are equally spaced. */
static enum cad_status stream_begin(struct job *job)
{
	const struct cad_model_spec *spec = job->spec;
	struct cad_tensor embed = cad_model_tensor(job->model, CAD_ROLE_EMBED, 0, 0);
	uint32_t count = spec->vocab < EMBEDDINGS_MAX ? spec->vocab : EMBEDDINGS_MAX;
	size_t row_bytes = spec->hidden * cad_dtype_bytes(embed.dtype);
	double factor = (double)spec->embed_scale * (double)spec->embed_scale / count;
	enum cad_status status = CAD_OK;

	job->stream = calloc(spec->hidden, sizeof *job->stream);
	if (!job->stream)
		return CAD_ERR_MEMORY;
	for (uint32_t i = 0; i < count && status == CAD_OK; i++)
		status = stream_add(job,
			&(struct kn_source){
				.data = (const char *)embed.data + (uint64_t)i * spec->vocab / count * row_bytes,
				.dtype = embed.dtype,
				.n = spec->hidden,
				.k = 1,
			},
			factor);
	return status;
}

/* What is added to it is as large as the weights of the norm behind it. */
static enum cad_status stream_add_norm(struct job *job, enum cad_role norm, uint32_t layer, struct cad_error *error)
{
	struct kn_source source = kn_source_of(cad_model_tensor(job->model, norm, layer, 0));
	double scale = (double)job->spec->branch_scale;
	enum cad_status status = job->stream ? stream_add(job, &source, scale * scale) : CAD_OK;

	return status == CAD_OK ? CAD_OK
				: cad_error_set(error, status, "model '%s': the quanta from layer %u on: %s",
					  cad_model_directory(job->model), layer, cad_status_text(status));
}

/* How large a row's channels are when experts read it. */
static enum cad_status channels_create(struct job *job, uint32_t layer, float **channels)
{
	struct kn_source source = kn_source_of(cad_model_tensor(job->model, CAD_ROLE_FFN_NORM, layer, 0));
	float *values = job->host->y;

	for (uint32_t i = 0; job->stream && i < job->spec->hidden; i++)
		values[i] = (float)sqrt(job->stream[i]);
	if (job->stream)
		source = (struct kn_source){ .data = values, .dtype = CAD_DTYPE_F32, .n = job->spec->hidden, .k = 1 };
	return job->ops->vector_create(job->queue->device, &source, channels);
}

/* Every row through every expert that is looked at: y, on the host. */
static enum cad_status layer_run(struct job *job, uint32_t layer)
{
	struct kn_expert experts[EXPERTS_MAX] = { 0 };
	const struct kn_expert *pointers[EXPERTS_MAX];
	float *channels = NULL;
	enum cad_status status = channels_create(job, layer, &channels);

	if (status != CAD_OK)
		return status;

	status = experts_create(job, layer, experts);
	if (status != CAD_OK)
		goto destroy;
	for (uint32_t i = 0; i < job->experts; i++)
		pointers[i] = &experts[i];
	job->ops->rmsnorm(job->queue,
		&(struct kn_rmsnorm){
			.x = job->noise,
			.ldx = job->ld,
			.rows = ROWS,
			.parts = 1,
			.n = job->spec->hidden,
			.weight = channels,
			.epsilon = 0.0f,
			.out = job->x,
			.ldo = job->ld,
		});
	job->ops->ffn(job->queue,
		&(struct kn_ffn){
			.experts = pointers,
			.experts_count = job->experts,
			.begin = job->host->begin,
			.row_index = job->index,
			.x = job->x,
			.ldx = job->ld,
			.rows = ROWS,
			.hidden = job->spec->hidden,
			.y = job->y,
			.ldy = job->ld,
			.scratch = job->scratch,
		});
	job->ops->copy_out(job->queue, job->host->y, job->y, job->y_bytes);
	status = job->ops->wait(job->queue);

destroy:
	for (uint32_t i = 0; i < job->experts; i++)
		job->ops->expert_destroy(job->queue->device, &experts[i]);
	job->ops->vector_destroy(job->queue->device, channels, job->spec->hidden);

	return status;
}

static int double_order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

/* The median of the rms of all outputs; NaN when any is not finite. */
static double outputs_median(struct job *job)
{
	size_t count = (size_t)job->experts * ROWS;
	for (size_t p = 0; p < count; p++) {
		double squares = 0;
		for (size_t i = 0; i < job->spec->hidden; i++)
			squares += (double)job->host->y[p * job->ld + i] * (double)job->host->y[p * job->ld + i];
		job->rms[p] = sqrt(squares / (double)job->spec->hidden);
		if (!(job->rms[p] < (double)INFINITY))
			return (double)NAN;
	}
	qsort(job->rms, count, sizeof *job->rms, double_order);
	return job->rms[count / 2];
}

static enum cad_status layer_quantum(
	struct job *job, uint32_t layer, int bits_below, float *quantum, struct cad_error *error)
{
	enum cad_status status = experts_verify(job, layer, error);
	if (status != CAD_OK)
		return status;
	status = layer_run(job, layer);
	if (status != CAD_OK)
		return cad_error_set(error, status, "model '%s': the quantum of layer %u: %s",
			cad_model_directory(job->model), layer, cad_status_text(status));
	double median = outputs_median(job);
	if (median != median)
		return cad_error_set(error, CAD_ERR_NOT_FINITE,
			"model '%s': experts of layer %u give NaN or infinity for ordinary rows: are the weights damaged?",
			cad_model_directory(job->model), layer);
	const struct cad_gate_spec *gate = &job->spec->gate;
	double weight = (gate->renormalise ? (double)gate->scale : 1.0) / gate->topk, typical = median * weight;
	int exponent = typical > 0 ? ilogb(typical) - bits_below : EXPONENT_MIN;
	exponent = exponent < EXPONENT_MIN ? EXPONENT_MIN : exponent > EXPONENT_MAX ? EXPONENT_MAX : exponent;
	*quantum = ldexpf(1.0f, exponent);

	return CAD_OK;
}

static enum cad_status job_allocate(struct job *job)
{
	struct kn_device *device = job->queue->device;
	size_t pairs = (size_t)job->experts * ROWS;

	job->ld = kn_ld(job->spec->hidden);
	job->rows_bytes = ROWS * job->ld * sizeof(float);
	job->y_bytes = pairs * job->ld * sizeof(float);
	job->scratch_bytes =
		job->ops->ffn_scratch_bytes(job->queue, pairs, job->spec->hidden, job->spec->expert.size, false);
	job->noise = job->ops->alloc(device, job->rows_bytes);
	job->x = job->ops->alloc(device, job->rows_bytes);
	job->y = job->ops->alloc(device, job->y_bytes);
	job->scratch = job->ops->alloc(device, job->scratch_bytes);
	job->index = job->ops->alloc(device, sizeof job->host->index);
	job->host_bytes = sizeof *job->host + job->y_bytes;
	job->host = job->ops->host_alloc(device, job->host_bytes);

	return job->noise && job->x && job->y && job->scratch && job->index && job->host ? CAD_OK : CAD_ERR_MEMORY;
}

static void job_release(struct job *job)
{
	struct kn_device *device = job->queue->device;
	job->ops->release(device, job->noise, job->rows_bytes);
	job->ops->release(device, job->x, job->rows_bytes);
	job->ops->release(device, job->y, job->y_bytes);
	job->ops->release(device, job->scratch, job->scratch_bytes);
	job->ops->release(device, job->index, sizeof job->host->index);
	job->ops->host_release(device, job->host, job->host_bytes);
	free(job->stream);
}

/* The rows that go through every layer, and which expert reads which of them. */
static enum cad_status job_fill(struct job *job)
{
	struct host *host = job->host;

	for (uint32_t r = 0; r < ROWS; r++)
		for (uint32_t i = 0; i < job->spec->hidden; i++)
			host->y[r * job->ld + i] = noise_at(r, i);
	for (uint32_t i = 0; i < EXPERTS_MAX * ROWS; i++)
		host->index[i] = i % ROWS;
	for (uint32_t i = 0; i <= EXPERTS_MAX; i++)
		host->begin[i] = i * ROWS;
	job->ops->copy_in(job->queue, job->noise, host->y, job->rows_bytes);
	job->ops->copy_in(job->queue, job->index, host->index, sizeof host->index);

	return job->ops->wait(job->queue);
}

enum cad_status kn_quantum_table(struct kn_queue *queue, const struct cad_model *model, enum cad_weights weights,
	enum cadre_row_type wire, float *quanta, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	enum cad_status status = kn_packed_check_experts(model, weights, error);
	if (status == CAD_OK)
		status = cad_model_quanta_recorded(model, quanta, error);
	if (status != CAD_AGAIN)
		return status;
	struct job job = {
		.queue = queue,
		.ops = queue->ops,
		.model = model,
		.spec = spec,
		.weights = weights,
	};

	job.experts = spec->gate.experts < EXPERTS_MAX ? spec->gate.experts : EXPERTS_MAX;
	if (job.experts == 0) { /* a dense model */
		memset(quanta, 0, spec->layers_count * sizeof *quanta);
		return CAD_OK;
	}

	float *found = calloc(spec->layers_count, sizeof *found);
	status = found ? job_allocate(&job) : CAD_ERR_MEMORY;
	if (status == CAD_OK)
		status = job_fill(&job);
	if (status == CAD_OK && spec->norms == CAD_NORMS_AFTER)
		status = stream_begin(&job);
	if (status != CAD_OK) {
		status = cad_error_set(error, status, "model '%s': the quantum table cannot be computed: %s",
			cad_model_directory(model), cad_status_text(status));
		goto release;
	}

	struct cad_progress progress;
	uint64_t layer_bytes = job.experts * cad_model_sizes(model).expert;
	cad_progress_begin(&progress, &cad_clock_system, "quantum", cad_model_spec_moe_layers(spec) * layer_bytes);
	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		status = stream_add_norm(&job, CAD_ROLE_ATTENTION_AFTER, layer, error);
		if (status == CAD_OK && spec->layers[layer].moe) {
			status = layer_quantum(
				&job, layer, wire == CADRE_ROW_F32 ? BITS_BELOW_F32 : BITS_BELOW, &found[layer], error);
			cad_progress_add(&progress, layer_bytes);
		}
		if (status == CAD_OK)
			status = stream_add_norm(&job, CAD_ROLE_FFN_AFTER, layer, error);
		if (status != CAD_OK)
			goto release;
	}
	cad_progress_end(&progress);

	memcpy(quanta, found, spec->layers_count * sizeof *quanta);

release:
	free(found);
	job_release(&job);

	return status;
}
