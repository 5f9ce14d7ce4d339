/* SPDX-License-Identifier: Apache-2.0 */
/* The late device catches what the CPU forgives: each breach of the contract of kernels.h, done on
 * purpose in a child process, ends it; the same work done by the rules gives the CPU's results. */
#include "kernels/cpu/cpu.h"
#include "tests/support/late_device.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 32 };

struct late {
	struct kn_device *device;
	const struct kn_ops *ops;
	struct kn_queue *queue;
	float *x, *host; /* device [N], host_alloc [N] */
};

static void begin(struct late *l)
{
	struct kn_device *cpu;
	struct cad_error error;
	must(kn_cpu_open(KN_ISA_REF, &cpu, &error), &error);
	assert_int_equal(late_device_create(cpu, &l->device), CAD_OK);
	l->ops = l->device->ops;
	assert_int_equal(l->ops->queue_create(l->device, 1, &l->queue), CAD_OK);
	l->x = l->ops->alloc(l->device, N * sizeof *l->x);
	l->host = l->ops->host_alloc(l->device, N * sizeof *l->host);
	assert_true(l->x && l->host);
}

static void end(struct late *l)
{
	l->ops->release(l->device, l->x, N * sizeof *l->x);
	l->ops->host_release(l->device, l->host, N * sizeof *l->host);
	l->ops->queue_destroy(l->queue);
	l->ops->destroy(l->device);
}

/* Runs `breach` in a child. It must end by that signal, and say `sentence` (NULL: nothing). */
static void dies(void (*breach)(struct late *l), int signal_number, const char *sentence)
{
	int ends[2];
	char said[512] = "";

	assert_int_equal(pipe(ends), 0);
	pid_t child = fork();
	if (child == 0) {
		struct late l;
		dup2(ends[1], STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		begin(&l);
		breach(&l);
		_exit(0);
	}
	close(ends[1]);
	size_t at = 0;
	for (ssize_t got; at < sizeof said - 1 && (got = read(ends[0], said + at, sizeof said - 1 - at)) > 0;)
		at += (size_t)got;
	close(ends[0]);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != signal_number)
		fail_msg("status %x, not signal %d; it said '%s'", (unsigned)status, signal_number, said);
	if (sentence && !strstr(said, sentence))
		fail_msg("'%s' does not say '%s'", said, sentence);
}

/* ---- breaches ---- */

static void source_changes(struct late *l)
{
	l->ops->copy_in(l->queue, l->x, l->host, N * sizeof *l->host);
	l->host[3] = 1.0f;
	l->ops->wait(l->queue);
}

static void source_was_on_the_stack(struct late *l)
{
	volatile float stack[N] = { 1 };
	l->ops->copy_in(l->queue, l->x, (const void *)stack, sizeof stack);
	for (int i = 0; i < N; i++) /* what the next function does to it */
		stack[i] = (float)i;
	l->ops->wait(l->queue);
}

static void destination_is_written(struct late *l)
{
	l->ops->copy_out(l->queue, l->host, l->x, N * sizeof *l->host);
	l->host[0] = 0;
	l->ops->wait(l->queue);
}

static void host_reads_device_memory(struct late *l)
{
	float first = *(volatile float *)l->x;
	fprintf(stderr, "read %f\n", (double)first);
}

static void host_reads_it_after_a_wait_too(struct late *l)
{
	l->ops->copy_in(l->queue, l->x, l->host, N * sizeof *l->host);
	l->ops->wait(l->queue);
	host_reads_device_memory(l);
}

static void host_memory_as_device_memory(struct late *l)
{
	l->ops->add(l->queue,
		&(struct kn_add){ .x = l->x, .y = l->host, .ldx = N, .ldy = N, .rows = 1, .n = N, .scale = 1 });
}

static void device_memory_as_host_memory(struct late *l) { l->ops->copy_out(l->queue, l->x, l->x, N * sizeof *l->x); }

static void released_while_queued(struct late *l)
{
	l->ops->copy_in(l->queue, l->x, l->host, N * sizeof *l->host);
	l->ops->release(l->device, l->x, N * sizeof *l->x);
	l->ops->wait(l->queue);
}

static void nobody_waits(struct late *l)
{
	l->ops->copy_in(l->queue, l->x, l->host, N * sizeof *l->host);
	l->ops->queue_destroy(l->queue);
}

static void an_operator_list_changes(struct late *l)
{
	uint32_t begin_of[2] = { 0, 0 };
	struct kn_expert expert = { 0 };
	const struct kn_expert *list[1] = { &expert };
	l->ops->ffn(l->queue,
		&(struct kn_ffn){
			.experts = list,
			.experts_count = 1,
			.begin = begin_of,
			.x = l->x,
			.y = l->x,
			.scratch = l->x,
		});
	begin_of[1] = 1;
	l->ops->wait(l->queue);
}

