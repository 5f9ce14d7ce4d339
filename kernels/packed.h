/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What weights take once they are packed, computed from a checkpoint's shapes before anything is
 * packed: what an expert node reserves, what placement counts with, and what `cadrectl model
 * inspect` shows. Pure functions; any thread.
 */
#ifndef CADRE_KERNELS_PACKED_H
#define CADRE_KERNELS_PACKED_H

#include "common/model/model.h"
#include "kernels/kernels.h"

/* Bytes of a packed matrix of n outputs and k inputs, as kernels.h lays panels out; whole huge
 * pages for a large one. */
uint64_t kn_packed_matrix_bytes(size_t n, size_t k, enum cad_dtype dtype, enum kn_weights weights);
/* Bytes of one packed expert: of the first MoE layer, and so of all. 0 for a dense model. */
uint64_t kn_packed_expert_bytes(const struct cad_model *model, enum kn_weights weights);
/* Bytes of all that a router packs: everything but routed experts. */
uint64_t kn_packed_router_bytes(const struct cad_model *model, enum kn_weights weights);

#endif
