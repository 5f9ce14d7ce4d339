/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/spec.h"

#include <stdlib.h>

void cad_model_spec_fini(struct cad_model_spec *spec)
{
	free(spec->layers);
	*spec = (struct cad_model_spec){ 0 };
}

uint32_t cad_model_spec_moe_layers(const struct cad_model_spec *spec)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < spec->layers_count; i++)
		count += spec->layers[i].moe;
	return count;
}
