/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and randomness come through interfaces, so that the simulator can replace both.
 *
 * A clock is a borrowed pointer that outlives whatever holds it. `now_ns` is monotonic and starts
 * anywhere. Any thread may ask the system clock; a simulated clock belongs to the thread of its
 * simulator. Nothing here blocks or allocates.
 */
#ifndef CADRE_COMMON_BASE_CLOCK_H
#define CADRE_COMMON_BASE_CLOCK_H

#include <stdint.h>

struct cad_clock {
	uint64_t (*now_ns)(void *context);
	void *context;
};

extern const struct cad_clock cad_clock_system; /* CLOCK_MONOTONIC */

static inline uint64_t cad_clock_now_ns(const struct cad_clock *clock) { return clock->now_ns(clock->context); }

/* Milliseconds since 1970, by the system: for what people read. It may jump. */
uint64_t cad_unix_ms(void);

#define CAD_NS_PER_US 1000ull
#define CAD_NS_PER_MS 1000000ull
#define CAD_NS_PER_S 1000000000ull

/* A small deterministic generator (SplitMix64) for jitter, shuffles and simulations; never for
 * sampling tokens (that is Philox) or secrets (that is libsodium). */
struct cad_random {
	uint64_t state;
};

uint64_t cad_random_next(struct cad_random *random);
/* Uniform in [0, bound), bound >= 1, without modulo bias. */
uint64_t cad_random_below(struct cad_random *random, uint64_t bound);
/* Uniform in [0, 1). */
double cad_random_unit(struct cad_random *random);

#endif
