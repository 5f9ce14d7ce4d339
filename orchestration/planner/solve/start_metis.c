/* SPDX-License-Identifier: Apache-2.0 */
/* METIS as one more start, where it was installed when this was built. */
#include "orchestration/planner/solve/start.h"

#ifdef CADRE_METIS

#include <metis.h>
#include <pthread.h>
#include <stdlib.h>

/* METIS draws from the C library's rand(), which all threads share: one call at a time, so that
 * each gets the numbers of its seed. */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

/* The graph of all pairs: weights of METIS are whole numbers. Parts need not be exactly full, so
 * that what METIS found is balanced afterwards. */
enum cad_status pl_start_metis(
	const struct pl_pairs *pairs, uint32_t nodes, const uint32_t *parts, uint64_t seed, uint32_t *labels)
{
	uint32_t E = pairs->experts, open = 0, node_of[CAD_NODES_MAX];
	for (uint32_t n = 0; n < nodes; n++)
		if (parts[n] > 0)
			node_of[open++] = n;
	size_t edges = (size_t)E * (E - 1);
	idx_t *start = malloc((E + 1) * sizeof *start), *to = malloc((edges + 1) * sizeof *to),
	      *weight = malloc((edges + 1) * sizeof *weight), *part = calloc(E, sizeof *part);
	real_t *share = malloc(open * sizeof *share);
	float *score = malloc((size_t)E * nodes * sizeof *score);
	enum cad_status status = start && to && weight && part && share && score ? CAD_OK : CAD_ERR_MEMORY;
	if (status == CAD_OK) {
		idx_t vertices = (idx_t)E, constraints = 1, count = (idx_t)open, cut, at = 0, options[METIS_NOPTIONS];
		for (uint32_t i = 0; i < E; i++) {
			start[i] = at;
			for (uint32_t j = 0; j < E; j++)
				if (j != i && pairs->together[(size_t)i * E + j] >= 0.5f) {
					to[at] = (idx_t)j;
					weight[at++] = (idx_t)(pairs->together[(size_t)i * E + j] + 0.5f);
				}
		}
		start[E] = at;
		for (uint32_t n = 0; n < open; n++)
			share[n] = (real_t)parts[node_of[n]] / (real_t)E;
		METIS_SetDefaultOptions(options);
		options[METIS_OPTION_SEED] = (idx_t)(seed & 0x7fffffff);
		pthread_mutex_lock(&one_at_a_time);
		if (open > 1 &&
			METIS_PartGraphKway(&vertices, &constraints, start, to, NULL, NULL, weight, &count, share, NULL,
				options, &cut, part) != METIS_OK)
			status = CAD_ERR_INTERNAL;
		pthread_mutex_unlock(&one_at_a_time);
	}

	if (status == CAD_OK) {
		for (uint32_t i = 0; i < E; i++) {
			float *row = score + (size_t)i * nodes;
			for (uint32_t n = 0; n < nodes; n++)
				row[n] = 0;
			for (uint32_t j = 0; j < E; j++)
				row[node_of[part[j]]] += pairs->together[(size_t)i * E + j] / (pairs->degree[i] + 1);
			row[node_of[part[i]]] += 1;
		}
		status = pl_start_balance(score, E, nodes, parts, labels);
	}

	free(score);
	free(share);
	free(part);
	free(weight);
	free(to);
	free(start);

	return status;
}

#else

enum cad_status pl_start_metis(
	const struct pl_pairs *pairs, uint32_t nodes, const uint32_t *parts, uint64_t seed, uint32_t *labels)
{
	(void)pairs, (void)nodes, (void)parts, (void)seed, (void)labels;
	return CAD_ERR_UNSUPPORTED;
}

#endif
