/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/version.h"

const char cad_version[] = CADRE_VERSION, cad_release_date[] = CADRE_RELEASE_DATE;

/* The programs have a strong one (cmake/commit.cmake). */
__attribute__((weak)) const char cad_commit[] = "unknown";
