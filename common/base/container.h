/* SPDX-License-Identifier: Apache-2.0 */
/* The object that a member is embedded in. Lists, events and operations are embedded in their
 * objects; this leads back from one to the other. */
#ifndef CADRE_COMMON_BASE_CONTAINER_H
#define CADRE_COMMON_BASE_CONTAINER_H

#include <stddef.h>

#define CAD_CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
