/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers that messages are sent from and received into. The functions here make plain ones, for
 * links that need nothing special; everything else uses cad_buffer_create (transport.h). */
#ifndef CADRE_COMMON_TRANSPORT_BUFFER_H
#define CADRE_COMMON_TRANSPORT_BUFFER_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Who pins memory, so that a device can copy from there by itself: struct kn_ops' host_alloc and
 * host_release, of that device. Any thread. */
struct cad_pinned_memory {
	void *(*alloc)(void *context, size_t bytes); /* 64-byte aligned; NULL: there is none left */
	void (*release)(void *context, void *memory, size_t bytes);
	void *context;
};

/* A buffer that the transport can send from and receive into without a copy where the hardware can
 * (registered once). */
struct cad_buffer {
	uint8_t *bytes; /* 64-byte aligned */
	size_t capacity;
	const struct cad_pinned_memory *pinned; /* whose the bytes are; NULL: the host's alone */
	void *registration;                     /* the transport's own */
};

/* `pinned` NULL: of the host; page-aligned, and touched only when used, so that a generous pool
 * costs only address space. Pinned memory is taken at once. CAD_ERR_MEMORY is the only failure. */
CAD_MUST_USE enum cad_status cad_buffer_map(
	size_t bytes, const struct cad_pinned_memory *pinned, struct cad_buffer *buffer);
void cad_buffer_unmap(struct cad_buffer *buffer);

#endif
