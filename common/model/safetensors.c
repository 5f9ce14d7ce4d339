/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/safetensors.h"

#include "common/base/file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
	HEADER_BYTES_MAX = 100000000, /* the limit of the reference implementation */
	LENGTH_BYTES = 8,
};

struct cad_safetensors {
	const char *bytes; /* the file */
	size_t size;
	bool mapped; /* unmapped at close */
	struct cad_file_identity identity;
	size_t header_bytes;
	struct cad_tensor *tensors;        /* [count], ascending by offset */
	const struct cad_tensor **by_name; /* [count], ascending by name */
	size_t count;
	char *names;   /* one block behind every tensor's name */
	json_t *notes; /* __metadata__; NULL: none */
};

/* All that safetensors 0.8 knows. */
static const struct {
	const char *name;
	enum cad_dtype dtype;
} published_dtypes[] = {
	{ "F32", CAD_DTYPE_F32 },
	{ "F16", CAD_DTYPE_F16 },
	{ "BF16", CAD_DTYPE_BF16 },
	{ "F8_E4M3", CAD_DTYPE_F8_E4M3 },
	{ "I64", CAD_DTYPE_I64 },
	{ "I32", CAD_DTYPE_I32 },
	{ "U8", CAD_DTYPE_U8 },
	{ "F64", CAD_DTYPE_F64 },
	{ "C64", CAD_DTYPE_C64 },
	{ "BOOL", CAD_DTYPE_BOOL },
	{ "I8", CAD_DTYPE_I8 },
	{ "I16", CAD_DTYPE_I16 },
	{ "U16", CAD_DTYPE_U16 },
	{ "U32", CAD_DTYPE_U32 },
	{ "U64", CAD_DTYPE_U64 },
	{ "F8_E5M2", CAD_DTYPE_F8_E5M2 },
	{ "F8_E8M0", CAD_DTYPE_F8_E8M0 },
	{ "F8_E4M3FNUZ", CAD_DTYPE_F8_E4M3FNUZ },
	{ "F8_E5M2FNUZ", CAD_DTYPE_F8_E5M2FNUZ },
	{ "F6_E2M3", CAD_DTYPE_F6_E2M3 },
	{ "F6_E3M2", CAD_DTYPE_F6_E3M2 },
	{ "F4", CAD_DTYPE_F4 },
};

/* What one file is being checked against; `name` is how its sentences call it. */
struct reading {
	struct cad_safetensors *file;
	const char *name;
	struct cad_error *error;
};

static enum cad_status read_dtype(
	const struct reading *r, const char *tensor, const json_t *value, enum cad_dtype *dtype)
{
	if (!json_is_string(value))
		return cad_error_set(r->error, CAD_ERR_CORRUPT, "%s: tensor '%s' has no dtype", r->name, tensor);
	for (size_t i = 0; i < sizeof published_dtypes / sizeof *published_dtypes; i++)
		if (strcmp(json_string_value(value), published_dtypes[i].name) == 0) {
			*dtype = published_dtypes[i].dtype;
			return CAD_OK;
		}
	return cad_error_set(r->error, CAD_ERR_UNSUPPORTED,
		"%s: tensor '%s' has dtype '%.32s', which is none of those of safetensors 0.8", r->name, tensor,
		json_string_value(value));
}

static enum cad_status read_shape(
	const struct reading *r, const char *tensor, const json_t *value, struct cad_tensor *out)
{
	if (!json_is_array(value))
		return cad_error_set(r->error, CAD_ERR_CORRUPT, "%s: tensor '%s' has no shape", r->name, tensor);

	size_t rank = json_array_size(value);
	uint64_t bits = cad_dtype_bits(out->dtype);
	for (size_t i = 0; i < rank; i++) {
		const json_t *size = json_array_get(value, i);
		if (!json_is_integer(size) || json_integer_value(size) < 0)
			return cad_error_set(r->error, CAD_ERR_CORRUPT,
				"%s: tensor '%s' has a shape with something other than whole numbers from 0 up",
				r->name, tensor);
		uint64_t n = (uint64_t)json_integer_value(size);
		if (i < sizeof out->shape / sizeof *out->shape)
			out->shape[i] = n;
		if (__builtin_mul_overflow(bits, n, &bits))
			return cad_error_set(r->error, CAD_ERR_CORRUPT,
				"%s: tensor '%s' has a shape whose product does not fit 64 bits", r->name, tensor);
	}

	if (bits % 8 != 0)
		return cad_error_set(r->error, CAD_ERR_CORRUPT,
			"%s: tensor '%s' has %llu bits of data, which are no whole bytes", r->name, tensor,
			(unsigned long long)bits);
	out->rank = (uint32_t)rank;
	out->bytes = bits / 8;
	return CAD_OK;
}

