/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes that may connect, on their way from the thread that hears of them to the thread of
 * the exchange: the latest list, whole.
 */
#ifndef CADRE_EXPERT_SVC_PEERS_H
#define CADRE_EXPERT_SVC_PEERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

struct cad_transport;

struct ex_peers {
	pthread_mutex_t mutex;
	char **addresses; /* copies; NULL: none are waiting */
	size_t count;
	atomic_bool news;
};

void ex_peers_init(struct ex_peers *peers);
void ex_peers_fini(struct ex_peers *peers);
/* Any thread. The caller wakes the exchange. */
void ex_peers_set(struct ex_peers *peers, const char *const *addresses, size_t count);
/* On the exchange's thread, in each turn: announces them, if there are any. */
void ex_peers_announce(struct ex_peers *peers, struct cad_transport *transport);

#endif
