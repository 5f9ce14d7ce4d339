/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/serve/reply.h"

static uint32_t to_us(uint64_t ns)
{
	return ns / CAD_NS_PER_US < UINT32_MAX ? (uint32_t)(ns / CAD_NS_PER_US) : UINT32_MAX;
}

struct cadre_wire_answer ex_reply_make(const struct ex_job *job, size_t *payload_bytes)
{
	struct cadre_wire_answer answer = { .header.status = (uint8_t)job->status, .detail = job->detail };
	uint64_t total_ns = job->done_ns - job->received_ns;

	answer.compute_us = to_us(job->compute_ns);
	answer.queue_us = to_us(total_ns > job->compute_ns ? total_ns - job->compute_ns : 0);
	*payload_bytes = 0;
	if (job->status == CADRE_WIRE_OK) {
		answer.data_bytes = job->answer_data_bytes;
		*payload_bytes = job->call->call.rows * sizeof(struct cadre_wire_sum) + job->answer_data_bytes;
	}
	return answer;
}

void ex_reply_send(struct ex_job *job)
{
	size_t payload_bytes;
	struct cadre_wire_answer answer = ex_reply_make(job, &payload_bytes);
	struct cad_request *request = job->request;
	job->request = NULL;
	cad_request_answer(request, &answer, payload_bytes);
}

void ex_reply_refuse(struct cad_request *request, enum cadre_wire_status status)
{
	struct cadre_wire_answer answer = { .header.status = (uint8_t)status };
	cad_request_answer(request, &answer, 0);
}
