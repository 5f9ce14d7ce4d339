/* SPDX-License-Identifier: Apache-2.0 */
/* Post-processors: the special tokens that go before and after the ids of a text. ByteLevel only
 * trims offsets, which Cadre does not keep. */
#include "common/tokenizer/internal.h"

#include <string.h>

struct template_reader {
	struct tok_template *template;
	bool has_template;
};

static enum cad_status add_ids(
	const json_t *special_tokens, const json_t *piece, struct cad_ids *ids, struct cad_error *error)
{
	struct tok_slice name;
	enum cad_status status = cad_tok_json_string(piece, "id", &name, error);

	if (status != CAD_OK)
		return status;

	const json_t *list = json_object_get(json_object_getn(special_tokens, name.bytes, name.size), "ids"), *id;
	if (!json_is_array(list))
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"the template uses the special token '%.*s', which \"special_tokens\" does not have",
			cad_tok_show(name), name.bytes);
	size_t at;
	json_array_foreach((json_t *)list, at, id)
	{
		if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TOK_ID_LIMIT)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"an id of the special token '%.*s' is not a whole number below %d", cad_tok_show(name),
				name.bytes, TOK_ID_LIMIT);
		status = cad_tok_push_id(ids, (int32_t)json_integer_value(id));
		if (status != CAD_OK)
			return status;
	}

	return CAD_OK;
}

static enum cad_status parse_template(struct template_reader *reader, const json_t *json, struct cad_error *error)
{
	const json_t *single = json_object_get(json, "single"),
		     *special_tokens = json_object_get(json, "special_tokens"), *piece;

	if (reader->has_template)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "a second template");
	if (!json_is_array(single))
		return cad_error_set(error, CAD_ERR_CORRUPT, "\"single\" must be a list");

	size_t at;
	bool seen = false;
	json_array_foreach((json_t *)single, at, piece)
	{
		const json_t *special = json_object_get(piece, "SpecialToken"),
			     *sequence = json_object_get(piece, "Sequence");
		if (special) {
			enum cad_status status = add_ids(special_tokens, special,
				seen ? &reader->template->after : &reader->template->before, error);
			if (status != CAD_OK)
				return status;
			continue;
		}
		struct tok_slice name;
		enum cad_status status = cad_tok_json_string(sequence, "id", &name, error);
		if (status != CAD_OK)
			return status;
		if (seen || strcmp(name.bytes, "A") != 0)
			return cad_error_set(error, CAD_ERR_UNSUPPORTED,
				"a template for one text that does not contain it exactly once");
		seen = true;
	}
	if (!seen)
		return cad_error_set(
			error, CAD_ERR_UNSUPPORTED, "a template for one text that does not contain it exactly once");
	reader->has_template = true;

	return CAD_OK;
}

static enum cad_status parse_one(void *context, const char *type, const json_t *json, struct cad_error *error)
{
	if (strcmp(type, "TemplateProcessing") == 0)
		return parse_template(context, json, error);
	if (strcmp(type, "ByteLevel") == 0)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_UNSUPPORTED,
		"this post-processor is not supported (TemplateProcessing, ByteLevel and Sequence are)");
}

enum cad_status cad_tok_template_parse(const json_t *json, struct tok_template *template, struct cad_error *error)
{
	struct template_reader reader = { .template = template };
	return cad_tok_json_flatten(json, "processors", parse_one, &reader, error);
}

void cad_tok_template_fini(struct tok_template *template)
{
	cad_ids_fini(&template->before);
	cad_ids_fini(&template->after);
}
