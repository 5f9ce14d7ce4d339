/* SPDX-License-Identifier: Apache-2.0 */
/* Philox4x32-10 (Salmon et al., SC'11) from librandom123, whose headers do not pass this project's
 * warnings. */
#ifndef CADRE_KERNELS_PHILOX_H
#define CADRE_KERNELS_PHILOX_H

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <Random123/philox.h>
#pragma GCC diagnostic pop

#endif