/* The tensor's place in the data, checked against the file and its shape. */
static enum cad_status read_place(
	const struct reading *r, const char *tensor, const json_t *value, struct cad_tensor *out)
{
	const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
	if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
		json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first))
		return cad_error_set(r->error, CAD_ERR_CORRUPT,
			"%s: tensor '%s' has data_offsets that are not two ascending whole numbers", r->name, tensor);
	uint64_t begin = (uint64_t)json_integer_value(first), end = (uint64_t)json_integer_value(last);
	uint64_t data_bytes = r->file->size - LENGTH_BYTES - r->file->header_bytes;
	if (end > data_bytes)
		return cad_error_set(r->error, CAD_ERR_CORRUPT,
			"%s: tensor '%s' ends at byte %llu of the data, but the file has only %llu: it is truncated or its header lies",
			r->name, tensor, (unsigned long long)end, (unsigned long long)data_bytes);
	if (end - begin != out->bytes)
		return cad_error_set(r->error, CAD_ERR_CORRUPT,
			"%s: tensor '%s' has %llu bytes of data, but its shape and dtype need %llu", r->name, tensor,
			(unsigned long long)(end - begin), (unsigned long long)out->bytes);
	out->data = r->file->bytes + LENGTH_BYTES + r->file->header_bytes + begin;

	return CAD_OK;
}

static enum cad_status read_tensor(
	const struct reading *r, const char *name, const json_t *value, struct cad_tensor *tensor)
{
	if (!json_is_object(value))
		return cad_error_set(
			r->error, CAD_ERR_CORRUPT, "%s: the header's entry '%s' is not an object", r->name, name);
	struct cad_tensor read = { .name = name };
	enum cad_status status = read_dtype(r, name, json_object_get(value, "dtype"), &read.dtype);
	if (status == CAD_OK)
		status = read_shape(r, name, json_object_get(value, "shape"), &read);
	if (status == CAD_OK)
		status = read_place(r, name, json_object_get(value, "data_offsets"), &read);
	if (status == CAD_OK)
		*tensor = read;

	return status;
}

static int by_offset(const void *a, const void *b)
{
	const struct cad_tensor *x = a, *y = b;
	if (x->data != y->data)
		return (const char *)x->data < (const char *)y->data ? -1 : 1;
	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? -1 : 1; /* an empty tensor before the one that starts where it stands */
	return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct cad_tensor *const *)a)->name, (*(const struct cad_tensor *const *)b)->name);
}

/* The data must be covered without holes and without overlaps, as the format says: nothing hides
 * between tensors, and none shares another's bytes. */
static enum cad_status check_cover(const struct reading *r)
{
	const struct cad_safetensors *file = r->file;
	const char *at = file->bytes + LENGTH_BYTES + file->header_bytes;

	for (size_t i = 0; i < file->count; i++) {
		const char *data = file->tensors[i].data;
		if (data != at)
			return cad_error_set(r->error, CAD_ERR_CORRUPT, "%s: tensor '%s' %s", r->name,
				file->tensors[i].name,
				data < at ? "overlaps the tensor before it"
					  : "leaves a hole before it that no tensor names");
		at += file->tensors[i].bytes;
	}

	if (at != file->bytes + file->size)
		return cad_error_set(r->error, CAD_ERR_CORRUPT, "%s: the last %zu bytes belong to no tensor", r->name,
			(size_t)(file->bytes + file->size - at));
	return CAD_OK;
}

/* Copies tensors and their names out of the parsed header. */
static enum cad_status read_tensors(const struct reading *r, json_t *header)
{
	struct cad_safetensors *file = r->file;
	const char *key;
	json_t *value;
	size_t count = 0, names_bytes = 0;

