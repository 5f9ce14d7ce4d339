/* SPDX-License-Identifier: Apache-2.0 */
/* RecordTrace. */
#include "orchestration/placement/service_internal.h"

void pl_service_record_begin(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct pl_service *service = cad_rpc_call_context(call);
	pl_recorder_begin(&service->recorder, call, (const Cadre__V1__RecordTraceRequest *)message,
		cad_clock_now_ns(service->options.clock));
	pl_service_turn_soon(service); /* which finds out when it ends */
}

void pl_service_record_done(struct cad_rpc_call *call, bool cancelled)
{
	struct pl_service *service = cad_rpc_call_context(call);
	(void)cancelled;
	pl_recorder_done(&service->recorder, call);
}
