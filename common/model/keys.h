/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a JSON object key by key, with a sentence for everything that is wrong.
 *
 * The first failure sticks: later reads answer their smallest allowed value and change nothing, so
 * that a reader is a list of assignments with one check at its end. A key that is absent and a key
 * that is null are the same. Internal to common/model; no thread affinity, nothing is kept.
 */
#ifndef CADRE_COMMON_MODEL_KEYS_H
#define CADRE_COMMON_MODEL_KEYS_H

#include "common/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct cad_keys {
	const char *file;   /* what errors call the text */
	const char *prefix; /* "" or "rope_scaling.": put before every key in an error */
	const json_t *object;
	enum cad_status *status; /* shared with the objects inside this one */
	struct cad_error *error;
};

/* Records a sentence about a key, unless there is one already: "FILE: PREFIXkey " and then the
 * format. */
void cad_keys_fail(const struct cad_keys *keys, enum cad_status status, const char *key, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static inline bool cad_keys_ok(const struct cad_keys *keys) { return *keys->status == CAD_OK; }

/* NULL when absent or null. */
const json_t *cad_keys_get(const struct cad_keys *keys, const char *key);
/* The first name that is present, of several names for one value (a list that ends with NULL); two
 * that are present and differ are a failure. The first name if none is present. */
const char *cad_keys_name(const struct cad_keys *keys, const char *const *names);

uint32_t cad_keys_u32(const struct cad_keys *keys, const char *key, uint32_t min, uint32_t max);
uint32_t cad_keys_u32_or(const struct cad_keys *keys, const char *key, uint32_t min, uint32_t max, uint32_t absent);
double cad_keys_number(const struct cad_keys *keys, const char *key, double min, double max);
double cad_keys_number_or(const struct cad_keys *keys, const char *key, double min, double max, double absent);
bool cad_keys_bool_or(const struct cad_keys *keys, const char *key, bool absent);
/* borrowed from the object */
const char *cad_keys_text_or(const struct cad_keys *keys, const char *key, const char *absent);

/* Parses a text that must be one JSON object, as Python writes it (common/base/json.h). The caller
 * decrefs it. */
CAD_MUST_USE enum cad_status cad_keys_parse(
	const char *file, const char *text, size_t bytes, json_t **object, struct cad_error *error);

#endif
