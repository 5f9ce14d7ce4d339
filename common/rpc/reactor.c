/* SPDX-License-Identifier: Apache-2.0 */
/* One thread for gRPC's completion queue and a libuv loop. */
#include "common/rpc/reactor.h"

#include "common/rpc/internal.h"

#include <errno.h>
#include <grpc/support/log.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

enum {
	EVENTS_PER_TURN = 256, /* gRPC events that run before libuv gets its turn */
	OVERSLEPT_MS = 20      /* so late, the queue's own time-out is not waited for */
};

struct cad_rpc_reactor {
	uv_loop_t *loop;
	grpc_completion_queue *queue;
	pthread_t owner;
	size_t users; /* servers, channels, calls */
	bool stopping, finished;
	/* An idle call on a channel that leads nowhere: an empty batch on it puts an event into the
	 * queue, from any thread. */
	grpc_channel *nowhere;
	grpc_call *injector;
	/* The helper watches the loop's descriptor, posts on_loop_ready, and waits until the loop
	 * has run. */
	pthread_t helper;
	struct cad_rpc_event on_loop_ready;
	sem_t loop_has_run;
	bool helper_waits;
	int stop_descriptor;
	/* A process that is stopped and continued (a signal, a frozen container) interrupts the
	 * queue's sleep, and gRPC begins it again with its whole time-out. This clock goes on
	 * meanwhile. */
	int overslept_descriptor;
	uint64_t overslept_ms; /* on the loop's clock; 0: off */
};

static gpr_timespec never(void) { return gpr_inf_future(GPR_CLOCK_MONOTONIC); }

static grpc_event queue_next(struct cad_rpc_reactor *reactor, gpr_timespec deadline)
{
	grpc_event event = grpc_completion_queue_next(reactor->queue, deadline, NULL);
	if (event.type == GRPC_OP_COMPLETE)
		cad_rpc_event_in(event.tag);
	return event;
}

static void event_run(grpc_event event)
{
	struct cad_rpc_event *tag = event.tag;
	tag->run(tag, event.success != 0);
}

void cad_rpc_batch(grpc_call *call, const grpc_op *ops, size_t count, struct cad_rpc_event *event)
{
	cad_rpc_event_out(event);
	grpc_call_error error = grpc_call_start_batch(call, ops, count, event, NULL);
	CAD_ASSERT(error == GRPC_CALL_OK);
}

void cad_rpc_post(struct cad_rpc_reactor *reactor, struct cad_rpc_event *event)
{
	cad_rpc_batch(reactor->injector, NULL, 0, event);
}

/* ---- wakeup ---- */

static void wakeup_run(struct cad_rpc_event *event, bool ok)
{
	(void)ok;
	struct cad_rpc_wakeup *wakeup = CAD_CONTAINER_OF(event, struct cad_rpc_wakeup, event);
	/* First: what is written from now on needs a call of its own. */
	atomic_exchange_explicit(&wakeup->pending, false, memory_order_acq_rel);
	wakeup->run(wakeup->context);
}

void cad_rpc_wakeup_init(
	struct cad_rpc_wakeup *wakeup, struct cad_rpc_reactor *reactor, void (*run)(void *context), void *context)
{
	*wakeup = (struct cad_rpc_wakeup){
		.event.run = wakeup_run,
		.reactor = reactor,
		.run = run,
		.context = context,
	};
}

void cad_rpc_wakeup_send(struct cad_rpc_wakeup *wakeup)
{
	if (!atomic_exchange_explicit(&wakeup->pending, true, memory_order_acq_rel))
		cad_rpc_post(wakeup->reactor, &wakeup->event);
}

/* ---- the helper thread ---- */

static void *helper_main(void *argument)
{
	struct cad_rpc_reactor *reactor = argument;
	struct pollfd watched[3] = {
		{ .fd = uv_backend_fd(reactor->loop), .events = POLLIN },
		{ .fd = reactor->stop_descriptor, .events = POLLIN },
		{ .fd = reactor->overslept_descriptor, .events = POLLIN },
	};
	uint64_t times;
	for (;;) {
		if (poll(watched, 3, -1) < 0) {
			CAD_ASSERT(errno == EINTR);
			continue;
		}
		if (watched[1].revents)
			return NULL;
		/* the owner may have set it again by now: then there is nothing to read */
		if (watched[2].revents && read(reactor->overslept_descriptor, &times, sizeof times) < 0)
			CAD_ASSERT(errno == EAGAIN || errno == EINTR);
		cad_rpc_post(reactor, &reactor->on_loop_ready);
		while (sem_wait(&reactor->loop_has_run) != 0)
			CAD_ASSERT(errno == EINTR);
	}
}

