/* SPDX-License-Identifier: Apache-2.0 */
/* GetHistory. */
#include "common/rpc/codec.h"
#include "orchestration/placement/effect_message.h"
#include "orchestration/placement/service_internal.h"

#include <stdio.h>
#include <string.h>

enum { ANSWER_BYTES_MAX = 16 << 20 };

void pl_service_who(const struct cad_rpc_call *call, char who[PL_WHO_BYTES])
{
	const struct cad_caller *caller = cad_rpc_call_caller(call);

	if (caller->name[0])
		snprintf(who, PL_WHO_BYTES, "%s", caller->name);
	else
		cad_address_host(caller->peer, who);
}

/* The message of one entry, with what it points to. */
struct entry {
	Cadre__V1__HistoryEntry message;
	struct pl_effect_message predicted, measured;
};

struct answer {
	struct cad_rpc_arena arena;
	Cadre__V1__History message;
	Cadre__V1__HistoryEntry *list[PL_HISTORY_MAX];
	bool exhausted;
};

static char *keep_text(struct answer *answer, const char *text)
{
	char *kept = cad_rpc_arena_alloc(&answer->arena, strlen(text) + 1);
	if (!kept)
		answer->exhausted = true;
	return kept ? strcpy(kept, text) : NULL;
}

static void on_entry(void *context, const struct pl_history_entry *entry)
{
	struct answer *answer = context;
	struct entry *made = answer->exhausted ? NULL : cad_rpc_arena_alloc(&answer->arena, sizeof *made);

	if (!made || answer->message.n_entries == PL_HISTORY_MAX) {
		answer->exhausted = true;
		return;
	}

	cadre__v1__history_entry__init(&made->message);
	made->message.id = entry->id;
	made->message.first_ms = entry->first_ms;
	made->message.last_ms = entry->at_ms;
	made->message.times = entry->times;
	made->message.who = keep_text(answer, entry->who);
	made->message.what = keep_text(answer, entry->what);
	made->message.why = keep_text(answer, entry->why);
	made->message.outcome = keep_text(answer, entry->outcome);
	if (entry->has_predicted)
		made->message.predicted = pl_effect_to_proto(&entry->predicted, &made->predicted);
	if (entry->has_measured)
		made->message.measured = pl_effect_to_proto(&entry->measured, &made->measured);
	answer->list[answer->message.n_entries++] = &made->message;
}

/* The time of day, less what was asked for. */
static uint64_t since_ms(uint64_t within_ms)
{
	uint64_t now_ms = cad_unix_ms();
	return within_ms && within_ms < now_ms ? now_ms - within_ms : 0;
}

void pl_service_get_history(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const Cadre__V1__GetHistoryRequest *request = (const Cadre__V1__GetHistoryRequest *)message;
	struct answer answer = { .exhausted = false };
	struct cad_error error;

	cad_rpc_arena_init(&answer.arena, ANSWER_BYTES_MAX);
	cadre__v1__history__init(&answer.message);
	answer.message.entries = answer.list;
	enum cad_status status =
		pl_history_read(service->history, since_ms(request->since_ms), on_entry, &answer, &error);
	if (status == CAD_OK && answer.exhausted)
		status = cad_error_set(&error, CAD_ERR_EXHAUSTED, "out of memory for the history: ask for less of it");
	if (status == CAD_OK)
		cad_rpc_call_reply(call, &answer.message.base);
	else
		cad_rpc_call_finish(call, cad_rpc_code_of_status(status), "%s", error.text);
	cad_rpc_arena_reset(&answer.arena);
}
