/* SPDX-License-Identifier: Apache-2.0 */
/* Options from a file and from flags that anybody wrote: a sentence or values inside their ranges,
 * never a crash. The first byte says which of the two. */
#include "common/process/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct values {
	const char *model;
	uint32_t threads;
	uint64_t memory, timeout_ns;
	double factor;
	bool fast;
	uint32_t color;
};
static const struct cad_choice colors[] = { { "red", 3 }, { "green", 7 }, { NULL, 0 } };
static const struct cad_option table[] = {
	CAD_OPTION_STRING(struct values, model, "model", "m", "text"),
	CAD_OPTION_U32(struct values, threads, "threads", "2", 1, 64, "number"),
	CAD_OPTION_BYTES(struct values, memory, "memory", "1G", 1024, 1ull << 50, "size"),
	CAD_OPTION_F64(struct values, factor, "factor", "1", 0.5, 8, "real"),
	CAD_OPTION_BOOL(struct values, fast, "fast", "false", "truth"),
	CAD_OPTION_ENUM(struct values, color, "color", "green", colors, "choice"),
	CAD_OPTION_DURATION(struct values, timeout_ns, "timeout", "20ms", 0, 3600000000000u, "time"),
};
static const struct cad_options_spec spec = {
	.program = "fuzz",
	.summary = "s",
	.positional = "X",
	.positional_max = 4,
	.table = table,
	.count = sizeof table / sizeof table[0],
};

static void check(int argc, char **argv)
{
	struct values values = { 0 };
	struct cad_options *options = NULL;
	struct cad_error error = { 0 };
	enum cad_options_action action;

	if (cad_options_parse(&spec, argc, argv, &values, &options, &action, &error) != CAD_OK) {
		CAD_ASSERT(error.text[0] && !options);
		return;
	}

	if (action == CAD_OPTIONS_RUN) {
		CAD_ASSERT(values.model && values.threads >= 1 && values.threads <= 64 && values.memory >= 1024 &&
			values.memory <= 1ull << 50);
		CAD_ASSERT(values.factor >= 0.5 && values.factor <= 8 && (values.color == 3 || values.color == 7) &&
			values.timeout_ns <= 3600000000000u);
	}

	cad_options_destroy(options);
}

static void from_file(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];

	if (fd < 0) {
		fd = memfd_create("options", 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	CAD_ASSERT(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	check(3, (char *[]){ (char *)"fuzz", (char *)"--config", path, NULL });
}

/* Zero bytes separate the arguments. Help and the like would only print. */
static void from_flags(const uint8_t *data, size_t size)
{
	char text[512], *argv[16] = { (char *)"fuzz" };
	int argc = 1;

	size = size < sizeof text - 1 ? size : sizeof text - 1;
	memcpy(text, data, size);
	text[size] = 0;
	for (size_t at = 0; at < size && argc < 15; at += strlen(text + at) + 1)
		argv[argc++] = text + at;
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], "--h", 3) == 0 || strncmp(argv[i], "-h", 2) == 0 ||
			strncmp(argv[i], "--v", 3) == 0 || strncmp(argv[i], "--p", 3) == 0 ||
			strncmp(argv[i], "--c", 3) == 0)
			return;
	check(argc, argv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 4096)
		return 0;
	if (data[0] % 2)
		from_flags(data + 1, size - 1);
	else
		from_file(data + 1, size - 1);
	return 0;
}