	json_object_foreach(header, key, value)
	{
		count++;
		names_bytes += strlen(key) + 1;
	}
	file->tensors = calloc(count + 1, sizeof *file->tensors);
	file->by_name = calloc(count + 1, sizeof *file->by_name);
	file->names = malloc(names_bytes + 1);
	if (!file->tensors || !file->by_name || !file->names)
		return cad_error_set(
			r->error, CAD_ERR_MEMORY, "%s: no memory for the names of %zu tensors", r->name, count);
	char *names = file->names;
	json_object_foreach(header, key, value)
	{
		if (strcmp(key, "__metadata__") == 0) {
			file->notes = json_incref(value);
			continue;
		}
		size_t bytes = strlen(key) + 1;
		memcpy(names, key, bytes);
		enum cad_status status = read_tensor(r, names, value, &file->tensors[file->count]);
		if (status != CAD_OK)
			return status;
		file->count++;
		names += bytes;
	}
	qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
	for (size_t i = 0; i < file->count; i++)
		file->by_name[i] = &file->tensors[i];
	qsort(file->by_name, file->count, sizeof *file->by_name, by_name);

	return check_cover(r);
}

static enum cad_status read_header(const struct reading *r)
{
	struct cad_safetensors *file = r->file;
	if (file->size < LENGTH_BYTES)
		return cad_error_set(r->error, CAD_ERR_CORRUPT, "%s has %zu bytes, too few for a safetensors file",
			r->name, file->size);
	uint64_t length = 0;
	for (int i = 0; i < LENGTH_BYTES; i++)
		length |= (uint64_t)(unsigned char)file->bytes[i] << (8 * i);
	if (length > HEADER_BYTES_MAX)
		return cad_error_set(r->error, CAD_ERR_CORRUPT,
			"%s: the header claims %llu bytes; at most %d are allowed, so this is not a safetensors file",
			r->name, (unsigned long long)length, HEADER_BYTES_MAX);
	if (length > file->size - LENGTH_BYTES)
		return cad_error_set(r->error, CAD_ERR_CORRUPT,
			"%s: the header claims %llu bytes, but the file has only %zu: it is truncated", r->name,
			(unsigned long long)length, file->size);
	file->header_bytes = (size_t)length;
	const char *text = file->bytes + LENGTH_BYTES;
	if (length == 0 || text[0] != '{')
		return cad_error_set(r->error, CAD_ERR_CORRUPT, "%s: the header does not begin with '{'", r->name);
	json_error_t problem;
	json_t *header = json_loadb(text, file->header_bytes, JSON_REJECT_DUPLICATES, &problem);
	if (!header && problem.text[0] == 0) /* jansson says nothing when it is out of memory */
		return cad_error_set(r->error, CAD_ERR_MEMORY, "%s: no memory to parse the header", r->name);
	if (!header)
		return cad_error_set(r->error, CAD_ERR_CORRUPT, "%s: the header is not JSON: %s at byte %d", r->name,
			problem.text, problem.position);
	enum cad_status status = read_tensors(r, header);
	json_decref(header);

	return status;
}

static enum cad_status open_bytes(const char *name, const void *bytes, size_t size, bool mapped,
	struct cad_safetensors **file, struct cad_error *error)
{
	struct cad_safetensors *opened = calloc(1, sizeof *opened);
	if (!opened) {
		if (mapped)
			cad_file_unmap(bytes, size);
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to open %s", name);
	}

	opened->bytes = bytes;
	opened->size = size;
	opened->mapped = mapped;
	enum cad_status status = read_header(&(struct reading){ .file = opened, .name = name, .error = error });
	if (status != CAD_OK) {
		cad_safetensors_close(opened);
		return status;
	}

	*file = opened;
	return CAD_OK;
}

enum cad_status cad_safetensors_open_memory(
	const char *name, const void *bytes, size_t size, struct cad_safetensors **file, struct cad_error *error)
{
	return open_bytes(name, bytes, size, false, file, error);
}

enum cad_status cad_safetensors_open(const char *path, struct cad_safetensors **file, struct cad_error *error)
{
	const void *bytes;
	size_t size;
	struct cad_file_identity identity;
	enum cad_status status = cad_file_map(path, &bytes, &size, &identity, error);
	if (status == CAD_OK)
		status = open_bytes(path, bytes, size, true, file, error);
	if (status == CAD_OK)
		(*file)->identity = identity;
	return status;
}

void cad_safetensors_close(struct cad_safetensors *file)
{
	if (!file)
		return;
	if (file->mapped)
		cad_file_unmap(file->bytes, file->size);
	json_decref(file->notes);
	free(file->names);
	free(file->by_name);
	free(file->tensors);
	free(file);
}

size_t cad_safetensors_count(const struct cad_safetensors *file) { return file->count; }

