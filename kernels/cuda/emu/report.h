/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places in a kernel's source, and the end of the process when a kernel breaks a rule: a kernel's
 * mistake is not a status.
 */
#ifndef CADRE_KERNELS_CUDA_EMU_REPORT_H
#define CADRE_KERNELS_CUDA_EMU_REPORT_H

/* Where a thread stands. A function that kernels call ends its parameters with EMU_HERE_ARGS, whose
 * defaults are the caller's place, and hands it on as EMU_HERE. */
struct emu_site {
	const char *file; /* NULL: not known, but perhaps an address */
	int line;
	const void *address; /* of code; NULL: none */
};
#define EMU_HERE_ARGS int line_ = __builtin_LINE(), const char *file_ = __builtin_FILE()
#define EMU_HERE (emu_site{ file_, line_, nullptr })

enum { EMU_EXIT_CODE = 3 };

/* "emu: WHAT: ...", the place, kernel, block, thread and seed to stderr; exits with
 * EMU_EXIT_CODE. */
[[noreturn]] void emu_fail(emu_site site, const char *what, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
