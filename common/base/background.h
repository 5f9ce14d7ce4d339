/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CADRE_COMMON_BASE_BACKGROUND_H
#define CADRE_COMMON_BASE_BACKGROUND_H

/*
 * From now on the calling thread, and every thread that it starts, runs where no other thread wants
 * the core (SCHED_IDLE): for work that can wait while tokens flow. There is no way back without
 * rights that services do not have. On a machine whose cores are never idle it still gets a little.
 */
void cad_background(void);

#endif