struct cad_tensor cad_safetensors_at(const struct cad_safetensors *file, size_t index)
{
	CAD_ASSERT(index < file->count);
	return file->tensors[index];
}

struct cad_tensor cad_safetensors_find(const struct cad_safetensors *file, const char *name)
{
	size_t low = 0, high = file->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(file->by_name[middle]->name, name);
		if (order == 0)
			return *file->by_name[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return (struct cad_tensor){ 0 };
}

const char *cad_safetensors_note(const struct cad_safetensors *file, const char *key)
{
	return json_string_value(json_object_get(file->notes, key));
}

const void *cad_safetensors_header(const struct cad_safetensors *file, size_t *bytes)
{
	*bytes = file->header_bytes;
	return file->bytes + LENGTH_BYTES;
}

struct cad_file_identity cad_safetensors_identity(const struct cad_safetensors *file) { return file->identity; }

size_t cad_safetensors_file_bytes(const struct cad_safetensors *file) { return file->size; }

static const char *published_name(enum cad_dtype dtype)
{
	for (size_t i = 0; i < sizeof published_dtypes / sizeof *published_dtypes; i++)
		if (published_dtypes[i].dtype == dtype)
			return published_dtypes[i].name;
	cad_assert_failed(__FILE__, __LINE__, "every dtype has a published name");
}

/* One tensor of a header; NULL without memory. */
static json_t *make_entry(const struct cad_tensor *tensor, json_int_t begin)
{
	json_t *shape = json_array();
	for (uint32_t d = 0; d < tensor->rank; d++)
		if (json_array_append_new(shape, json_integer((json_int_t)tensor->shape[d])) != 0) {
			json_decref(shape);
			return NULL;
		}
	return json_pack("{s:s, s:o, s:[I,I]}", "dtype", published_name(tensor->dtype), "shape", shape, "data_offsets",
		begin, begin + (json_int_t)tensor->bytes);
}

/* The header's JSON, without its length. */
static char *make_header(const struct cad_tensor *tensors, size_t count, json_t *notes)
{
	json_t *header = json_pack("{s:O}", "__metadata__", notes);
	json_int_t at = 0;
	bool built = header != NULL;
	for (size_t i = 0; built && i < count; i++) {
		CAD_ASSERT((size_t)at % cad_dtype_bytes(tensors[i].dtype) == 0 &&
			!json_object_get(header, tensors[i].name));
		built = json_object_set_new(header, tensors[i].name, make_entry(&tensors[i], at)) == 0;
		at += (json_int_t)tensors[i].bytes;
	}

	char *text = built ? json_dumps(header, JSON_COMPACT) : NULL;
	json_decref(header);
	return text;
}

char *cad_safetensors_head(const struct cad_tensor *tensors, size_t count, json_t *notes, size_t *bytes)
{
	char *text = make_header(tensors, count, notes);
	if (!text)
		return NULL;

	/* padded with spaces, so that the data starts at a multiple of 64 bytes */
	size_t length = strlen(text), padded = (LENGTH_BYTES + length + 63) / 64 * 64;
	char *head = malloc(padded);
	if (head) {
		for (int i = 0; i < LENGTH_BYTES; i++)
			head[i] = (char)((uint64_t)(padded - LENGTH_BYTES) >> (8 * i) & 0xff);
		memcpy(head + LENGTH_BYTES, text, length);
		memset(head + LENGTH_BYTES + length, ' ', padded - LENGTH_BYTES - length);
		*bytes = padded;
	}
	free(text);
	return head;
}

enum cad_status cad_safetensors_write(
	const char *path, const struct cad_tensor *tensors, size_t count, struct cad_error *error)
{
	size_t head_bytes = 0;
	json_t *notes = json_pack("{s:s}", "format", "pt");
	char *head = notes ? cad_safetensors_head(tensors, count, notes, &head_bytes) : NULL;

	json_decref(notes);
	if (!head)
		return cad_error_set(error, CAD_ERR_MEMORY,
			"no memory for the header of %s (or a tensor's name is not UTF-8)", path);
	struct cad_file_writer writer;
	enum cad_status status = cad_file_writer_open(&writer, path, error);
	if (status == CAD_OK) {
		fwrite(head, 1, head_bytes, writer.stream);
		for (size_t i = 0; i < count; i++)
			if (tensors[i].bytes)
				fwrite(tensors[i].data, 1, tensors[i].bytes, writer.stream);
		status = cad_file_writer_commit(&writer, error);
	}

	free(head);
	return status;
}
