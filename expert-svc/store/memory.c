/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/store/memory.h"

#include "common/base/bytes.h"
#include "common/base/log.h"

#include <stdio.h>

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t without(uint64_t bytes, uint64_t part) { return bytes > part ? bytes - part : 0; }

static uint64_t reserve_of(const struct ex_memory *memory)
{
	return memory->step_bytes + memory->queue_bytes + memory->driver_bytes;
}

/* "has 4.0 GiB, of which ..." */
static const char *say(const struct ex_memory *memory, char text[256])
{
	char all[CAD_BYTES_TEXT_BYTES], now[CAD_BYTES_TEXT_BYTES], reserve[CAD_BYTES_TEXT_BYTES],
		step[CAD_BYTES_TEXT_BYTES], queue[CAD_BYTES_TEXT_BYTES], driver[CAD_BYTES_TEXT_BYTES];
	snprintf(text, 256,
		"has %s, of which %s are free and %s stay reserved (%s for steps, %s for the queue, %s for the driver)",
		cad_bytes_text(memory->device_bytes, all), cad_bytes_text(memory->free_bytes, now),
		cad_bytes_text(reserve_of(memory), reserve), cad_bytes_text(memory->step_bytes, step),
		cad_bytes_text(memory->queue_bytes, queue), cad_bytes_text(memory->driver_bytes, driver));
	return text;
}

/* Filled but for the reserve; nodes that share it have equal parts, each with its reserve. */
static enum cad_status plan_own(const struct ex_memory_ask *ask, struct ex_memory *memory, struct cad_error *error)
{
	const uint64_t reserve = reserve_of(memory), left = without(memory->free_bytes, reserve),
		       share = least(left, without(memory->device_bytes / ask->nodes, reserve)),
		       room = ask->memory_bytes > 0 ? ask->memory_bytes : share;
	char has[256], asked[CAD_BYTES_TEXT_BYTES], most[CAD_BYTES_TEXT_BYTES], one[CAD_BYTES_TEXT_BYTES];

	if (room > left)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"--memory asks for %s, but device '%s' %s: give this node at most %s, or end what else uses the device",
			cad_bytes_text(room, asked), ask->device->name, say(memory, has), cad_bytes_text(left, most));
	if (ask->memory_bytes == 0 && share < memory->slot_bytes)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"there is no room for one expert of this model, which takes %s: device '%s' %s; end what else uses the device, or lower --step-rows and --step-pairs",
			cad_bytes_text(memory->slot_bytes, one), ask->device->name, say(memory, has));

	memory->weights_bytes = room;
	return CAD_OK;
}

enum cad_status ex_memory_plan(const struct ex_memory_ask *ask, struct ex_memory *memory, struct cad_error *error)
{
	const struct kn_device_info *device = ask->device;
	CAD_ASSERT(ask->nodes > 0 && ask->expert_bytes > 0);
	*memory = (struct ex_memory){
		.device_bytes = device->memory_total_bytes,
		.free_bytes = device->memory_bytes,
		.step_bytes = ask->step_bytes,
		.queue_bytes = device->queue_bytes,
		.driver_bytes = device->driver_bytes,
		.slot_bytes = ask->expert_bytes,
		.experts = ask->experts,
	};
	memory->weights_bytes = ask->memory_bytes > 0 ? ask->memory_bytes : memory->free_bytes / 5 * 4 / ask->nodes;
	enum cad_status status = memory->device_bytes > 0 ? plan_own(ask, memory, error) : CAD_OK;
	if (status != CAD_OK)
		return status;

	memory->slots = memory->weights_bytes / memory->slot_bytes;
	if (memory->slots == 0)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"there are %llu bytes for expert weights, but one expert of this model takes %llu: give this node more with --memory",
			(unsigned long long)memory->weights_bytes, (unsigned long long)memory->slot_bytes);
	if (memory->device_bytes > 0) {
		memory->slots = least(memory->slots, ask->experts);
		memory->weights_bytes = memory->slots * memory->slot_bytes;
	}
	return CAD_OK;
}

void ex_memory_log(const struct ex_memory *memory, const char *device)
{
	cad_log_info("expert", "memory planned", CAD_S("device", device), CAD_U("device_bytes", memory->device_bytes),
		CAD_U("free_bytes", memory->free_bytes), CAD_U("steps_bytes", memory->step_bytes),
		CAD_U("queue_bytes", memory->queue_bytes), CAD_U("driver_bytes", memory->driver_bytes),
		CAD_U("weights_bytes", memory->weights_bytes), CAD_U("slot_bytes", memory->slot_bytes),
		CAD_U("slots", memory->slots), CAD_U("experts", memory->experts));
}

const char *ex_memory_free_text(const struct kn_device *device, char text[EX_MEMORY_TEXT_BYTES])
{
	struct kn_device_info info;
	char now[CAD_BYTES_TEXT_BYTES], all[CAD_BYTES_TEXT_BYTES];

	device->ops->describe(device, &info);
	cad_bytes_text(info.memory_bytes, now);
	if (info.memory_total_bytes > 0)
		snprintf(text, EX_MEMORY_TEXT_BYTES, "device '%s' has %s of %s free", info.name, now,
			cad_bytes_text(info.memory_total_bytes, all));
	else
		snprintf(text, EX_MEMORY_TEXT_BYTES, "this machine has %s free", now);
	return text;
}
