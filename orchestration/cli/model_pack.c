/* SPDX-License-Identifier: Apache-2.0 */
/* model pack: a checkpoint as a directory that loads without quantising. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/cluster/settings.h"
#include "kernels/kernels.h"
#include "kernels/packed.h"
#include "kernels/quantum.h"
#include "orchestration/cli/command.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct pack_options {
	struct cad_settings settings;
};

static const struct cad_option pack_table[] = {
	CAD_OPTION_ENUM(struct pack_options, settings.profile, "numerics", "int8", cad_profile_choices,
		"in which numbers experts will compute, as on the placement service"),
	CAD_OPTION_ENUM(struct pack_options, settings.router_profile, "router-numerics", "same",
		cad_router_profile_choices,
		"in which numbers attention projections, dense and shared ffns and the head will compute; same: as --numerics says"),
};

static const struct cad_options_spec pack_spec = {
	.program = "cadrectl model pack",
	.summary =
		"Packs the checkpoint DIR for int8 or int4 into the new directory OUT, which loads faster and is smaller. Every --model takes either, with the same bits.",
	.positional = "DIR OUT",
	.positional_names = CAD_OPTION_NAMES_DIRECTORY,
	.positional_max = 2,
	.table = pack_table,
	.count = sizeof pack_table / sizeof *pack_table,
};

/* What a packed model has beside its weights, if the checkpoint has it. */
static const char *const copied[] = { "config.json", "generation_config.json", "tokenizer.json",
	"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "README.md",
	"LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt" };
enum { COPIED = sizeof copied / sizeof *copied, COPIED_BYTES_MAX = 256 << 20 };

struct packing {
	const struct cad_model *model;
	char *out, *temporary; /* `temporary` is renamed to `out` at the end */
	uint64_t began_ns;
	_Atomic uint64_t said_ns;
};

/* ---- files ---- */

