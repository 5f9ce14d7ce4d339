/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator: transports in one thread, on virtual time, everything decided by the seed. For
 * tests and fuzzers; it allocates as it goes.
 *
 * Polling any of its transports runs the whole simulated world up to the time asked for. A
 * simulator outlives its transports.
 */
#ifndef CADRE_TESTS_SUPPORT_SIM_H
#define CADRE_TESTS_SUPPORT_SIM_H

#include "common/transport/link.h"
#include "common/transport/transport.h"

struct cad_sim;
struct cad_sim_options {
	uint64_t seed;
	uint64_t delay_min_ns, delay_max_ns; /* of a message, uniform */
	/* probabilities per message; a lost message is one that never comes (a cut link), a
	 * reordered one overtakes */
	double loss, duplicate, reorder;
};
CAD_MUST_USE enum cad_status cad_sim_create(const struct cad_sim_options *options, struct cad_sim **sim);
void cad_sim_destroy(struct cad_sim *sim);
const struct cad_clock *cad_sim_clock(struct cad_sim *sim);
/* The clock of the options is ignored: the simulator brings its own. */
CAD_MUST_USE enum cad_status cad_transport_sim_create(const struct cad_transport_options *options, struct cad_sim *sim,
	struct cad_transport **transport, struct cad_error *error);
cad_link_create_fn cad_link_sim_create; /* context: struct cad_sim * */

/* Other odds from now on; the seed stays. */
void cad_sim_change(struct cad_sim *sim, const struct cad_sim_options *options);
/* Runs the world for a while; every transport's callbacks may run. */
void cad_sim_run(struct cad_sim *sim, uint64_t duration_ns);
/* Faults. A crashed transport neither receives nor sends, its peers are told nothing; all that can
 * be done with it is to answer what it holds and destroy it. A stalled one does nothing for a
 * while, then finds what came meanwhile. A cut link loses everything in one direction. */
void cad_sim_crash(struct cad_sim *sim, struct cad_transport *transport);
void cad_sim_stall(struct cad_sim *sim, struct cad_transport *transport, uint64_t duration_ns);
void cad_sim_cut(struct cad_sim *sim, struct cad_transport *from, struct cad_transport *to, bool cut);
/* Runs `fn` at a virtual time, outside of every transport: how tests schedule faults and work. It
 * may do anything but poll. */
CAD_MUST_USE enum cad_status cad_sim_at(struct cad_sim *sim, uint64_t at_ns, void (*fn)(void *context), void *context);

#endif
