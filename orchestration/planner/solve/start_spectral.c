/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spectral grouping: experts that are chosen together are near each other in the first eigenvectors
 * of D^-1/2 C D^-1/2 (C: counts of pairs, D: their row sums), as in Ng, Jordan and Weiss, "On
 * spectral clustering". The eigenvectors come from orthogonal iteration on that matrix plus 1,
 * which makes the largest the first.
 */
#include "orchestration/planner/solve/start.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DIMS = 32, ITERATIONS = 24, MEANS_ROUNDS = 12 };

/* [experts][DIMS] */
struct space {
	uint32_t experts, dims;
	float *matrix; /* [experts][experts] */
	float *v, *w;
};

static void multiply(struct space *s)
{
	for (uint32_t i = 0; i < s->experts; i++) {
		float sum[DIMS] = { 0 };
		for (uint32_t j = 0; j < s->experts; j++) {
			float weight = s->matrix[(size_t)i * s->experts + j];
			const float *row = s->v + (size_t)j * DIMS;
			for (uint32_t d = 0; d < DIMS; d++)
				sum[d] += weight * row[d];
		}
		for (uint32_t d = 0; d < DIMS; d++)
			s->w[(size_t)i * DIMS + d] = sum[d] + s->v[(size_t)i * DIMS + d];
	}

	float *swapped = s->v;
	s->v = s->w;
	s->w = swapped;
}

/* Gram and Schmidt, column after column; a column that vanishes becomes zero. */
static void orthogonalise(struct space *s)
{
	for (uint32_t d = 0; d < s->dims; d++) {
		double norm = 0;
		for (uint32_t p = 0; p < d; p++) {
			double dot = 0;
			for (uint32_t e = 0; e < s->experts; e++)
				dot += (double)s->v[(size_t)e * DIMS + d] * (double)s->v[(size_t)e * DIMS + p];
			for (uint32_t e = 0; e < s->experts; e++)
				s->v[(size_t)e * DIMS + d] -= (float)dot * s->v[(size_t)e * DIMS + p];
		}
		for (uint32_t e = 0; e < s->experts; e++)
			norm += (double)s->v[(size_t)e * DIMS + d] * (double)s->v[(size_t)e * DIMS + d];
		float scale = norm > 1e-12 ? (float)(1 / sqrt(norm)) : 0;
		for (uint32_t e = 0; e < s->experts; e++)
			s->v[(size_t)e * DIMS + d] *= scale;
	}
}

static void embed(struct space *s, const struct pl_pairs *pairs, struct cad_random *random)
{
	uint32_t E = s->experts;
	for (uint32_t i = 0; i < E; i++)
		for (uint32_t j = 0; j < E; j++)
			s->matrix[(size_t)i * E + j] = pairs->together[(size_t)i * E + j] /
				sqrtf((pairs->degree[i] + 1e-3f) * (pairs->degree[j] + 1e-3f));
	for (uint32_t e = 0; e < E; e++)
		for (uint32_t d = 0; d < s->dims; d++)
			s->v[(size_t)e * DIMS + d] = (float)cad_random_unit(random) - 0.5f;
	for (uint32_t i = 0; i < ITERATIONS; i++) {
		orthogonalise(s);
		multiply(s);
		multiply(s);
	}

	orthogonalise(s);

	for (uint32_t e = 0; e < E; e++) {
		float *row = s->v + (size_t)e * DIMS, sum = 0;
		for (uint32_t d = 0; d < DIMS; d++)
			sum += row[d] * row[d];
		for (uint32_t d = 0; d < DIMS && sum > 0; d++)
			row[d] /= sqrtf(sum);
	}
}

static float distance(const float *a, const float *b)
{
	float sum = 0;
	for (uint32_t d = 0; d < DIMS; d++)
		sum += (a[d] - b[d]) * (a[d] - b[d]);
	return sum;
}

/* k-means++ and Lloyd. score[expert][node] = minus the distance to the centre. */
static void means(const struct space *s, uint32_t nodes, struct cad_random *random, float *centres, float *score)
{
	uint32_t E = s->experts;
	memset(score, 0, (size_t)E * nodes * sizeof *score);

	for (uint32_t n = 0; n < nodes; n++) {
		double total = 0, at;
		uint32_t pick = 0;
		for (uint32_t e = 0; e < E; e++)
			total += n == 0 ? 1.0 : (double)score[e];
		at = cad_random_unit(random) * total;
		for (; pick + 1 < E && at >= (n == 0 ? 1.0 : (double)score[pick]); pick++)
			at -= n == 0 ? 1.0 : (double)score[pick];
		memcpy(centres + (size_t)n * DIMS, s->v + (size_t)pick * DIMS, DIMS * sizeof *centres);
		/* until the centres are chosen, score[e] is the squared
		 * distance to the nearest one */
		for (uint32_t e = 0; e < E; e++) {
			float d = distance(s->v + (size_t)e * DIMS, centres + (size_t)n * DIMS);
			score[e] = n == 0 || d < score[e] ? d : score[e];
		}
	}

	for (uint32_t round = 0;; round++) {
		for (uint32_t e = 0; e < E; e++)
			for (uint32_t n = 0; n < nodes; n++)
				score[(size_t)e * nodes + n] =
					-distance(s->v + (size_t)e * DIMS, centres + (size_t)n * DIMS);
		if (round == MEANS_ROUNDS)
			return;
		memset(centres, 0, (size_t)nodes * DIMS * sizeof *centres);
		for (uint32_t e = 0; e < E; e++) {
			uint32_t best = 0;
			for (uint32_t n = 1; n < nodes; n++)
				best = score[(size_t)e * nodes + n] > score[(size_t)e * nodes + best] ? n : best;
			for (uint32_t d = 0; d < DIMS; d++)
				centres[(size_t)best * DIMS + d] += s->v[(size_t)e * DIMS + d];
		}
		for (uint32_t n = 0; n < nodes; n++) { /* centres on the sphere, as the points are */
			float *centre = centres + (size_t)n * DIMS, sum = 0;
			for (uint32_t d = 0; d < DIMS; d++)
				sum += centre[d] * centre[d];
			for (uint32_t d = 0; d < DIMS && sum > 0; d++)
				centre[d] /= sqrtf(sum);
		}
	}
}

enum cad_status pl_start_spectral(
	const struct pl_pairs *pairs, uint32_t nodes, const uint32_t *parts, struct cad_random random, uint32_t *labels)
{
	size_t E = pairs->experts;
	struct space s = { .experts = pairs->experts, .dims = nodes < DIMS ? nodes : DIMS };

	s.matrix = malloc(E * E * sizeof *s.matrix);
	s.v = calloc(E * DIMS, sizeof *s.v);
	s.w = calloc(E * DIMS, sizeof *s.w);
	float *centres = malloc((size_t)nodes * DIMS * sizeof *centres), *score = malloc(E * nodes * sizeof *score);
	enum cad_status status = s.matrix && s.v && s.w && centres && score ? CAD_OK : CAD_ERR_MEMORY;
	if (status == CAD_OK) {
		embed(&s, pairs, &random);
		means(&s, nodes, &random, centres, score);
		status = pl_start_balance(score, pairs->experts, nodes, parts, labels);
	}

	free(score);
	free(centres);
	free(s.w);
	free(s.v);
	free(s.matrix);

	return status;
}