static char *path_in(const char *directory, const char *name)
{
	char *path;
	return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static enum cad_status copy_file(const char *from, const char *to, struct cad_error *error)
{
	char *bytes;
	size_t size;
	struct cad_file_writer writer;
	enum cad_status status = cad_file_read(from, COPIED_BYTES_MAX, &bytes, &size, error);

	if (status == CAD_ERR_NOT_FOUND)
		return CAD_OK;
	if (status != CAD_OK)
		return status;

	status = cad_file_writer_open(&writer, to, error);
	if (status == CAD_OK) {
		fwrite(bytes, 1, size, writer.stream);
		status = cad_file_writer_commit(&writer, error);
	}
	free(bytes);

	return status;
}

static enum cad_status copy_files(const struct packing *packing, struct cad_error *error)
{
	enum cad_status status = CAD_OK;

	for (size_t i = 0; i < COPIED && status == CAD_OK; i++) {
		char *from = path_in(cad_model_directory(packing->model), copied[i]),
		     *to = path_in(packing->temporary, copied[i]);
		status = from && to ? copy_file(from, to, error)
				    : cad_error_set(error, CAD_ERR_MEMORY, "no memory for a path");
		free(from);
		free(to);
	}
	return status;
}

/* A directory beside OUT, which nobody takes for a model before it has its last name. */
static enum cad_status make_directory(struct packing *packing, const char *out, struct cad_error *error)
{
	size_t length = strlen(out);

	while (length > 1 && out[length - 1] == '/')
		length--;
	packing->out = strndup(out, length);
	if (!packing->out || asprintf(&packing->temporary, "%s.%ld.tmp", packing->out, (long)getpid()) < 0) {
		packing->temporary = NULL;
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a path");
	}

	struct stat there;
	enum cad_status status = CAD_OK;
	if (lstat(packing->out, &there) == 0)
		status = cad_error_set(error, CAD_ERR_INVALID,
			"'%s' exists: give a directory that does not, which is made", packing->out);
	else if (mkdir(packing->temporary, 0777) != 0)
		status = cad_error_set(
			error, CAD_ERR_IO, "'%s' cannot be made: %s", packing->temporary, strerror(errno));
	if (status != CAD_OK) {
		free(packing->temporary);
		packing->temporary = NULL;
	}
	return status;
}

static void remove_directory(const struct packing *packing)
{
	for (size_t i = 0; i < COPIED; i++) {
		char *path = path_in(packing->temporary, copied[i]);
		if (path)
			(void)unlink(path);
		free(path);
	}
	char *weights = path_in(packing->temporary, "model.safetensors");
	if (weights)
		(void)unlink(weights);
	free(weights);
	(void)rmdir(packing->temporary);
}

/* ---- weights ---- */

/* A line at the end, and one a second until then. */
static void say(struct packing *packing, uint64_t done, uint64_t total)
{
	double seconds = (double)(cad_clock_now_ns(&cad_clock_system) - packing->began_ns) * 1e-9;
	fprintf(stderr, "%.2f of %.2f GB in %.1f s, %.2f GB/s\n", (double)done * 1e-9, (double)total * 1e-9, seconds,
		seconds > 0 ? (double)done * 1e-9 / seconds : 0);
}

static bool go_on(void *context, uint64_t done, uint64_t total)
{
	struct packing *packing = context;
	uint64_t now = cad_clock_now_ns(&cad_clock_system), said = atomic_load(&packing->said_ns);

	if (done == total ||
		(now >= said + CAD_NS_PER_S && atomic_compare_exchange_strong(&packing->said_ns, &said, now)))
		say(packing, done, total);
	return !cl_interrupted();
}

/* What a start would compute from some of the experts; of floats it depends on the wire. */
static enum cad_status compute_quanta(
	const struct packing *packing, const struct cad_settings *settings, float *quanta, struct cad_error *error)
{
	struct kn_device *device;
	struct kn_queue *queue;
	enum cad_status status = kn_device_open(&(struct kn_device_options){ 0 }, &device, error);

	if (status != CAD_OK)
		return status;
	status = device->ops->queue_create(device, kn_threads_default(), &queue);
	if (status == CAD_OK) {
		status = kn_quantum_table(
			queue, packing->model, cad_settings_expert_weights(settings), settings->wire, quanta, error);
		device->ops->queue_destroy(queue);
	} else {
		(void)cad_error_set(error, status, "cannot start threads to compute the quantum table");
	}
	device->ops->destroy(device);

	return status;
}

static enum cad_status write_weights(
	struct packing *packing, const struct cad_settings *settings, struct cad_error *error)
{
	bool quantised = cad_weights_quantised(cad_settings_expert_weights(settings));
	float quanta[CAD_LAYERS_MAX];
	struct cad_workers *workers = NULL;
	char *path = path_in(packing->temporary, "model.safetensors");
	enum cad_status status = path ? cad_workers_create(kn_threads_default(), &workers, error)
				      : cad_error_set(error, CAD_ERR_MEMORY, "no memory for a path");

	if (status == CAD_OK && quantised)
		status = compute_quanta(packing, settings, quanta, error);
	if (status == CAD_OK) {
		struct kn_packing weights = {
			.model = packing->model,
			.quanta = quantised ? quanta : NULL,
			.weights = { cad_settings_expert_weights(settings), cad_settings_router_weights(settings) },
			.path = path,
			.workers = workers,
			.go_on = go_on,
			.context = packing,
		};
		packing->began_ns = cad_clock_now_ns(&cad_clock_system);
		atomic_store(&packing->said_ns, packing->began_ns);
		status = kn_packed_write(&weights, error);
	}
	cad_workers_destroy(workers);
	free(path);

	return status;
}

static enum cad_status pack(
	const struct cad_model *model, const struct pack_options *options, const char *out, struct cad_error *error)
{
	struct packing packing = { .model = model };
	struct cad_settings settings = options->settings;
	enum cad_status status = cad_settings_complete(&settings, error);

	if (status == CAD_OK)
		status = make_directory(&packing, out, error);
	if (status != CAD_OK)
		goto free_paths;

	status = copy_files(&packing, error);
	if (status == CAD_OK)
		status = write_weights(&packing, &settings, error);
	if (status == CAD_OK && rename(packing.temporary, packing.out) != 0)
		status = cad_error_set(error, CAD_ERR_IO, "'%s' cannot be named '%s': %s", packing.temporary,
			packing.out, strerror(errno));
	if (status != CAD_OK)
		remove_directory(&packing);

free_paths:
	free(packing.temporary);
	free(packing.out);
	return status;
}

int cl_model_pack(int argc, char **argv)
{
	struct pack_options options = { 0 }; /* what has no option here: as by default */
	struct cad_options *parsed;
	struct cad_error error;
	struct cad_model *model;
	int exit_code;

	if (!cad_options_main(&pack_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;
	if (cad_options_positional_count(parsed) != 2) {
		fprintf(stderr,
			"cadrectl model pack: give the directory of a checkpoint, and one to make for the packed model\n");
		cad_options_destroy(parsed);
		return CL_EXIT_USAGE;
	}

	cl_on_interrupt(NULL, NULL);
	enum cad_status status = cad_model_open(cad_options_positional(parsed, 0), &model, &error);
	if (status == CAD_OK) {
		status = pack(model, &options, cad_options_positional(parsed, 1), &error);
		cad_model_close(model);
	}

	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("model pack", &error);
	cad_options_destroy(parsed);
	return exit_code;
}
