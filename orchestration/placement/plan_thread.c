/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/plan_thread.h"

#include "common/process/cores.h"

#include <sys/resource.h>
#include <unistd.h>

/* a quarter of what others get where all want to compute: with less, a
 * short search finds nothing */
enum { NICE = 5, THREADS_MAX = 8 };

static void *run(void *context)
{
	struct pl_plan_thread *plan = context;

	/* of this thread and of those that it makes */
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
	pl_planning_run(&plan->order, &plan->cancelled, &plan->result);
	atomic_store(&plan->finished, true);
	uv_async_send(&plan->ready);
	return NULL;
}

static enum cad_status begin(struct pl_plan_thread *plan, struct cad_error *error)
{
	plan->silent = false;
	atomic_store(&plan->finished, false);
	atomic_store(&plan->cancelled, false);
	if (pthread_create(&plan->thread, NULL, run, plan) != 0) {
		pl_planning_order_fini(&plan->order);
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "no thread can be made for planning");
	}
	plan->running = true;
	return CAD_OK;
}

static void begin_next(struct pl_plan_thread *plan)
{
	plan->waiting = false;
	plan->order = plan->next;
	plan->next = (struct pl_planning_order){ 0 };
	struct pl_planning_result result = { .status = CAD_OK };
	result.status = begin(plan, &result.error);
	if (result.status != CAD_OK)
		plan->done(plan->context, &result);
}

static void on_ready(uv_async_t *async)
{
	struct pl_plan_thread *plan = async->data;

	if (!plan->running || !atomic_load(&plan->finished))
		return;
	(void)pthread_join(plan->thread, NULL);
	plan->running = false;
	struct pl_planning_result result = plan->result;
	plan->result = (struct pl_planning_result){ .status = CAD_OK };
	if (!plan->silent)
		plan->done(plan->context, &result);
	pl_planning_result_fini(&result);
	if (plan->waiting)
		begin_next(plan);
}

void pl_plan_thread_init(struct pl_plan_thread *plan, uv_loop_t *loop,
	void (*done)(void *context, struct pl_planning_result *result), void *context)
{
	*plan = (struct pl_plan_thread){ .done = done, .context = context };
	CAD_ASSERT(uv_async_init(loop, &plan->ready, on_ready) == 0);
	plan->ready.data = plan;
	uv_unref((uv_handle_t *)&plan->ready);
}

enum cad_status pl_plan_thread_start(
	struct pl_plan_thread *plan, struct pl_planning_order *order, struct cad_error *error)
{
	CAD_ASSERT(!plan->running || plan->silent);
	if (plan->running) {
		pl_planning_order_fini(&plan->next);
		plan->next = *order;
		plan->waiting = true;
	} else {
		plan->order = *order;
	}
	*order = (struct pl_planning_order){ 0 };
	return plan->running ? CAD_OK : begin(plan, error);
}

void pl_plan_thread_cancel(struct pl_plan_thread *plan)
{
	pl_planning_order_fini(&plan->next);
	plan->waiting = false;
	atomic_store(&plan->cancelled, true);
	plan->silent = true;
}

static void on_closed(uv_handle_t *handle)
{
	struct pl_plan_thread *plan = handle->data;
	plan->closed(plan->closed_context);
}

void pl_plan_thread_close(struct pl_plan_thread *plan, void (*closed)(void *context), void *context)
{
	plan->closed = closed;
	plan->closed_context = context;
	pl_plan_thread_cancel(plan);
	if (plan->running)
		(void)pthread_join(plan->thread, NULL);
	plan->running = false;
	pl_planning_result_fini(&plan->result);
	uv_close((uv_handle_t *)&plan->ready, on_closed);
}

uint32_t pl_plan_threads(void)
{
	unsigned threads = cad_cores("") / 4;
	return threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
}
