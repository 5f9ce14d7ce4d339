/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One safetensors file: 8 bytes of header length (little-endian), a JSON header, the data. The
 * header is hostile until checked: its length, every offset, every product of a shape. Format:
 * https://github.com/huggingface/safetensors (README).
 *
 * A file is mapped read-only by `cad_safetensors_open` and unmapped by `_close`; tensors and names
 * point into it. No thread affinity.
 */
#ifndef CADRE_COMMON_MODEL_SAFETENSORS_H
#define CADRE_COMMON_MODEL_SAFETENSORS_H

#include "common/base/file.h"
#include "common/model/tensor.h"

struct cad_safetensors;
struct json_t;

CAD_MUST_USE enum cad_status cad_safetensors_open(
	const char *path, struct cad_safetensors **file, struct cad_error *error);
/* The same over memory that the caller keeps until close, for tests and the fuzzer. */
CAD_MUST_USE enum cad_status cad_safetensors_open_memory(
	const char *name, const void *bytes, size_t size, struct cad_safetensors **file, struct cad_error *error);
void cad_safetensors_close(struct cad_safetensors *file);

size_t cad_safetensors_count(const struct cad_safetensors *file);
struct cad_tensor cad_safetensors_at(const struct cad_safetensors *file, size_t index); /* ascending by data offset */
/* data NULL when absent */
struct cad_tensor cad_safetensors_find(const struct cad_safetensors *file, const char *name);
/* What the header's __metadata__ says of a key, as long as the file is open; NULL: nothing, or not a
 * text. */
const char *cad_safetensors_note(const struct cad_safetensors *file, const char *key);
/* The header's bytes (JSON), for fingerprints. */
const void *cad_safetensors_header(const struct cad_safetensors *file, size_t *bytes);
/* Of the file that was mapped; all 0 for one in memory. */
struct cad_file_identity cad_safetensors_identity(const struct cad_safetensors *file);
size_t cad_safetensors_file_bytes(const struct cad_safetensors *file);

/*
 * Writes a file: `cadrectl eval` and test tools. Tensors in the order given, 64-byte aligned
 * header, temporary file then rename. Names differ, and each tensor starts at a multiple of its
 * element (larger elements first does it).
 */
CAD_MUST_USE enum cad_status cad_safetensors_write(
	const char *path, const struct cad_tensor *tensors, size_t count, struct cad_error *error);
/* All that stands before the data of such a file, for who writes that: its tensors' data is not
 * read. `notes`: the texts of __metadata__. The caller frees it; NULL: no memory, or a text is not
 * UTF-8. */
char *cad_safetensors_head(const struct cad_tensor *tensors, size_t count, struct json_t *notes, size_t *bytes);

#endif
