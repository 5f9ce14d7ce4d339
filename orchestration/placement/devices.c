/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/devices.h"

#include "common/base/utf8.h"

void pl_device_read(const Cadre__V1__DeviceState *message, struct pl_device *device)
{
	*device = (struct pl_device){ .told = message };
	if (!message)
		return;

	cad_utf8_copy(device->device, sizeof device->device, message->device);
	cad_utf8_copy(device->chip, sizeof device->chip, message->chip);
	cad_utf8_copy(device->throttled, sizeof device->throttled, message->throttled);
	device->memory_used_bytes = message->memory_used_bytes;
	device->memory_bytes = message->memory_bytes;
	device->ecc_uncorrected = message->ecc_uncorrected;
	device->busy = message->busy;
	device->clock_hz = message->clock_hz;
	device->power_w = message->power_w;
	device->temperature_c = message->temperature_c;
}

Cadre__V1__DeviceState *pl_device_write(const struct pl_device *device, Cadre__V1__DeviceState *message)
{
	if (!device->told)
		return NULL;

	cadre__v1__device_state__init(message);
	message->device = (char *)(uintptr_t)device->device;
	message->chip = (char *)(uintptr_t)device->chip;
	message->throttled = (char *)(uintptr_t)device->throttled;
	message->memory_used_bytes = device->memory_used_bytes;
	message->memory_bytes = device->memory_bytes;
	message->ecc_uncorrected = device->ecc_uncorrected;
	message->busy = device->busy;
	message->clock_hz = device->clock_hz;
	message->power_w = device->power_w;
	message->temperature_c = device->temperature_c;
	return message;
}
