/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/emu/report.h"

#include "kernels/cuda/emu/block.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Address of code as file and line, where addr2line is installed. */
static void say_source(const void *address)
{
	char command[4500];
	Dl_info object;

	if (!dladdr(address, &object))
		return;
	snprintf(command, sizeof command, "addr2line -s -i -e '%s' %#tx >&2", object.dli_fname,
		static_cast<const char *>(address) - static_cast<const char *>(object.dli_fbase));
	if (system(command) != 0)
		fprintf(stderr, "%s+%#tx\n", object.dli_fname,
			static_cast<const char *>(address) - static_cast<const char *>(object.dli_fbase));
}

void emu_fail(emu_site site, const char *what, const char *format, ...)
{
	char text[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);

	fprintf(stderr, "emu: %s: %s\n", what, text);
	if (site.file)
		fprintf(stderr, "emu:   at %s:%d\n", site.file, site.line);
	if (emu_block_now)
		fprintf(stderr, "emu:   kernel %s, block (%u,%u,%u), thread %d, seed %llu\n", emu_block_now->kernel,
			emu_block_now->index.x, emu_block_now->index.y, emu_block_now->index.z,
			emu_thread_now ? emu_thread_now->number : -1, static_cast<unsigned long long>(emu_seed()));
	if (site.address)
		say_source(site.address);
	_exit(EMU_EXIT_CODE);
}
