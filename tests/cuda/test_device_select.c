/* SPDX-License-Identifier: Apache-2.0 */
/* --device: its forms; which GPU is opened; and for each that cannot be used the sentence that says
 * why, and what to do. The emulated machine is as its environment says. */
#include "kernels/kernels.h"
#include "tests/support/must.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void reads_the_forms(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		enum kn_device_kind kind;
		unsigned index;
	} forms[] = { { "cpu", KN_DEVICE_CPU, 0 }, { "cuda", KN_DEVICE_CUDA, 0 }, { "cuda:0", KN_DEVICE_CUDA, 0 },
		{ "cuda:15", KN_DEVICE_CUDA, 15 }, { "emu", KN_DEVICE_EMU, 0 }, { "emu:1", KN_DEVICE_EMU, 1 } };
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		struct kn_device_options options = { .index = 77 };
		struct cad_error error;
		must(kn_device_parse("device", forms[i].text, &options, &error), &error);
		assert_true(options.kind == forms[i].kind && options.index == forms[i].index);
	}

	static const char *const wrong[] = { "", "gpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda: 1", "cuda:1x",
		"cuda1", "CUDA", "emu:99999", "emu:1:1" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct kn_device_options options;
		struct cad_error error;
		char said[80];
		assert_int_equal(kn_device_parse("device", wrong[i], &options, &error), CAD_ERR_INVALID);
		snprintf(said, sizeof said, "--device is '%s'; it can be cpu, cuda or emu", wrong[i]);
		assert_non_null(strstr(error.text, said));
	}
}

/* A machine, what is asked for, and what is said. */
static const struct refusal {
	const char *environment; /* NAME=VALUE */
	enum kn_device_kind kind;
	unsigned index;
	enum cad_status status; /* NOT_FOUND: there is none, and tests of it are skipped */
	const char *said;
} refusals[] = {
	{ "CADRE_EMU_DRIVER=0", KN_DEVICE_EMU, 0, CAD_ERR_NOT_FOUND,
		"device 'emu': there is no NVIDIA driver here (libcuda.so.1): install it, or start this container with access to the GPU" },
	{ "CADRE_EMU_DRIVER=12040", KN_DEVICE_EMU, 0, CAD_ERR_UNSUPPORTED,
		"device 'emu': the NVIDIA driver is made for CUDA 12.4, and this build of Cadre for 13.0: install a newer driver" },
	{ "CADRE_EMU_DEVICES=0", KN_DEVICE_EMU, 0, CAD_ERR_NOT_FOUND,
		"device 'emu': the NVIDIA driver finds no GPU: see nvidia-smi, CUDA_VISIBLE_DEVICES, and whether this container has been given one" },
	{ "CADRE_EMU_DEVICES=1", KN_DEVICE_EMU, 9, CAD_ERR_UNSUPPORTED,
		"there is no device 'emu:9': the only GPU is emu:0 (Emulated GPU 0)" },
	{ "CADRE_EMU_DEVICES=2", KN_DEVICE_EMU, 2, CAD_ERR_UNSUPPORTED,
		"there is no device 'emu:2': the GPUs are emu:0 (Emulated GPU 0), emu:1 (Emulated GPU 1)" },
	{ "CADRE_EMU_SM=75", KN_DEVICE_EMU, 0, CAD_ERR_UNSUPPORTED,
		"device 'emu:0' (Emulated GPU 0) has compute capability 7.5, and Cadre's kernels need 8.0 or more: use another one, or --device cpu" },
	{ "CADRE_EMU_SM=120", KN_DEVICE_EMU, 0, CAD_ERR_UNSUPPORTED,
		"device 'emu:0' (Emulated GPU 0) has compute capability 12.0, for which this build of Cadre has no code: build it with CADRE_CUDA_ARCHITECTURES=120" },
	{ "CADRE_EMU_FAIL_AFTER=0", KN_DEVICE_EMU, 0, CAD_ERR_UNSUPPORTED,
		"device 'emu:0' (Emulated GPU 0) cannot be used: unspecified launch failure" },
	{ "CADRE_BACKENDS=/nowhere", KN_DEVICE_EMU, 0, CAD_ERR_NOT_FOUND,
		"there is no device 'emu': its library /nowhere/libcadre-emu.so is not there; './cadre build' makes it" },
	{ "CADRE_BACKENDS=/nowhere", KN_DEVICE_CUDA, 0, CAD_ERR_NOT_FOUND,
		"there is no device 'cuda': its library /nowhere/libcadre-cuda.so is not there; './cadre build' makes it where nvcc is, and the package cadre-cuda has it" },
};

