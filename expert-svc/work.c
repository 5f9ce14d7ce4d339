/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/work.h"

#include <stdlib.h>

enum cad_status ex_work_init(struct ex_work *work, uint32_t layers, uint32_t experts)
{
	*work = (struct ex_work){ .layers = layers, .experts = experts };
	work->layer = calloc(layers, sizeof *work->layer);
	work->pairs = calloc((size_t)layers * experts, sizeof *work->pairs);
	return work->layer && work->pairs ? CAD_OK : CAD_ERR_MEMORY;
}

void ex_work_fini(struct ex_work *work)
{
	free(work->layer);
	free(work->pairs);
	*work = (struct ex_work){ 0 };
}
