/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/serve/inbox.h"

#include <stdlib.h>

enum cad_status ex_inbox_init(struct ex_inbox *inbox, uint32_t capacity)
{
	*inbox = (struct ex_inbox){ .capacity = capacity };
	inbox->last = &inbox->first;
	inbox->jobs = calloc(capacity, sizeof *inbox->jobs);
	if (!inbox->jobs)
		return CAD_ERR_MEMORY;

	if (cad_mailbox_create(capacity, NULL, NULL, &inbox->arrivals) != CAD_OK) {
		free(inbox->jobs);
		inbox->jobs = NULL;
		return CAD_ERR_MEMORY;
	}

	for (uint32_t i = capacity; i-- > 0;) {
		inbox->jobs[i].next = inbox->free;
		inbox->free = &inbox->jobs[i];
	}

	return CAD_OK;
}

void ex_inbox_fini(struct ex_inbox *inbox)
{
	cad_mailbox_destroy(inbox->arrivals);
	free(inbox->jobs);
	*inbox = (struct ex_inbox){ 0 };
}

struct ex_job *ex_inbox_acquire(struct ex_inbox *inbox)
{
	struct ex_job *job = inbox->free;
	if (!job)
		return NULL;
	inbox->free = job->next;
	*job = (struct ex_job){ 0 };
	atomic_fetch_add(&inbox->held, 1);
	return job;
}

void ex_inbox_put(struct ex_inbox *inbox, struct ex_job *job)
{
	CAD_ASSERT(cad_mailbox_put(inbox->arrivals, job) == CAD_OK); /* it has room for every job */
}

void ex_inbox_append(struct ex_inbox *inbox, struct ex_job *job)
{
	job->next = NULL;
	*inbox->last = job;
	inbox->last = &job->next;
}

void ex_inbox_release(struct ex_inbox *inbox, struct ex_job *job)
{
	job->request = NULL;
	job->connection = NULL;
	job->next = inbox->free;
	inbox->free = job;
	atomic_fetch_sub(&inbox->held, 1);
}

void ex_inbox_collect(struct ex_inbox *inbox)
{
	struct ex_job *job;
	while ((job = cad_mailbox_take(inbox->arrivals)))
		ex_inbox_append(inbox, job);
}

void ex_inbox_wait(struct ex_inbox *inbox) { cad_mailbox_wait(inbox->arrivals, UINT64_MAX); }
void ex_inbox_wake(struct ex_inbox *inbox) { cad_mailbox_wake(inbox->arrivals); }

struct ex_job *ex_inbox_remove(struct ex_inbox *inbox, struct ex_job **at)
{
	struct ex_job *job = *at;
	*at = job->next;
	if (!*at)
		inbox->last = at;
	job->next = NULL;
	return job;
}
