/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The late device: a device that keeps to the letter of the contract in kernels/kernels.h, so that
 * code that relies on the CPU finishing at once fails here and not on a GPU.
 *
 *   Q1  every copy and every operator waits for `wait`, and runs then, in order
 *   M1  device memory is shown at addresses that nobody can read or write: the host that tries dies
 *       of SIGSEGV; what is released cannot be used by anybody
 *   M2  host memory that a queue reads is hashed by the call and hashed again by `wait`; so are the
 *       structs that arguments point to
 *   M3  host memory that a queue writes is filled with a pattern by the call (as f32 a NaN, as an
 *       integer far below zero) and must still hold it at `wait`
 *
 * A breach ends the process by abort, with a line that names the operator. The work itself is done
 * by the device that is wrapped. Threads as the contract has it.
 */
#ifndef CADRE_TESTS_SUPPORT_LATE_DEVICE_H
#define CADRE_TESTS_SUPPORT_LATE_DEVICE_H

#include "kernels/kernels.h"

enum { LATE_PATTERN = (int)0xffc0a5a5 }; /* of each aligned word of host memory that is not written yet */

/* Takes `inner`, which goes with it. */
CAD_MUST_USE enum cad_status late_device_create(struct kn_device *inner, struct kn_device **device);

/* What its queues were asked to do so far. */
struct late_counts {
	uint64_t copies_in, copies_out, operators, waits;
};
struct late_counts late_device_counts(const struct kn_device *device);

/* The wait after `waits` more of them fails, and so do all that follow. */
void late_device_fail_after(struct kn_device *device, uint64_t waits);

#endif
