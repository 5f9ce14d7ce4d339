/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/spec.h"

#include <stdlib.h>
#include <string.h>

static const char *const weights_names[] = {
	[CAD_WEIGHTS_AS_IS] = "f32",
	[CAD_WEIGHTS_BF16] = "bf16",
	[CAD_WEIGHTS_BF16_ROWS] = "bf16",
	[CAD_WEIGHTS_BF16_SM90] = "bf16",
	[CAD_WEIGHTS_INT8] = "int8",
	[CAD_WEIGHTS_INT4] = "int4",
};
enum { WEIGHTS = sizeof weights_names / sizeof *weights_names };

const char *cad_weights_name(enum cad_weights weights)
{
	return (size_t)weights < WEIGHTS ? weights_names[weights] : "unknown";
}

bool cad_weights_find(const char *name, enum cad_weights *weights)
{
	for (size_t i = WEIGHTS; i-- > 0;)
		if (i != CAD_WEIGHTS_BF16_SM90 && strcmp(name, weights_names[i]) == 0) {
			*weights = (enum cad_weights)i;
			return true;
		}
	return false;
}

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

uint32_t cad_model_spec_layers_of(const struct cad_model_spec *spec, uint32_t attention_at)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < spec->layers_count; i++)
		count += spec->layers[i].attention_at == attention_at;
	return count;
}

bool cad_model_spec_needs_ones(const struct cad_model_spec *spec)
{
	bool needs = false;
	for (uint32_t i = 0; i < spec->attentions_count; i++)
		needs = needs || spec->attentions[i].qk_norm_plain;
	return needs;
}
