/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/cores.h"
#include "kernels/kernels.h"

unsigned kn_threads_default(void)
{
	unsigned cores = cad_cores("");
	return cores < KN_THREADS_MAX ? cores : KN_THREADS_MAX;
}
