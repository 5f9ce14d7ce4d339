/* SPDX-License-Identifier: Apache-2.0 */
/* Writing the file of a packed model. Every tensor's place is known before, so threads write where
 * they are, in any order. */
#include "common/base/digest.h"
#include "kernels/image.h"
#include "kernels/packed.h"
#include "kernels/source.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* A tensor as it is in the checkpoint, and as it will be in the file. */
struct tensor {
	struct kn_source source;
	enum cad_dtype kept;
	struct cad_tensor out; /* its type in the file: of a quantised matrix U8 [n][bytes of a row] */
	char *name;            /* the published one, which a checkpoint may have otherwise */
	uint64_t at;           /* from the beginning of the data */
	char checksum[33];     /* of one that routers compute with */
};

/* What one thread writes at a time: a part of what routers compute with, or an expert. */
struct unit {
	bool is_expert;
	uint32_t part, layer, expert;
	size_t first, count; /* of its tensors */
	char checksum[33];   /* a part's as the checkpoint has it, an expert's image's */
};

struct writing {
	const struct kn_packing *packing;
	struct tensor *tensors;
	struct unit *units;
	size_t tensors_count, units_count, head_bytes;
	uint64_t data_bytes;
	int file;
	_Atomic uint64_t done;
	_Atomic int failure; /* errno of the first write that failed */
	_Atomic bool stopped;
};

/* ---- what there is ---- */

static void add_tensor(struct writing *w, enum cad_role role, struct cad_tensor tensor, enum cad_weights weights)
{
	struct tensor *made = &w->tensors[w->tensors_count++];
	const struct unit *unit = &w->units[w->units_count - 1];
	char name[256];

	*made = (struct tensor){
		.source = kn_source_of(tensor),
		.kept = kn_kept_dtype(&tensor, role, weights),
		.out = tensor,
	};
	if (cad_model_tensor_name(w->packing->model, role, unit->is_expert ? unit->layer : unit->part, unit->expert,
		    name, sizeof name))
		made->name = strdup(name);
	made->out.name = made->name;
	uint64_t row_bytes = kn_row_bytes(made->kept, made->source.k);
	made->out.bytes = made->source.n * row_bytes;
	made->out.dtype = made->kept;
	if (kn_dtype_in_rows(made->kept)) {
		made->out.dtype = CAD_DTYPE_U8;
		made->out.shape[1] = row_bytes;
	}
	w->units[w->units_count - 1].count++;
}

static void add_unit(struct writing *w, struct unit unit)
{
	unit.first = w->tensors_count;
	memset(unit.checksum, '0', sizeof unit.checksum - 1);
	w->units[w->units_count++] = unit;
}

static void add_part(struct writing *w, uint32_t part)
{
	const struct cad_model *model = w->packing->model;
	enum cad_weights weights = w->packing->weights.router;

	add_unit(w, (struct unit){ .part = part });
	for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE; role++) {
		struct cad_tensor tensor = cad_model_part_tensor(model, part, role);
		if (tensor.data)
			add_tensor(w, role, tensor, weights);
	}

	/* a tied embedding may be kept otherwise than the output matrix */
	struct cad_tensor head = cad_model_tensor(model, CAD_ROLE_LM_HEAD, 0, 0);
	if (part + 1 == cad_model_router_parts(model) && cad_model_spec(model)->tied_embeddings &&
		kn_kept_dtype(&head, CAD_ROLE_EMBED, weights) != kn_kept_dtype(&head, CAD_ROLE_LM_HEAD, weights))
		add_tensor(w, CAD_ROLE_LM_HEAD, head, weights);
}

static void add_expert(struct writing *w, uint32_t layer, uint32_t expert)
{
	add_unit(w, (struct unit){ .is_expert = true, .layer = layer, .expert = expert });
	for (enum cad_role role = CAD_ROLE_EXPERT_GATE; role < CAD_ROLE_COUNT; role++) {
		struct cad_tensor tensor = cad_model_tensor(w->packing->model, role, layer, expert);
		if (tensor.data)
			add_tensor(w, role, tensor, w->packing->weights.experts);
	}
}

/* The largest part, what is in no layer, is begun first. */
static enum cad_status list(struct writing *w, struct cad_error *error)
{
	const struct cad_model *model = w->packing->model;
	const struct cad_model_spec *spec = cad_model_spec(model);
	size_t parts = cad_model_router_parts(model), experts = (size_t)spec->layers_count * spec->gate.experts;

