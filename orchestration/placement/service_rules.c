/* SPDX-License-Identifier: Apache-2.0 */
/* Drain, SetPin, SetCopies. */
#include "common/base/bytes.h"
#include "common/base/plural.h"
#include "orchestration/placement/rules_message.h"
#include "orchestration/placement/service_internal.h"

#include <stdio.h>

/* What every one of them is about, for the history. */
struct wish {
	char who[PL_WHO_BYTES], what[192];
	const char *reason;
	bool dry_run;
};

static enum cad_status begin(
	const struct cad_rpc_call *call, const Cadre__V1__Change *change, struct wish *wish, struct cad_error *error)
{
	pl_service_who(call, wish->who);
	return pl_service_change(change, &wish->dry_run, &wish->reason, error);
}

/* Into the history, unless it was only tried; what was so already is nothing new. Refuses the call
 * if it was refused. Whether it is to be answered. */
static bool finish(struct cad_rpc_call *call, const struct wish *wish, const struct pl_control_change *change,
	enum cad_status status, const struct cad_error *error)
{
	struct pl_service *service = cad_rpc_call_context(call);
	char outcome[CAD_ERROR_TEXT_BYTES + 16], bytes[CAD_BYTES_TEXT_BYTES];

	if (status == CAD_OK)
		snprintf(outcome, sizeof outcome, "done: %u %s, %s", change->moves,
			cad_plural(change->moves, "move", "moves"), cad_bytes_text(change->bytes, bytes));
	else
		snprintf(outcome, sizeof outcome, "refused: %s", error->text);
	if (!wish->dry_run)
		pl_history_add(service->history,
			&(struct pl_history_entry){
				.who = wish->who,
				.what = wish->what,
				.why = wish->reason,
				.outcome = outcome,
			});
	if (status != CAD_OK) {
		cad_rpc_call_finish(call, pl_service_code(status), "%s", error->text);
		return false;
	}
	pl_service_turn_soon(service);
	return true;
}

static void answer_drained(struct cad_rpc_call *call, const char *node, const struct pl_control_change *change)
{
	const struct pl_service *service = cad_rpc_call_context(call);
	Cadre__V1__Drained drained = CADRE__V1__DRAINED__INIT;
	int slot = pl_registry_find(pl_control_registry(service->control), node);

	drained.duty = pl_rules_drained(pl_control_rules(service->control), node)
		? CADRE__V1__DUTY__DUTY_SAFE_TO_STOP /* one that is forgotten holds nothing */
		: CADRE__V1__DUTY__DUTY_ACTIVE;
	if (slot >= 0) {
		drained.duty = pl_duty_to_proto(pl_control_duty(service->control, (uint32_t)slot));
		drained.experts = pl_control_copies_on(service->control, (uint32_t)slot);
	}
	drained.moves = change->moves;
	drained.bytes = change->bytes;
	cad_rpc_call_reply(call, &drained.base);
}

void pl_service_drain_node(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const Cadre__V1__DrainRequest *request = (const Cadre__V1__DrainRequest *)message;
	bool drain = !request->undo,
	     again = drain && pl_rules_drained(pl_control_rules(service->control), request->node);
	struct pl_control_change change = { 0 };
	struct wish wish;
	struct cad_error error;
	enum cad_status status = begin(call, request->change, &wish, &error);

	snprintf(wish.what, sizeof wish.what, "%s %.63s", drain ? "drain" : "undrain", request->node);
	if (status == CAD_OK && !again)
		status = pl_control_drain(service->control, request->node, drain, wish.dry_run, &change, &error);
	if (again && status == CAD_OK)
		answer_drained(call, request->node, &change);
	else if (finish(call, &wish, &change, status, &error))
		answer_drained(call, request->node, &change);
}

static void answer_changed(struct cad_rpc_call *call, const struct pl_control_change *change)
{
	Cadre__V1__Changed changed = CADRE__V1__CHANGED__INIT;
	changed.moves = change->moves;
	changed.bytes = change->bytes;
	cad_rpc_call_reply(call, &changed.base);
}

void pl_service_set_pin(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const Cadre__V1__SetPinRequest *request = (const Cadre__V1__SetPinRequest *)message;
	const struct pl_expert expert = { request->layer, request->expert };
	const char *node = request->node[0] ? request->node : NULL;
	struct pl_control_change change = { 0 };
	struct wish wish;
	struct cad_error error;
	enum cad_status status = begin(call, request->change, &wish, &error);

	snprintf(wish.what, sizeof wish.what, "%s layer %u expert %u%s%.63s", node ? "pin" : "unpin", request->layer,
		request->expert, node ? " to " : "", node ? node : "");
	if (status == CAD_OK)
		status = pl_control_pin(service->control, expert, node, wish.dry_run, &change, &error);
	if (finish(call, &wish, &change, status, &error))
		answer_changed(call, &change);
}

void pl_service_set_copies(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	const Cadre__V1__SetCopiesRequest *request = (const Cadre__V1__SetCopiesRequest *)message;
	const struct pl_expert expert = { request->layer, request->expert };
	struct pl_control_change change = { 0 };
	struct wish wish;
	struct cad_error error;
	enum cad_status status = begin(call, request->change, &wish, &error);

	snprintf(wish.what, sizeof wish.what, "replicate layer %u expert %u to %u", request->layer, request->expert,
		request->copies);
	if (status == CAD_OK)
		status = pl_control_copies(service->control, expert, request->copies, wish.dry_run, &change, &error);
	if (finish(call, &wish, &change, status, &error))
		answer_changed(call, &change);
}
