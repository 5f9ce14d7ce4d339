/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/pinned.h"

enum { BUFFERS_MAX = 8, BYTES_MAX = 256 << 20 };

static void *pin(void *device, size_t bytes) { return ((struct kn_device *)device)->ops->host_alloc(device, bytes); }

static void unpin(void *device, void *memory, size_t bytes)
{
	((struct kn_device *)device)->ops->host_release(device, memory, bytes);
}

void ex_pin_requests(struct kn_device *device, struct cad_transport_options *options)
{
	struct kn_device_info info;
	uint64_t count = BYTES_MAX / options->limits.payload_bytes_max;

	device->ops->describe(device, &info);
	if (!*info.chip) /* a CPU */
		return;
	options->pinned = (struct cad_pinned_memory){ pin, unpin, device };
	options->pinned_buffers = count < BUFFERS_MAX ? (uint32_t)count : BUFFERS_MAX;
}
