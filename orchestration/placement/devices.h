/* SPDX-License-Identifier: Apache-2.0 */
/* What an expert node says of its GPU: kept with its last report, and shown. Plain data. */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_DEVICES_H
#define CADRE_ORCHESTRATION_PLACEMENT_DEVICES_H

#include "cadre/v1/placement.pb-c.h"

#include <stdbool.h>

struct pl_device {
	bool told; /* a node that says nothing computes on a CPU */
	char device[16], chip[64], throttled[64];
	uint64_t memory_used_bytes, memory_bytes, ecc_uncorrected;
	double busy, clock_hz, power_w, temperature_c;
};

/* From a report; NULL: it says nothing. What is too long is cut. */
void pl_device_read(const Cadre__V1__DeviceState *message, struct pl_device *device);
/* Fills a message that points to `device`, and returns it; NULL: there is nothing to say. */
Cadre__V1__DeviceState *pl_device_write(const struct pl_device *device, Cadre__V1__DeviceState *message);

#endif
