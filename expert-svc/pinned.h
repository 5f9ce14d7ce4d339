/* SPDX-License-Identifier: Apache-2.0 */
/* Large calls are received where a GPU copies from by itself. */
#ifndef CADRE_EXPERT_SVC_PINNED_H
#define CADRE_EXPERT_SVC_PINNED_H

#include "common/transport/transport.h"
#include "kernels/kernels.h"

/* Asks for some request buffers of a GPU's memory, 256 MiB at most; of a CPU's for none. The limits
 * stand in the options already; the device lives longer than the transport. */
void ex_pin_requests(struct kn_device *device, struct cad_transport_options *options);

#endif
