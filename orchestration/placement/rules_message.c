/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/rules_message.h"

Cadre__V1__Duty pl_duty_to_proto(enum pl_duty duty)
{
	static const Cadre__V1__Duty duties[] = {
		[PL_DUTY_ACTIVE] = CADRE__V1__DUTY__DUTY_ACTIVE,
		[PL_DUTY_DRAINING] = CADRE__V1__DUTY__DUTY_DRAINING,
		[PL_DUTY_SAFE_TO_STOP] = CADRE__V1__DUTY__DUTY_SAFE_TO_STOP,
	};
	return duties[duty];
}

void pl_rules_to_proto(const struct pl_rules *rules, const struct pl_shape *shape, struct pl_rules_message *message,
	Cadre__V1__ClusterStatus *status)
{
	status->pins = message->pins_list;
	for (uint32_t i = 0; i < rules->pins_count && i < PL_RULES_SHOWN_MAX; i++) {
		Cadre__V1__Pin *pin = message->pins_list[i] = &message->pins[i];
		cadre__v1__pin__init(pin);
		pin->layer = pl_cell_layer(shape, rules->pins[i].cell);
		pin->expert = pl_cell_expert(shape, rules->pins[i].cell);
		pin->node = rules->pins[i].node;
		status->n_pins++;
	}

	status->copies = message->copies_list;
	for (uint32_t cell = 0; cell < pl_shape_cells(shape) && status->n_copies < PL_RULES_SHOWN_MAX; cell++) {
		if (!rules->copies[cell])
			continue;
		Cadre__V1__WantedCopies *copies = message->copies_list[status->n_copies] =
			&message->copies[status->n_copies];
		cadre__v1__wanted_copies__init(copies);
		copies->layer = pl_cell_layer(shape, cell);
		copies->expert = pl_cell_expert(shape, cell);
		copies->copies = rules->copies[cell];
		status->n_copies++;
	}
}
