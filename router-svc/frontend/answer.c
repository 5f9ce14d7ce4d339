/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/answer.h"

#include "common/tokenizer/decode.h"

enum cad_status rt_answer_init(
	struct rt_answer *answer, const struct cad_tokenizer *tokenizer, char *const *stops, size_t stops_count)
{
	*answer = (struct rt_answer){ 0 };
	enum cad_status status = rt_stop_text_init(&answer->stop, stops, stops_count);
	if (status == CAD_OK && tokenizer)
		status = cad_decoder_create(tokenizer, true, &answer->decoder);
	if (status != CAD_OK)
		rt_answer_fini(answer);
	return status;
}

void rt_answer_fini(struct rt_answer *answer)
{
	cad_decoder_destroy(answer->decoder);
	rt_stop_text_fini(&answer->stop);
	*answer = (struct rt_answer){ 0 };
}

/* Through the stop strings; `last` lets go what they hold. */
static enum cad_status add(struct rt_answer *answer, struct cad_text *piece, bool last, struct cad_text *text,
	bool *stopped, struct cad_error *error)
{
	bool found = false;
	enum cad_status status = rt_stop_text_add(&answer->stop, piece->bytes, piece->size, text, &found);
	if (status == CAD_OK && last && !found)
		status = rt_stop_text_flush(&answer->stop, text);
	if (status != CAD_OK)
		return cad_error_set(error, status, "no memory for the text of the answer");
	*stopped = found;
	return CAD_OK;
}

enum cad_status rt_answer_token(struct rt_answer *answer, int32_t id, bool is_text, struct cad_text *text,
	bool *stopped, struct cad_error *error)
{
	*stopped = false;
	if (!answer->decoder || !is_text)
		return CAD_OK;

	struct cad_text piece = { 0 };
	enum cad_status status = cad_decoder_push(answer->decoder, id, &piece, error);
	if (status == CAD_OK)
		status = add(answer, &piece, false, text, stopped, error);
	cad_text_fini(&piece);

	return status;
}

enum cad_status rt_answer_skip(
	struct rt_answer *answer, const int32_t *ids, size_t count, size_t *skipped, struct cad_error *error)
{
	struct cad_text text = { 0 };
	enum cad_status status = CAD_OK;
	bool stopped = false;
	size_t i = 0;

	for (; status == CAD_OK && i < count; i++) {
		text.size = 0;
		status = rt_answer_token(answer, ids[i], true, &text, &stopped, error);
		if (stopped)
			break;
	}
	cad_text_fini(&text);
	if (status == CAD_OK)
		*skipped = i;

	return status;
}

enum cad_status rt_answer_end(struct rt_answer *answer, struct cad_text *text, bool *stopped, struct cad_error *error)
{
	*stopped = false;
	struct cad_text piece = { 0 };
	enum cad_status status = answer->decoder ? cad_decoder_finish(answer->decoder, &piece, error) : CAD_OK;
	if (status == CAD_OK)
		status = add(answer, &piece, true, text, stopped, error);
	cad_text_fini(&piece);

	return status;
}
