/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer to a call: the outcome of a job, as the ANSWER message that the exchange sends. The
 * exchange thread.
 */
#ifndef CADRE_EXPERT_SVC_SERVE_REPLY_H
#define CADRE_EXPERT_SVC_SERVE_REPLY_H

#include "expert-svc/serve/inbox.h"

/* How long the job waited and computed, in the answer's fields; payload_bytes: sums and data, 0
 * unless the status is OK. */
struct cadre_wire_answer ex_reply_make(const struct ex_job *job, size_t *payload_bytes);
/* Sends it; the request is gone afterwards, the job is not. */
void ex_reply_send(struct ex_job *job);
/* Answers a request that never became a job. */
void ex_reply_refuse(struct cad_request *request, enum cadre_wire_status status);

#endif
