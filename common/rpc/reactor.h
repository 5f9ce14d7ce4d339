/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop under gRPC: one thread that serves a gRPC completion queue and a libuv loop.
 *
 * The owner thread waits in the completion queue, and runs the libuv loop from there: gRPC events
 * need no hand-over between threads, libuv's timers and sockets work as usual, and a small helper
 * thread watches the loop's file descriptor. So call cad_rpc_reactor_run where a program without
 * gRPC would call uv_run. The loop is borrowed, and stays the caller's.
 *
 * Everything here runs on the owner thread, except cad_rpc_post and cad_rpc_wakeup_send, which any
 * thread may call.
 *
 *     create -> servers, channels, handles of the loop -> run -> (somebody drains the servers,
 *     destroys the channels and calls stop)
 *            -> run returns -> destroy -> close the loop
 */
#ifndef CADRE_COMMON_RPC_REACTOR_H
#define CADRE_COMMON_RPC_REACTOR_H

#include "common/rpc/rpc.h"

#include <stdatomic.h>

struct uv_loop_s;
struct cad_rpc_reactor;

/* The thread that creates it is the owner until another calls run. */
CAD_MUST_USE enum cad_status cad_rpc_reactor_create(
	struct uv_loop_s *loop, struct cad_rpc_reactor **reactor, struct cad_error *error);
/* Serves both until stop was called and every server, channel and call is gone. */
void cad_rpc_reactor_run(struct cad_rpc_reactor *reactor);
/* The same until *done is true (set by something that runs on the loop): for tests, and programs
 * that wait for one answer. */
void cad_rpc_reactor_run_until(struct cad_rpc_reactor *reactor, const bool *done);
void cad_rpc_reactor_stop(struct cad_rpc_reactor *reactor);
/* Every server, channel and call must be gone, and no thread may post any longer. What was posted
 * still runs. */
void cad_rpc_reactor_destroy(struct cad_rpc_reactor *reactor);

struct uv_loop_s *cad_rpc_reactor_loop(const struct cad_rpc_reactor *reactor);
bool cad_rpc_reactor_is_owner(const struct cad_rpc_reactor *reactor);

/* Calls event->run(event, true) on the owner thread, soon; what one thread posts runs in that
 * order. Any thread; does not block. */
void cad_rpc_post(struct cad_rpc_reactor *reactor, struct cad_rpc_event *event);

/* Any number of sends before the owner thread reacts make one call, like the bell of a mailbox. The
 * memory must stay valid until the reactor is destroyed. */
struct cad_rpc_wakeup {
	struct cad_rpc_event event;
	struct cad_rpc_reactor *reactor;
	void (*run)(void *context);
	void *context;
	atomic_bool pending;
};

void cad_rpc_wakeup_init(
	struct cad_rpc_wakeup *wakeup, struct cad_rpc_reactor *reactor, void (*run)(void *context), void *context);
/* Whatever the calling thread wrote before is visible to `run`. Any thread; does not block. */
void cad_rpc_wakeup_send(struct cad_rpc_wakeup *wakeup);

#endif