/* In a process of its own: what the environment says is read once. */
static void in_a_child(const char *environment, bool (*good)(const void *context), const void *context)
{
	int code;
	pid_t child = fork();
	if (child == 0) {
		putenv((char *)(uintptr_t)environment);
		_exit(good(context) ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &code, 0), child);
	assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
}

static bool is_refused(const void *context)
{
	const struct refusal *refusal = context;
	const struct kn_device_options options = { .kind = refusal->kind, .index = refusal->index };
	struct kn_device *device;
	struct cad_error error = { 0 };
	enum cad_status status = kn_device_open(&options, &device, &error);
	if (status == refusal->status && strncmp(error.text, refusal->said, strlen(refusal->said)) == 0)
		return true;
	print_error(
		"%s, device %u: %s: %s\n", refusal->environment, refusal->index, cad_status_name(status), error.text);
	return false;
}

static void says_why_not(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
		in_a_child(refusals[i].environment, is_refused, &refusals[i]);
}

/* Work on a GPU that is not the first, by a thread that did not open it. */
static void *compute(void *queue)
{
	char hex[33];
	struct cad_error error;
	return kn_fingerprint(queue, CAD_WEIGHTS_INT8, hex, &error) == CAD_OK ? queue : NULL;
}

static bool second_computes(const void *context)
{
	(void)context;
	const struct kn_device_options options = { .kind = KN_DEVICE_EMU, .index = 1 };
	struct kn_device *device;
	struct kn_device_info info;
	struct kn_queue *queue;
	struct cad_error error;
	pthread_t thread;
	void *computed = NULL;

	if (kn_device_open(&options, &device, &error) != CAD_OK ||
		device->ops->queue_create(device, 1, &queue) != CAD_OK)
		return false;
	device->ops->describe(device, &info);
	bool good = strcmp(info.name, "emu:1") == 0 && strcmp(info.chip, "Emulated GPU 1") == 0;
	good = good && pthread_create(&thread, NULL, compute, queue) == 0 && pthread_join(thread, &computed) == 0;
	device->ops->queue_destroy(queue);
	device->ops->destroy(device);
	return good && computed;
}

static void opens_the_one_that_is_asked_for(void **state)
{
	(void)state;
	in_a_child("CADRE_EMU_DEVICES=2", second_computes, NULL);
}

static bool sees_others(const void *context)
{
	struct kn_device *device;
	struct kn_device_info info;
	struct cad_error error;
	if (kn_device_open(&(struct kn_device_options){ .kind = KN_DEVICE_EMU }, &device, &error) != CAD_OK)
		return false;
	device->ops->describe(device, &info);
	uint64_t others_bytes = info.others_bytes;
	device->ops->destroy(device);
	return others_bytes == *(const uint64_t *)context;
}

/* CUDA's own memory for a process is nobody else's. */
static void says_what_others_have_of_its_memory(void **state)
{
	(void)state;
	const uint64_t none = 0, most = 3000000000;
	in_a_child("CADRE_EMU_TAKEN=500000000", sees_others, &none);
	in_a_child("CADRE_EMU_TAKEN=3000000000", sees_others, &most);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_the_forms),
		cmocka_unit_test(says_why_not),
		cmocka_unit_test(opens_the_one_that_is_asked_for),
		cmocka_unit_test(says_what_others_have_of_its_memory),
	};
	return cmocka_run_group_tests_name("--device", tests, NULL, NULL);
}
