/* SPDX-License-Identifier: Apache-2.0 */
/* Which Cadre this is, as CMakeLists.txt says. */
#ifndef CADRE_COMMON_BASE_VERSION_H
#define CADRE_COMMON_BASE_VERSION_H

extern const char cad_version[];      /* "0.2.0" */
extern const char cad_release_date[]; /* "2026-11-29", of that version */
/* "104c8305eba3", with "-dirty" behind it when files were changed since; "unknown" without git */
extern const char cad_commit[];

#endif
