/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/op_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { POISON = 0x55 };

struct kn_queue *op_queue_open(const struct kn_device_options *options, unsigned threads)
{
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error;
	if (kn_device_open(options, &device, &error) != CAD_OK)
		return NULL;
	assert_int_equal(device->ops->queue_create(device, threads, &queue), CAD_OK);
	return queue;
}

void op_queue_close(struct kn_queue *queue)
{
	struct kn_device *device = queue->device;
	queue->ops->queue_destroy(queue);
	device->ops->destroy(device);
}

static void set_output(struct op_state *s, const uint8_t *bytes)
{
	if (s->host_output)
		memcpy(s->host_output, bytes, s->rows * s->stride_bytes);
	else
		s->queue->ops->copy_in(s->queue, s->device_output, bytes, s->rows * s->stride_bytes);
}

void op_get_output(struct op_state *s, uint8_t *bytes)
{
	assert_int_equal(s->queue->ops->wait(s->queue), CAD_OK);
	if (s->host_output)
		memcpy(bytes, s->host_output, s->rows * s->stride_bytes);
	else
		s->queue->ops->copy_out(s->queue, bytes, s->device_output, s->rows * s->stride_bytes);
	assert_int_equal(s->queue->ops->wait(s->queue), CAD_OK);
}

void op_check_part(
	struct op_state *s, const uint8_t *expected, uint8_t *got, size_t first, size_t rows, const char *where)
{
	size_t bytes = s->rows * s->stride_bytes;
	memset(got, POISON, bytes);
	set_output(s, got);
	s->c->kind->run(s, first, rows);
	op_get_output(s, got);

	for (size_t r = 0; r < s->rows; r++) {
		const uint8_t *row = got + r * s->stride_bytes;
		bool inside = r >= first && r < first + rows, good = true;
		if (inside)
			good = memcmp(row, expected + r * s->stride_bytes, s->compare_bytes) == 0;
		else
			for (size_t i = 0; i < s->stride_bytes && good; i++)
				good = row[i] == POISON;
		if (!good)
			fail_msg("%s: rows %zu + %zu: row %zu %s", where, first, rows, r,
				inside ? "differs from the reference" : "was written, but is not in the call");
	}
}
