/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers that messages are sent from and received into. The functions here make plain ones, for
 * links that need nothing special; everything else uses cad_buffer_create (transport.h). */
#ifndef CADRE_COMMON_TRANSPORT_BUFFER_H
#define CADRE_COMMON_TRANSPORT_BUFFER_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* A buffer that the transport can send from and receive into without a copy where the hardware can
 * (registered once). */
struct cad_buffer {
	uint8_t *bytes; /* 64-byte aligned */
	size_t capacity;
	void *registration; /* the transport's own */
};

/* Page-aligned, and touched only when used, so that a generous pool costs only address space. */
CAD_MUST_USE enum cad_status cad_buffer_map(size_t bytes, struct cad_buffer *buffer);
void cad_buffer_unmap(struct cad_buffer *buffer);

#endif
