/* SPDX-License-Identifier: Apache-2.0 */
/* Which request buffers an expert node asks its device to pin. */
#include "expert-svc/pinned.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const char *chip;
static char memory[64];

static void describe(const struct kn_device *device, struct kn_device_info *info)
{
	(void)device;
	*info = (struct kn_device_info){ .name = "test", .isa = "test", .chip = chip };
}

static void *host_alloc(struct kn_device *device, size_t bytes)
{
	assert_non_null(device);
	return bytes <= sizeof memory ? memory : NULL;
}

static void host_release(struct kn_device *device, void *released, size_t bytes)
{
	assert_non_null(device);
	assert_true(released == memory && bytes <= sizeof memory);
}

static const struct kn_ops ops = { .describe = describe, .host_alloc = host_alloc, .host_release = host_release };
static struct kn_device device = { .ops = &ops };

static struct cad_transport_options options_of(const char *name, uint64_t payload_bytes_max)
{
	struct cad_transport_options options;
	cad_transport_options_default(&options);
	options.limits.payload_bytes_max = payload_bytes_max;
	chip = name;
	ex_pin_requests(&device, &options);
	return options;
}

static void as_many_as_there_is_memory_for(void **state)
{
	(void)state;
	assert_int_equal(options_of("GPU", 1).pinned_buffers, 8);
	assert_int_equal(options_of("GPU", 100u << 20).pinned_buffers, 2);
	assert_int_equal(options_of("GPU", 257u << 20).pinned_buffers, 0);
	assert_int_equal(options_of("", 1).pinned_buffers, 0); /* a CPU */
}

static void memory_is_the_device_s(void **state)
{
	(void)state;
	struct cad_pinned_memory pinned = options_of("GPU", 1).pinned;
	struct cad_buffer buffer;
	assert_int_equal(cad_buffer_map(sizeof memory, &pinned, &buffer), CAD_OK);
	assert_ptr_equal(buffer.bytes, memory);
	assert_ptr_equal(buffer.pinned, &pinned);
	cad_buffer_unmap(&buffer);
	assert_null(buffer.bytes);
	assert_int_equal(cad_buffer_map(sizeof memory + 1, &pinned, &buffer), CAD_ERR_MEMORY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_many_as_there_is_memory_for),
		cmocka_unit_test(memory_is_the_device_s),
	};
	return cmocka_run_group_tests_name("pinned", tests, NULL, NULL);
}
