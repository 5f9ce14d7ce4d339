/* SPDX-License-Identifier: Apache-2.0 */
#include "common/transport/buffer.h"

#include <sys/mman.h>

enum cad_status cad_buffer_map(size_t bytes, struct cad_buffer *buffer)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return CAD_ERR_MEMORY;
	*buffer = (struct cad_buffer){ .bytes = memory, .capacity = bytes };
	return CAD_OK;
}

void cad_buffer_unmap(struct cad_buffer *buffer)
{
	munmap(buffer->bytes, buffer->capacity);
	*buffer = (struct cad_buffer){ .bytes = NULL };
}