static void loop_ready(struct cad_rpc_event *event, bool ok)
{
	(void)ok;
	/* the next turn does the rest */
	CAD_CONTAINER_OF(event, struct cad_rpc_reactor, on_loop_ready)->helper_waits = true;
}

/* ---- running ---- */

/* timeout_ms: of the sleep that follows; negative: none. */
static void watch_sleep(struct cad_rpc_reactor *reactor, int timeout_ms)
{
	uint64_t due_ms = timeout_ms < 0 ? 0 : uv_now(reactor->loop) + (uint64_t)timeout_ms + OVERSLEPT_MS;
	if (due_ms == reactor->overslept_ms || timeout_ms == 0)
		return;
	reactor->overslept_ms = due_ms;
	struct itimerspec when = {
		.it_value.tv_sec = (time_t)(due_ms / 1000),
		.it_value.tv_nsec = (long)(due_ms % 1000) * 1000000,
	};
	CAD_ASSERT(timerfd_settime(reactor->overslept_descriptor, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

/* libuv first, since it registers new watchers only when it runs; then sleep in the queue until an
 * event comes or libuv's next timer is due. */
static void turn(struct cad_rpc_reactor *reactor, const bool *done)
{
	uv_run(reactor->loop, UV_RUN_NOWAIT);
	if (reactor->helper_waits) {
		reactor->helper_waits = false;
		sem_post(&reactor->loop_has_run);
	}

	if (*done)
		return;
	int timeout_ms = uv_loop_alive(reactor->loop) ? uv_backend_timeout(reactor->loop) : -1;
	watch_sleep(reactor, timeout_ms);
	gpr_timespec until = timeout_ms < 0
		? never()
		: gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
	grpc_event event = queue_next(reactor, until);
	uv_update_time(reactor->loop); /* timers that handlers start count from now, not from before the sleep */

	for (int count = 0; event.type == GRPC_OP_COMPLETE; count++) {
		event_run(event);
		if (*done || count == EVENTS_PER_TURN)
			return;
		event = queue_next(reactor, gpr_inf_past(GPR_CLOCK_MONOTONIC));
	}
}

void cad_rpc_reactor_run_until(struct cad_rpc_reactor *reactor, const bool *done)
{
	reactor->owner = pthread_self();
	while (!*done)
		turn(reactor, done);
}

void cad_rpc_reactor_run(struct cad_rpc_reactor *reactor) { cad_rpc_reactor_run_until(reactor, &reactor->finished); }

void cad_rpc_reactor_stop(struct cad_rpc_reactor *reactor)
{
	reactor->stopping = true;
	reactor->finished = reactor->users == 0;
}

void cad_rpc_reactor_acquire(struct cad_rpc_reactor *reactor)
{
	CAD_ASSERT(!reactor->finished);
	reactor->users++;
}

void cad_rpc_reactor_release(struct cad_rpc_reactor *reactor)
{
	reactor->users--;
	reactor->finished = reactor->stopping && reactor->users == 0;
}

grpc_completion_queue *cad_rpc_reactor_queue(const struct cad_rpc_reactor *reactor) { return reactor->queue; }
struct uv_loop_s *cad_rpc_reactor_loop(const struct cad_rpc_reactor *reactor) { return reactor->loop; }
bool cad_rpc_reactor_is_owner(const struct cad_rpc_reactor *reactor)
{
	return pthread_equal(reactor->owner, pthread_self());
}

/* ---- creating and destroying ---- */

static pthread_mutex_t library_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *pass_gate(void *gate)
{
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

/* gRPC starts a few threads, and waits without end for one that the system refuses: as many at once
 * are tried first. Returns why not. */
static int threads_missing(void)
{
	enum { THREADS = 8 };
	pthread_t threads[THREADS];
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	int count = 0, failed = 0;

	pthread_mutex_lock(&gate);
	while (count < THREADS && (failed = pthread_create(&threads[count], NULL, pass_gate, &gate)) == 0)
		count++;
	pthread_mutex_unlock(&gate);
	while (count > 0)
		pthread_join(threads[--count], NULL);

	return failed;
}

static enum cad_status library_acquire(struct cad_error *error)
{
	pthread_mutex_lock(&library_mutex);
	int failed = grpc_is_initialized() ? 0 : threads_missing();
	if (!failed) {
		/* As other programs of the machine find names, /etc/hosts first: gRPC's own
		 * resolver waits for answers about IPv6 even when it has an address. */
		setenv("GRPC_DNS_RESOLVER", "native", 0);
		gpr_set_log_function(cad_rpc_log);
		grpc_init();
	}

	pthread_mutex_unlock(&library_mutex);
	return failed
		? cad_error_set(error, CAD_ERR_EXHAUSTED,
			  "cannot start threads for gRPC: %s (see ulimit -u, and the task limit of a container or service)",
			  strerror(failed))
		: CAD_OK;
}

static void library_release(void)
{
	pthread_mutex_lock(&library_mutex);
	grpc_shutdown_blocking();
	if (!grpc_is_initialized())
		cad_rpc_tls_cleanup();
	pthread_mutex_unlock(&library_mutex);
}

static void close_descriptors(const struct cad_rpc_reactor *reactor)
{
	if (reactor->stop_descriptor >= 0)
		close(reactor->stop_descriptor);
	if (reactor->overslept_descriptor >= 0)
		close(reactor->overslept_descriptor);
}

enum cad_status cad_rpc_reactor_create(
	struct uv_loop_s *loop, struct cad_rpc_reactor **created, struct cad_error *error)
{
	struct cad_rpc_reactor *reactor = calloc(1, sizeof *reactor);
	if (!reactor)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the gRPC event loop");

	enum cad_status status = library_acquire(error);
	if (status != CAD_OK) {
		free(reactor);
		return status;
	}

	reactor->loop = loop;
	reactor->owner = pthread_self();
	reactor->on_loop_ready.run = loop_ready;
	CAD_ASSERT(sem_init(&reactor->loop_has_run, 0, 0) == 0);
	reactor->stop_descriptor = eventfd(0, EFD_CLOEXEC);
	reactor->overslept_descriptor = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (reactor->stop_descriptor < 0 || reactor->overslept_descriptor < 0) {
		status = cad_error_set(error, CAD_ERR_IO,
			"cannot create an event descriptor for the gRPC event loop: %s", strerror(errno));
		goto close_descriptors;
	}

	reactor->queue = grpc_completion_queue_create_for_next(NULL);
	reactor->nowhere = grpc_lame_client_channel_create("nowhere", GRPC_STATUS_UNAVAILABLE, "nowhere");
	reactor->injector = grpc_channel_create_call(reactor->nowhere, NULL, 0, reactor->queue,
		grpc_slice_from_static_string("/nowhere"), NULL, never(), NULL);
	int failed = pthread_create(&reactor->helper, NULL, helper_main, reactor);
	if (failed) {
		status = cad_error_set(error, CAD_ERR_IO, "cannot start the helper thread of the gRPC event loop: %s",
			strerror(failed));
		goto destroy_queue;
	}

	*created = reactor;
	return CAD_OK;

destroy_queue:
	grpc_call_unref(reactor->injector);
	grpc_channel_destroy(reactor->nowhere);
	grpc_completion_queue_shutdown(reactor->queue);
	while (queue_next(reactor, never()).type != GRPC_QUEUE_SHUTDOWN) {}
	grpc_completion_queue_destroy(reactor->queue);
close_descriptors:
	close_descriptors(reactor);
	sem_destroy(&reactor->loop_has_run);
	free(reactor);
	library_release();

	return status;
}

void cad_rpc_reactor_destroy(struct cad_rpc_reactor *reactor)
{
	if (!reactor)
		return;

	CAD_ASSERT(reactor->users == 0);
	uint64_t one = 1;
	CAD_ASSERT(write(reactor->stop_descriptor, &one, sizeof one) == sizeof one);
	sem_post(&reactor->loop_has_run); /* in case the helper waits for its turn */
	pthread_join(reactor->helper, NULL);
	grpc_call_unref(reactor->injector);
	grpc_channel_destroy(reactor->nowhere);
	grpc_completion_queue_shutdown(reactor->queue);
	for (grpc_event event; (event = queue_next(reactor, never())).type == GRPC_OP_COMPLETE;)
		event_run(event);
	grpc_completion_queue_destroy(reactor->queue);
	sem_destroy(&reactor->loop_has_run);
	close_descriptors(reactor);
	free(reactor);
	library_release();
}
