/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a safetensors file: refused or readable, every byte that a tensor claims
 * included. */
#include "common/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct cad_safetensors *file;
	struct cad_error error;

	if (cad_safetensors_open_memory("fuzz.safetensors", bytes, size, &file, &error) != CAD_OK) {
		CAD_ASSERT(error.status < 0 && strlen(error.text) > 0);
		return 0;
	}

	uint64_t total = 0;
	unsigned sum = 0;
	for (size_t i = 0; i < cad_safetensors_count(file); i++) {
		struct cad_tensor tensor = cad_safetensors_at(file, i), found = cad_safetensors_find(file, tensor.name);
		CAD_ASSERT(found.data == tensor.data && found.name == tensor.name);
		uint64_t elements = 1;
		for (uint32_t d = 0; d < tensor.rank && d < 4; d++)
			elements *= tensor.shape[d];
		CAD_ASSERT(tensor.rank > 4 || elements * cad_dtype_bits(tensor.dtype) == tensor.bytes * 8);
		for (uint64_t b = 0; b < tensor.bytes; b++)
			sum += ((const uint8_t *)tensor.data)[b];
		total += tensor.bytes;
	}

	size_t header_bytes;
	(void)cad_safetensors_header(file, &header_bytes);
	CAD_ASSERT(total + header_bytes + 8 == cad_safetensors_file_bytes(file));
	volatile unsigned sink = sum; /* so that the reads happen */
	(void)sink;
	cad_safetensors_close(file);

	return 0;
}