	w->units = calloc(parts + experts, sizeof *w->units);
	w->tensors = calloc(parts * CAD_ROLE_EXPERT_GATE + experts * KN_EXPERT_TENSORS, sizeof *w->tensors);
	if (!w->units || !w->tensors)
		return cad_error_set(
			error, CAD_ERR_MEMORY, "no memory for the list of tensors of '%s'", cad_model_directory(model));
	for (size_t i = 0; i < parts; i++)
		add_part(w, (uint32_t)(parts - 1 - i));
	for (uint32_t layer = 0; layer < spec->layers_count; layer++)
		for (uint32_t e = 0; spec->layers[layer].moe && e < spec->gate.experts; e++)
			add_expert(w, layer, e);
	for (size_t i = 0; i < w->tensors_count; i++) {
		memset(w->tensors[i].checksum, '0', sizeof w->tensors[i].checksum - 1);
		if (!w->tensors[i].name)
			return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the names of tensors of '%s'",
				cad_model_directory(model));
	}

	return CAD_OK;
}

/* Larger elements before smaller ones, so that all are aligned; `placed` are the tensors in that
 * order. */
static void place(struct writing *w, struct cad_tensor *placed)
{
	size_t count = 0;
	for (size_t element = sizeof(float); element > 0; element /= 2)
		for (size_t i = 0; i < w->tensors_count; i++) {
			struct tensor *tensor = &w->tensors[i];
			if (cad_dtype_bytes(tensor->out.dtype) != element)
				continue;
			tensor->at = w->data_bytes;
			w->data_bytes += tensor->out.bytes;
			placed[count++] = tensor->out;
		}
	CAD_ASSERT(count == w->tensors_count);
}

/* ---- what the file says of itself ---- */

static bool set(json_t *notes, const char *key, const char *text)
{
	return json_object_set_new(notes, key, json_string(text)) == 0;
}

static bool set_unit(json_t *notes, const struct writing *w, const struct unit *unit)
{
	char key[CAD_PACKED_KEY_BYTES];
	if (unit->is_expert)
		return set(notes, cad_packed_expert_key(unit->layer, unit->expert, key), unit->checksum);

	bool good = set(notes, cad_packed_part_key(unit->part, key), unit->checksum);
	for (size_t i = unit->first; i < unit->first + unit->count; i++)
		good = good && set(notes, cad_packed_tensor_key(w->tensors[i].out.name, key), w->tensors[i].checksum);
	return good;
}

/* The beginning of the file; always of one length, whatever the checksums. */
static char *make_head(const struct writing *w, const struct cad_tensor *placed, size_t *bytes)
{
	const struct kn_packing *packing = w->packing;
	char model[33], config[33], version[16];
	uint32_t layers = cad_model_spec(packing->model)->layers_count;
	char *quanta = packing->quanta ? cad_packed_quanta_text(packing->quanta, layers) : NULL;
	json_t *notes = json_object();

	cad_model_fingerprint(packing->model, model);
	cad_model_config_checksum(packing->model, config);
	snprintf(version, sizeof version, "%d", CAD_PACKED_VERSION);
	bool good = set(notes, "format", CAD_PACKED_FORMAT) && set(notes, "version", version) &&
		set(notes, "model", model) && set(notes, "config", config) &&
		set(notes, "experts", cad_weights_name(packing->weights.experts)) &&
		set(notes, "router", cad_weights_name(packing->weights.router));
	if (packing->quanta)
		good = good && quanta && set(notes, "quanta", quanta);
	if (cad_model_has_own_head(packing->model))
		good = good && set(notes, "head", "own");
	free(quanta);
	for (size_t i = 0; i < w->units_count; i++)
		good = good && set_unit(notes, w, &w->units[i]);
	char *head = good ? cad_safetensors_head(placed, w->tensors_count, notes, bytes) : NULL;
	json_decref(notes);

	return head;
}

/* ---- writing ---- */