static void memory_is_kept(struct late *l)
{
	l->ops->queue_destroy(l->queue);
	l->ops->destroy(l->device);
}

static void breaches_end_the_process(void **state)
{
	(void)state;
	dies(source_changes, SIGABRT, "copy_in: host memory that it reads changed before wait");
	dies(source_was_on_the_stack, SIGABRT, "copy_in: host memory that it reads changed before wait");
	dies(destination_is_written, SIGABRT, "copy_out: host memory that it writes was touched before wait");
	dies(host_memory_as_device_memory, SIGABRT, "add: host memory stands where device memory is due");
	dies(device_memory_as_host_memory, SIGABRT, "copy_out: device memory stands where host memory is due");
	dies(nobody_waits, SIGABRT, "copy_in: the queue is destroyed, and nobody has waited for it");
	dies(an_operator_list_changes, SIGABRT, "ffn: host memory that it reads changed before wait");
	dies(memory_is_kept, SIGABRT, "destroy: memory was not released");
}

/* AddressSanitizer and ThreadSanitizer make an exit of a fault. */
static void faults_end_the_process(void **state)
{
	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip();
#endif
	dies(host_reads_device_memory, SIGSEGV, NULL);
	dies(host_reads_it_after_a_wait_too, SIGSEGV, NULL);
	dies(released_while_queued, SIGSEGV, NULL);
}

/* ---- by the rules ---- */

/* What a host that does not wait reads is a NaN and no valid id, and then it is the result. */
static void results_come_with_wait(void **state)
{
	(void)state;
	struct late l;
	float source[N], *back;
	begin(&l);
	back = l.host;
	for (size_t i = 0; i < N; i++)
		source[i] = (float)i;

	l.ops->copy_in(l.queue, l.x, source, sizeof source);
	l.ops->add(l.queue, &(struct kn_add){ .x = l.x, .y = l.x, .ldx = N, .ldy = N, .rows = 1, .n = N, .scale = 1 });
	l.ops->copy_out(l.queue, back, l.x, N * sizeof *back);
	for (size_t i = 0; i < N; i++) {
		int32_t id;
		memcpy(&id, &back[i], sizeof id);
		assert_true(back[i] != back[i] && id == LATE_PATTERN && id < -1);
	}
	assert_int_equal(l.ops->wait(l.queue), CAD_OK);
	for (size_t i = 0; i < N; i++)
		assert_true(back[i] == (float)(2 * i));

	struct late_counts counts = late_device_counts(l.device);
	assert_int_equal(counts.copies_in, 1);
	assert_int_equal(counts.copies_out, 1);
	assert_int_equal(counts.operators, 1);
	assert_int_equal(counts.waits, 1);
	end(&l);
}

static void memory_is_zero_and_has_an_end(void **state)
{
	(void)state;
	struct late l;
	begin(&l);
	static const size_t sizes[] = { 0, 1, 64, 4095, 4096, 4097, 1 << 20 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		uint8_t *p = l.ops->alloc(l.device, sizes[i]), *back = calloc(1, sizes[i] + 1);
		assert_non_null(p);
		assert_non_null(back);
		assert_int_equal((uintptr_t)p % 64, 0);
		l.ops->copy_out(l.queue, back, p, sizes[i]);
		assert_int_equal(l.ops->wait(l.queue), CAD_OK);
		for (size_t b = 0; b < sizes[i]; b++)
			assert_int_equal(back[b], 0);
		l.ops->release(l.device, p, sizes[i]);
		free(back);
	}
	assert_null(l.ops->alloc(l.device, (size_t)1 << 40));
	assert_null(l.ops->alloc(l.device, SIZE_MAX));
	l.ops->release(l.device, NULL, 5);
	l.ops->host_release(l.device, NULL, 5);
	end(&l);
}

static void a_device_that_fails_goes_on_failing(void **state)
{
	(void)state;
	struct late l;
	begin(&l);
	late_device_fail_after(l.device, 1);
	assert_int_equal(l.ops->wait(l.queue), CAD_OK);
	l.ops->copy_out(l.queue, l.host, l.x, N * sizeof *l.host);
	assert_int_equal(l.ops->wait(l.queue), CAD_ERR_INTERNAL);
	assert_true(l.host[0] != l.host[0]); /* nothing was done */
	assert_int_equal(l.ops->wait(l.queue), CAD_ERR_INTERNAL);
	end(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(breaches_end_the_process),
		cmocka_unit_test(faults_end_the_process),
		cmocka_unit_test(results_come_with_wait),
		cmocka_unit_test(memory_is_zero_and_has_an_end),
		cmocka_unit_test(a_device_that_fails_goes_on_failing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
