/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/rules.h"

#include <stdlib.h>
#include <string.h>

enum cad_status pl_rules_init(struct pl_rules *rules, uint32_t cells)
{
	*rules = (struct pl_rules){ .copies = calloc(cells + 1u, sizeof *rules->copies) };
	return rules->copies ? CAD_OK : CAD_ERR_MEMORY;
}

void pl_rules_fini(struct pl_rules *rules)
{
	free(rules->pins);
	free(rules->drained);
	free(rules->copies);
	*rules = (struct pl_rules){ 0 };
}

enum cad_status pl_rules_copy(struct pl_rules *rules, const struct pl_rules *from, uint32_t cells)
{
	enum cad_status status = pl_rules_init(rules, cells);
	for (uint32_t i = 0; status == CAD_OK && i < from->pins_count; i++)
		status = pl_rules_pin(rules, from->pins[i].cell, from->pins[i].node);
	for (uint32_t i = 0; status == CAD_OK && i < from->drained_count; i++)
		status = pl_rules_drain(rules, from->drained[i]);
	if (status == CAD_OK)
		memcpy(rules->copies, from->copies, cells * sizeof *rules->copies);
	else
		pl_rules_fini(rules);
	return status;
}

enum cad_status pl_rules_pin(struct pl_rules *rules, uint32_t cell, const char *node)
{
	if (pl_rules_pinned(rules, cell, node))
		return CAD_OK;
	struct pl_pin *grown = realloc(rules->pins, (rules->pins_count + 1u) * sizeof *grown);
	if (!grown)
		return CAD_ERR_MEMORY;

	rules->pins = grown;
	grown += rules->pins_count++;
	*grown = (struct pl_pin){ .cell = cell };
	strncpy(grown->node, node, sizeof grown->node - 1);
	return CAD_OK;
}

enum cad_status pl_rules_drain(struct pl_rules *rules, const char *node)
{
	if (pl_rules_drained(rules, node))
		return CAD_OK;
	char(*grown)[CAD_MAP_ID_BYTES] = realloc(rules->drained, (rules->drained_count + 1u) * sizeof *grown);
	if (!grown)
		return CAD_ERR_MEMORY;

	rules->drained = grown;
	grown += rules->drained_count++;
	memset(*grown, 0, sizeof *grown);
	strncpy(*grown, node, sizeof *grown - 1);
	return CAD_OK;
}

bool pl_rules_unpin(struct pl_rules *rules, uint32_t cell)
{
	uint32_t kept = 0, before = rules->pins_count;
	for (uint32_t i = 0; i < before; i++)
		if (rules->pins[i].cell != cell)
			rules->pins[kept++] = rules->pins[i];
	rules->pins_count = kept;
	return kept < before;
}

bool pl_rules_undrain(struct pl_rules *rules, const char *node)
{
	for (uint32_t i = 0; i < rules->drained_count; i++)
		if (strcmp(rules->drained[i], node) == 0) {
			memmove(rules->drained[i], rules->drained[--rules->drained_count], sizeof *rules->drained);
			return true;
		}
	return false;
}

bool pl_rules_drained(const struct pl_rules *rules, const char *node)
{
	for (uint32_t i = 0; i < rules->drained_count; i++)
		if (strcmp(rules->drained[i], node) == 0)
			return true;
	return false;
}

bool pl_rules_pinned(const struct pl_rules *rules, uint32_t cell, const char *node)
{
	for (uint32_t i = 0; i < rules->pins_count; i++)
		if (rules->pins[i].cell == cell && strcmp(rules->pins[i].node, node) == 0)
			return true;
	return false;
}

uint32_t pl_rules_pins_of(const struct pl_rules *rules, uint32_t cell)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < rules->pins_count; i++)
		count += rules->pins[i].cell == cell;
	return count;
}

uint32_t pl_rules_pins_to(const struct pl_rules *rules, const char *node)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < rules->pins_count; i++)
		count += strcmp(rules->pins[i].node, node) == 0;
	return count;
}