static bool put(struct writing *w, const void *bytes, size_t count, uint64_t at)
{
	for (size_t done = 0; done < count;) {
		ssize_t n = pwrite(w->file, (const char *)bytes + done, count - done, (off_t)(at + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int none = 0;
			atomic_compare_exchange_strong(&w->failure, &none, n < 0 ? errno : EIO);
			return false;
		}
		done += (size_t)n;
	}
	return true;
}

struct putting {
	struct writing *w;
	uint64_t at;
	XXH3_state_t state;
};

static bool put_piece(void *context, const void *bytes, size_t count)
{
	struct putting *p = context;
	const struct kn_packing *packing = p->w->packing;

	XXH3_128bits_update(&p->state, bytes, count);
	if (!put(p->w, bytes, count, p->at))
		return false;
	p->at += count;
	uint64_t done = atomic_fetch_add(&p->w->done, count) + count;
	if (!packing->go_on(packing->context, done, p->w->data_bytes))
		atomic_store(&p->w->stopped, true);
	return !atomic_load(&p->w->stopped);
}

static void hex_of(XXH128_hash_t hash, char hex[33]) { cad_digest_text(hash.high64, hash.low64, hex); }

/* Its tensors one after the other, each hashed alone, or all as one. */
static bool put_unit(struct writing *w, struct unit *unit)
{
	struct putting p = { .w = w };
	uint8_t digest[CAD_DIGEST_BYTES];
	const struct cad_model *model = w->packing->model;

	XXH3_INITSTATE(&p.state);
	XXH3_128bits_reset(&p.state);
	for (size_t i = unit->first; i < unit->first + unit->count; i++) {
		struct tensor *tensor = &w->tensors[i];
		p.at = w->head_bytes + tensor->at;
		if (!kn_source_read(&tensor->source, tensor->kept, put_piece, &p))
			return false;
		if (unit->is_expert)
			continue;
		hex_of(XXH3_128bits_digest(&p.state), tensor->checksum);
		XXH3_128bits_reset(&p.state);
	}

	if (unit->is_expert) {
		hex_of(XXH3_128bits_digest(&p.state), unit->checksum);
		cad_model_forget_expert(model, unit->layer, unit->expert);
	} else {
		cad_model_router_part(model, unit->part, digest);
		cad_digest_bytes_text(digest, unit->checksum);
	}
	return true;
}

static void put_units(void *context, size_t begin, size_t end)
{
	struct writing *w = context;
	for (size_t i = begin; i < end && !atomic_load(&w->stopped); i++)
		if (!put_unit(w, &w->units[i]))
			atomic_store(&w->stopped, true);
}

static enum cad_status put_all(struct writing *w, const struct cad_tensor *placed, struct cad_error *error)
{
	const char *path = w->packing->path;
	int reason = 0;

	/* a disk that is too small says so at once, where the file system can */
	if (fallocate(w->file, 0, 0, (off_t)(w->head_bytes + w->data_bytes)) != 0 && errno == ENOSPC)
		return cad_error_set(error, CAD_ERR_IO, "%s needs %llu bytes, and the disk has not as many", path,
			(unsigned long long)(w->head_bytes + w->data_bytes));

	cad_workers_for(w->packing->workers, w->units_count, 1, put_units, w);
	size_t bytes = 0;
	char *head = atomic_load(&w->stopped) ? NULL : make_head(w, placed, &bytes);
	if (head) {
		CAD_ASSERT(bytes == w->head_bytes);
		/* the data before what makes it readable */
		if (fsync(w->file) != 0 || (put(w, head, bytes, 0) && fsync(w->file) != 0))
			reason = errno;
		free(head);
	} else if (!atomic_load(&w->stopped)) {
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the header of %s", path);
	}

	if (atomic_load(&w->failure) != 0)
		reason = atomic_load(&w->failure);
	if (reason != 0)
		return cad_error_set(error, CAD_ERR_IO, "%s cannot be written: %s", path, strerror(reason));
	return atomic_load(&w->stopped) ? cad_error_set(error, CAD_ERR_CANCELLED, "%s: interrupted", path) : CAD_OK;
}

static enum cad_status write_file(struct writing *w, const struct cad_tensor *placed, struct cad_error *error)
{
	const char *path = w->packing->path;

	w->file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (w->file < 0)
		return cad_error_set(error, CAD_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
	enum cad_status status = put_all(w, placed, error);
	if (close(w->file) != 0 && status == CAD_OK)
		status = cad_error_set(error, CAD_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
	if (status != CAD_OK)
		unlink(path);

	return status;
}

/* Nothing is written of a checkpoint with scales that are not numbers. */
static enum cad_status check_scales(const struct cad_model *model, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	enum cad_status status = CAD_OK;

	for (uint32_t part = 0; part < cad_model_router_parts(model) && status == CAD_OK; part++)
		status = cad_model_router_check(model, part, error);
	for (uint32_t layer = 0; layer < spec->layers_count; layer++)
		for (uint32_t e = 0; spec->layers[layer].moe && e < spec->gate.experts && status == CAD_OK; e++)
			status = cad_model_expert_check(model, layer, e, error);
	return status;
}

enum cad_status kn_packed_write(const struct kn_packing *packing, struct cad_error *error)
{
	const char *directory = cad_model_directory(packing->model);
	const struct cad_packed *packed = cad_model_packed(packing->model);
	struct writing w = { .packing = packing };

	if (packed)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the model in '%s' is packed already (experts in %s, the rest in %s): give the checkpoint that it was packed from",
			directory, cad_weights_name(packed->experts), cad_weights_name(packed->router));

	struct cad_tensor *placed = NULL;
	enum cad_status status = check_scales(packing->model, error);
	if (status == CAD_OK)
		status = list(&w, error);
	if (status != CAD_OK)
		goto free_lists;
	placed = calloc(w.tensors_count, sizeof *placed);
	if (placed)
		place(&w, placed);
	char *head = placed ? make_head(&w, placed, &w.head_bytes) : NULL;
	status = head ? write_file(&w, placed, error)
		      : cad_error_set(error, CAD_ERR_MEMORY, "no memory for the header of %s", packing->path);
	free(head);

free_lists:
	free(placed);
	for (size_t i = 0; i < w.tensors_count; i++)
		free(w.tensors[i].name);
	free(w.tensors);
	free(w.units);
	return status;
}
