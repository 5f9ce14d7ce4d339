/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What operators have said about single nodes and experts: nodes that are drained,
 * experts that are pinned to nodes, experts of which there shall be more copies. It
 * outlives the nodes that it names.
 *
 * Plain data, freed with pl_rules_fini; cells are those of shape.h. One thread; allocates.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_RULES_H
#define CADRE_ORCHESTRATION_PLACEMENT_RULES_H

#include "common/base/status.h"
#include "common/cluster/map.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_pin {
	uint32_t cell;
	char node[CAD_MAP_ID_BYTES];
};

struct pl_rules {
	struct pl_pin *pins;
	uint32_t pins_count;
	char (*drained)[CAD_MAP_ID_BYTES];
	uint32_t drained_count;
	uint16_t *copies; /* [cells] copies wanted at least; 0: as of everybody */
};

CAD_MUST_USE enum cad_status pl_rules_init(struct pl_rules *rules, uint32_t cells);
CAD_MUST_USE enum cad_status pl_rules_copy(struct pl_rules *rules, const struct pl_rules *from, uint32_t cells);
void pl_rules_fini(struct pl_rules *rules); /* takes a zeroed one too */

/* What is so already stays so. CAD_ERR_MEMORY. */
CAD_MUST_USE enum cad_status pl_rules_pin(struct pl_rules *rules, uint32_t cell, const char *node);
CAD_MUST_USE enum cad_status pl_rules_drain(struct pl_rules *rules, const char *node);
/* Whether there was anything to undo. */
bool pl_rules_unpin(struct pl_rules *rules, uint32_t cell); /* from all nodes */
bool pl_rules_undrain(struct pl_rules *rules, const char *node);

bool pl_rules_drained(const struct pl_rules *rules, const char *node);
bool pl_rules_pinned(const struct pl_rules *rules, uint32_t cell, const char *node);
/* Pins of an expert; to a node. */
uint32_t pl_rules_pins_of(const struct pl_rules *rules, uint32_t cell);
uint32_t pl_rules_pins_to(const struct pl_rules *rules, const char *node);

#endif
