/* SPDX-License-Identifier: Apache-2.0 */
/* Packed models: they hold what packing from the checkpoint makes, say so, and are refused with a
 * sentence when anything about them is wrong. */
#include "common/base/file.h"
#include "kernels/image.h"
#include "kernels/packed.h"
#include "kernels/quantum.h"
#include "kernels/source.h"
#include "router-svc/model/weights.h"
#include "tests/support/golden_copy.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

/* Tied and own heads, f16, bf16 and f32 files, shards, a dense layer, a dense model, sizes that are
 * no multiple of a group; experts in one tensor, and of several types. */
static const char *const names[] = { "llama-a", "mixtral-a", "mixtral-b", "olmoe-a", "olmoe-b", "qwen3moe-a",
	"qwen3moe-b", "qwen2moe-a", "ernie45moe-a", "granitemoe-a", "forms/llama-own-head", "forms/qwen3moe-fused",
	"forms/mixtral-dtypes" };
enum { NAMES = sizeof names / sizeof *names };
static const enum cad_weights kinds[] = { CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_BF16_ROWS, CAD_WEIGHTS_INT8,
	CAD_WEIGHTS_INT4 };
enum { KINDS = sizeof kinds / sizeof *kinds };

static struct kn_device *device;

static struct cad_model *open_model(const char *directory)
{
	struct cad_model *model;
	struct cad_error error;
	must(cad_model_open(directory, &model, &error), &error);
	return model;
}

static bool go_on(void *context, uint64_t done, uint64_t total)
{
	(void)context;
	assert_in_range(done, 1, total);
	return true;
}

static struct kn_packing packing_of(const struct cad_model *model, enum cad_weights experts, enum cad_weights router)
{
	return (struct kn_packing){ .model = model, .weights = { experts, router }, .go_on = go_on };
}

static void quanta_of(const struct cad_model *model, enum cad_weights experts, float quanta[CAD_LAYERS_MAX])
{
	struct kn_queue *queue;
	struct cad_error error;
	assert_int_equal(device->ops->queue_create(device, 1, &queue), CAD_OK);
	must(kn_quantum_table(queue, model, experts, CADRE_ROW_FIX16, quanta, &error), &error);
	device->ops->queue_destroy(queue);
}

/* The packed form of a golden checkpoint, in a copy's directory. */
static struct golden_copy pack(const char *name, enum cad_weights experts, enum cad_weights router)
{
	struct golden_copy from = golden_copy_create(name), to = { "/tmp/cadre-test-packed-XXXXXX" };
	struct cad_error error;
	char *text;
	size_t bytes;

	assert_non_null(mkdtemp(to.directory));
	assert_int_equal(cad_file_read(golden_copy_path(&from, "config.json"), 1 << 20, &text, &bytes, NULL), CAD_OK);
	golden_copy_write(golden_copy_path(&to, "config.json"), text, bytes);
	free(text);

	struct cad_model *model = open_model(from.directory);
	struct kn_packing packing = packing_of(model, experts, router);
	float quanta[CAD_LAYERS_MAX];
	if (cad_weights_quantised(experts)) {
		quanta_of(model, experts, quanta);
		packing.quanta = quanta;
	}
	packing.path = golden_copy_path(&to, "model.safetensors");
	must(kn_packed_write(&packing, &error), &error);
	cad_model_close(model);
	golden_copy_remove(&from);
	return to;
}

/* ---- what is in it ---- */

static bool compare_piece(void *context, const void *bytes, size_t count)
{
	const uint8_t **next = context;
	assert_memory_equal(*next, bytes, count);
	*next += count;
	return true;
}

/* The packed tensor is what reading the other in that type gives. */
static void same_tensor(struct cad_tensor plain, struct cad_tensor packed)
{
	struct kn_source source = kn_source_of(plain);
	const uint8_t *next = packed.data;

	assert_int_equal(plain.data != NULL, packed.data != NULL);
	if (!plain.data)
		return;
	assert_int_equal(plain.rank, packed.rank);
	assert_memory_equal(plain.shape, packed.shape, plain.rank * sizeof *plain.shape);
	assert_true(kn_source_read(&source, packed.dtype, compare_piece, &next));
	assert_int_equal(next - (const uint8_t *)packed.data, packed.bytes);
}

static void same_tensors(const struct cad_model *plain, const struct cad_model *packed)
{
	const struct cad_model_spec *spec = cad_model_spec(plain);

	for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE; role++)
		for (uint32_t layer = 0; layer < (cad_role_is_layer(role) ? spec->layers_count : 1); layer++)
			same_tensor(cad_model_tensor(plain, role, layer, 0), cad_model_tensor(packed, role, layer, 0));
	for (uint32_t layer = 0; layer < spec->layers_count; layer++)
		for (uint32_t e = 0; e < spec->gate.experts; e++)
			for (enum cad_role role = CAD_ROLE_EXPERT_GATE; role < CAD_ROLE_COUNT; role++)
				same_tensor(cad_model_tensor(plain, role, layer, e),
					cad_model_tensor(packed, role, layer, e));
}

static void router_checksum(const struct cad_model *model, enum cad_weights weights, char hex[33])
{
	struct rt_weights loaded;
	struct cad_error error;
	must(rt_weights_init(&loaded, device, model, weights, &error), &error);
	memcpy(hex, loaded.checksum, 33);
	rt_weights_fini(&loaded);
}

/* What a cluster compares is the same in both forms. */
static void same_checksums(const struct cad_model *plain, const struct cad_model *packed, enum cad_weights experts,
	enum cad_weights router)
{
	const struct cad_model_spec *spec = cad_model_spec(plain);
	char one[33], two[33];

	cad_model_fingerprint(plain, one);
	cad_model_fingerprint(packed, two);
	assert_string_equal(one, two);
	router_checksum(plain, router, one);
	router_checksum(packed, router, two);
	assert_string_equal(one, two);

	for (uint32_t layer = 0; layer < spec->layers_count; layer++)
		for (uint32_t e = 0; spec->layers[layer].moe && e < spec->gate.experts; e++) {
			struct cad_error error;
			kn_expert_checksum(plain, layer, e, experts, one);
			kn_expert_checksum(packed, layer, e, experts, two);
			assert_string_equal(one, two);
			must(kn_packed_verify_expert(packed, layer, e, &error), &error);
		}
}

static void same_quanta(const struct cad_model *plain, const struct cad_model *packed, enum cad_weights experts)
{
	float one[CAD_LAYERS_MAX], two[CAD_LAYERS_MAX];
	struct cad_error error;

	quanta_of(plain, experts, one);
	quanta_of(packed, experts, two);
	assert_memory_equal(one, two, cad_model_spec(plain)->layers_count * sizeof *one);
	assert_int_equal(cad_model_quanta_recorded(plain, two, &error), CAD_AGAIN);
	assert_int_equal(
		cad_model_quanta_recorded(packed, two, &error), cad_weights_quantised(experts) ? CAD_OK : CAD_AGAIN);
}

static void packed_is_the_checkpoint(void **state)
{
	(void)state;
	for (size_t i = 0; i < KINDS * NAMES; i++) {
		enum cad_weights experts = kinds[i % KINDS], router = kinds[(i + i / KINDS) % KINDS];
		struct golden_copy plain_copy = golden_copy_create(names[i / KINDS]),
				   packed_copy = pack(names[i / KINDS], experts, router);
		struct cad_model *plain = open_model(plain_copy.directory), *packed = open_model(packed_copy.directory);
		struct cad_error error;

		assert_null(cad_model_packed(plain));
		assert_int_equal(cad_model_packed(packed)->experts, experts);
		assert_int_equal(cad_model_packed(packed)->router, router);
		must(kn_packed_check_experts(packed, experts, &error), &error);
		must(kn_packed_check_router(packed, router, &error), &error);
		if (experts == CAD_WEIGHTS_BF16_ROWS) { /* --weights bf16 and --numerics bf16-sm90 round to the same */
			must(kn_packed_check_experts(packed, CAD_WEIGHTS_BF16, &error), &error);
			must(kn_packed_check_experts(packed, CAD_WEIGHTS_BF16_SM90, &error), &error);
		}
		if (router == CAD_WEIGHTS_BF16_ROWS)
			must(kn_packed_check_router(packed, CAD_WEIGHTS_BF16, &error), &error);
		assert_int_equal(cad_model_sizes(packed).parameters, cad_model_sizes(plain).parameters);
		assert_int_equal(cad_model_sizes(packed).active_parameters, cad_model_sizes(plain).active_parameters);
		assert_int_equal(kn_router_bytes(device, packed, router), kn_router_bytes(device, plain, router));
		assert_int_equal(kn_expert_bytes(device, packed, experts), kn_expert_bytes(device, plain, experts));
		same_tensors(plain, packed);
		same_checksums(plain, packed, experts, router);
		same_quanta(plain, packed, experts);

		cad_model_close(packed);
		cad_model_close(plain);
		golden_copy_remove(&packed_copy);
		golden_copy_remove(&plain_copy);
	}
}

static void file_of(const struct golden_copy *copy, char **bytes, size_t *size)
{
	assert_int_equal(
		cad_file_read(golden_copy_path(copy, "model.safetensors"), SIZE_MAX - 1, bytes, size, NULL), CAD_OK);
}

/* By one thread and by three. */
static void packing_twice_gives_the_same_bytes(void **state)
{
	(void)state;
	struct golden_copy plain = golden_copy_create("mixtral-a"),
			   one = pack("mixtral-a", CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT8);
	struct cad_model *model = open_model(plain.directory);
	struct kn_packing packing = packing_of(model, CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT8);
	struct cad_error error;
	float quanta[CAD_LAYERS_MAX];
	char *first, *second;
	size_t size, again;

	file_of(&one, &first, &size);
	assert_int_equal(unlink(golden_copy_path(&one, "model.safetensors")), 0);
	must(cad_workers_create(3, &packing.workers, &error), &error);
	quanta_of(model, CAD_WEIGHTS_INT8, quanta);
	packing.quanta = quanta;
	packing.path = golden_copy_path(&one, "model.safetensors");
	must(kn_packed_write(&packing, &error), &error);
	file_of(&one, &second, &again);
	assert_int_equal(size, again);
	assert_memory_equal(first, second, size);

	free(first);
	free(second);
	cad_workers_destroy(packing.workers);
	cad_model_close(model);
	golden_copy_remove(&one);
	golden_copy_remove(&plain);
}

/* ---- what is refused ---- */

static void is_refused(
	enum cad_status status, const struct cad_error *error, enum cad_status wanted, const char *one, const char *two)
{
	if (status != wanted || error->status != wanted || !strstr(error->text, one) || !strstr(error->text, two))
		fail_msg("%s, '%s'; wanted %s, '%s', '%s'", cad_status_name(status), error->text,
			cad_status_name(wanted), one, two);
}

static void write_refused(const struct kn_packing *packing, enum cad_status wanted, const char *one, const char *two)
{
	struct cad_error error = { .text = "" };
	is_refused(kn_packed_write(packing, &error), &error, wanted, one, two);
}

static bool stop_soon(void *context, uint64_t done, uint64_t total)
{
	(void)done;
	(void)total;
	return atomic_fetch_add((_Atomic int *)context, 1) < 20;
}

static void nothing_is_left_of_what_ends_early(void **state)
{
	(void)state;
	struct golden_copy copy = golden_copy_create("olmoe-a");
	struct cad_model *model = open_model(copy.directory);
	struct kn_packing packing = packing_of(model, CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT8);
	_Atomic int pieces = 0;

	packing.path = golden_copy_path(&copy, "x.safetensors");
	packing.go_on = stop_soon;
	packing.context = &pieces;
	write_refused(&packing, CAD_ERR_CANCELLED, "x.safetensors", "interrupted");
	assert_int_equal(pieces, 21);
	assert_false(cad_file_exists(packing.path));

	const struct rlimit none = { 4096, RLIM_INFINITY }, all = { RLIM_INFINITY, RLIM_INFINITY };
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	packing.go_on = go_on;
	write_refused(&packing, CAD_ERR_IO, "x.safetensors", "File too large");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
	assert_false(cad_file_exists(packing.path));

	golden_copy_write(packing.path, "mine", 4);
	write_refused(&packing, CAD_ERR_IO, "x.safetensors", "File exists");
	assert_true(cad_file_exists(packing.path));
	packing.path = "/no/such/directory/x.safetensors";
	write_refused(&packing, CAD_ERR_IO, "x.safetensors", "No such file");
	cad_model_close(model);
	golden_copy_remove(&copy);
}

static void what_is_packed_is_not_packed_again(void **state)
{
	(void)state;
	struct golden_copy copy = pack("mixtral-a", CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT4);
	struct cad_model *model = open_model(copy.directory);
	struct kn_packing packing = packing_of(model, CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT8);

	packing.path = golden_copy_path(&copy, "again.safetensors");
	write_refused(&packing, CAD_ERR_INVALID, copy.directory, "packed already (experts in int8, the rest in int4)");
	assert_false(cad_file_exists(packing.path));
	cad_model_close(model);
	golden_copy_remove(&copy);
}

static void it_is_for_its_own_numerics(void **state)
{
	(void)state;
	struct golden_copy copy = pack("qwen3moe-b", CAD_WEIGHTS_INT8, CAD_WEIGHTS_AS_IS);
	struct cad_model *model = open_model(copy.directory);
	struct cad_error error;
	float quanta[CAD_LAYERS_MAX];
	struct kn_queue *queue;
	struct rt_weights weights;

	is_refused(kn_packed_check_experts(model, CAD_WEIGHTS_INT4, &error), &error, CAD_ERR_REFUSED,
		"packed with experts in int8", "used in int4");
	is_refused(kn_packed_check_experts(model, CAD_WEIGHTS_AS_IS, &error), &error, CAD_ERR_REFUSED,
		"packed with experts in int8", "used in f32");
	is_refused(rt_weights_init(&weights, device, model, CAD_WEIGHTS_INT8, &error), &error, CAD_ERR_REFUSED,
		"routers compute with in f32", "used in int8");
	assert_int_equal(device->ops->queue_create(device, 1, &queue), CAD_OK);
	is_refused(kn_quantum_table(queue, model, CAD_WEIGHTS_BF16, CADRE_ROW_FIX16, quanta, &error), &error,
		CAD_ERR_REFUSED, "experts in int8", "used in bf16");
	device->ops->queue_destroy(queue);
	cad_model_close(model);
	golden_copy_remove(&copy);
}

/* ---- damage ---- */

static enum cad_status open_all(const char *directory, enum cad_weights weights, struct cad_error *error)
{
	struct cad_model *model;
	struct rt_weights loaded;
	enum cad_status status = cad_model_open(directory, &model, error);

	if (status != CAD_OK)
		return status;
	status = kn_packed_check_experts(model, weights, error);
	if (status == CAD_OK)
		status = rt_weights_init(&loaded, device, model, weights, error);
	if (status == CAD_OK)
		rt_weights_fini(&loaded);
	for (uint32_t e = 0; status == CAD_OK && e < cad_model_spec(model)->gate.experts; e++)
		status = kn_packed_verify_expert(model, 1, e, error);
	cad_model_close(model);
	return status;
}

/* Texts of the header that are replaced by others of the same length. */
static const struct {
	const char *from, *to;
	enum cad_status status;
	const char *one, *two;
} header_cases[] = {
	{ "\"version\":\"1\"", "\"version\":\"2\"", CAD_ERR_UNSUPPORTED, "version '2'", "reads version 1" },
	{ "\"version\":\"1\"", "\"version\": 1 ", CAD_ERR_UNSUPPORTED, "version ''", "reads version 1" },
	{ "\"experts\":\"int8\"", "\"experts\":\"int7\"", CAD_ERR_UNSUPPORTED, "'experts'", "int7" },
	{ "\"router\":\"int8\"", "\"rooter\":\"int8\"", CAD_ERR_UNSUPPORTED, "'router'", "''" },
	{ "\"experts\":\"int8\"", "\"experts\":\"int4\"", CAD_ERR_REFUSED, "experts in int4", "used in int8" },
	{ "\"model\":\"", "\"model\":\"x", CAD_ERR_CORRUPT, "'model'", "not a checksum" },
	{ "\"config\":\"", "\"config\":\"x", CAD_ERR_CORRUPT, "'config'", "not a checksum" },
	{ "\"expert.1.3\":", "\"expert.9.3\":", CAD_ERR_CORRUPT, "'expert.1.3'", "not a checksum" },
	{ "\"part.2\":", "\"part.9\":", CAD_ERR_CORRUPT, "'part.2'", "not a checksum" },
	{ "\"tensor.model.norm.weight\":", "\"tensor.model.worm.weight\":", CAD_ERR_CORRUPT,
		"'tensor.model.norm.weight'", "not a checksum" },
	{ "cadre-packed", "cadre-pecked", CAD_ERR_CORRUPT, "lm_head.weight", "config.json calls for" },
};

static void replace(char *bytes, size_t size, const char *from, const char *to)
{
	char *at = memmem(bytes, size, from, strlen(from));
	assert_non_null(at);
	memcpy(at, to, strlen(to));
}

static void damaged_headers(void **state)
{
	(void)state;
	struct golden_copy copy = pack("qwen3moe-a", CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT8);
	struct cad_error error;
	char *bytes;
	size_t size;

	must(open_all(copy.directory, CAD_WEIGHTS_INT8, &error), &error);
	for (size_t i = 0; i < sizeof header_cases / sizeof *header_cases; i++) {
		file_of(&copy, &bytes, &size);
		char *whole = malloc(size);
		assert_non_null(whole);
		memcpy(whole, bytes, size);
		replace(bytes, size, header_cases[i].from, header_cases[i].to);
		golden_copy_write(golden_copy_path(&copy, "model.safetensors"), bytes, size);
		is_refused(open_all(copy.directory, CAD_WEIGHTS_INT8, &error), &error, header_cases[i].status,
			header_cases[i].one, header_cases[i].two);
		golden_copy_write(golden_copy_path(&copy, "model.safetensors"), whole, size);
		free(whole);
		free(bytes);
	}

	/* the file is whole, and shorter */
	file_of(&copy, &bytes, &size);
	golden_copy_write(golden_copy_path(&copy, "model.safetensors"), bytes, size - 1);
	is_refused(open_all(copy.directory, CAD_WEIGHTS_INT8, &error), &error, CAD_ERR_CORRUPT, "model.safetensors",
		"truncated");
	free(bytes);
	golden_copy_remove(&copy);
}

static void another_config(void **state)
{
	(void)state;
	struct golden_copy copy = pack("qwen3moe-b", CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT8);
	struct cad_error error;
	char *text;
	size_t size;

	assert_int_equal(cad_file_read(golden_copy_path(&copy, "config.json"), 1 << 20, &text, &size, NULL), CAD_OK);
	text[size] = '\n';
	golden_copy_write(golden_copy_path(&copy, "config.json"), text, size + 1);
	free(text);
	is_refused(open_all(copy.directory, CAD_WEIGHTS_INT8, &error), &error, CAD_ERR_CORRUPT, "config.json",
		"when the model was packed");
	golden_copy_remove(&copy);
}

/* One bit of one tensor, where the mapping of the whole file says that it is. */
static void flipped(const char *name, enum cad_role role, uint32_t expert, const char *one, const char *two)
{
	struct golden_copy copy = pack("qwen3moe-a", CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT8);
	struct cad_model *model = open_model(copy.directory);
	struct cad_tensor tensor = cad_model_tensor(model, role, 1, expert);
	struct cad_error error;
	char *bytes;
	size_t size;

	assert_string_equal(tensor.name, name);
	file_of(&copy, &bytes, &size);
	char *at = memmem(bytes, size, tensor.data, tensor.bytes);
	assert_non_null(at);
	at[tensor.bytes / 2] ^= 4;
	cad_model_close(model);
	golden_copy_write(golden_copy_path(&copy, "model.safetensors"), bytes, size);
	free(bytes);
	is_refused(open_all(copy.directory, CAD_WEIGHTS_INT8, &error), &error, CAD_ERR_CORRUPT, one, two);
	golden_copy_remove(&copy);
}

static void damaged_data(void **state)
{
	(void)state;
	static const char norm[] = "model.layers.1.input_layernorm.weight",
			  o[] = "model.layers.1.self_attn.o_proj.weight",
			  down[] = "model.layers.1.mlp.experts.3.down_proj.weight";
	flipped(norm, CAD_ROLE_ATTENTION_NORM, 0, norm, "and had");
	flipped(o, CAD_ROLE_O, 0, o, "and had");
	flipped(down, CAD_ROLE_EXPERT_DOWN, 3, "expert 3 of layer 1, 'model.layers.1.mlp.experts.3.", "and had");
}

/* Rows of another length than the type has, as those of another version might. */
static void rows_of_another_length(void **state)
{
	(void)state;
	struct golden_copy copy = pack("qwen3moe-a", CAD_WEIGHTS_INT8, CAD_WEIGHTS_AS_IS);
	struct cad_error error;
	char *bytes, has[64], wants[64];
	size_t size;

	file_of(&copy, &bytes, &size);
	replace(bytes, size, "\"experts\":\"int8\"", "\"experts\":\"int4\"");
	golden_copy_write(golden_copy_path(&copy, "model.safetensors"), bytes, size);
	free(bytes);
	struct cad_model *model = open_model(copy.directory);
	size_t hidden = cad_model_spec(model)->hidden;
	snprintf(has, sizeof has, "experts.0.gate_proj.weight' has rows of %zu bytes",
		kn_row_bytes(CAD_DTYPE_Q8, hidden));
	snprintf(wants, sizeof wants, "%zu values take %zu as q4", hidden, kn_row_bytes(CAD_DTYPE_Q4, hidden));
	is_refused(kn_packed_check_experts(model, CAD_WEIGHTS_INT4, &error), &error, CAD_ERR_CORRUPT, has, wants);
	cad_model_close(model);
	golden_copy_remove(&copy);
}

/* One for each layer, no more, no less, and none that f32 does not have. */
static void damaged_quanta(void **state)
{
	(void)state;
	static const char *const texts[] = { "", "-", "-1 -1", "-1 - x", "-1 -1 -1 ", "-1 -1 999", "- - - -",
		"-1  -1 -1" };
	struct golden_copy copy = pack("qwen3moe-a", CAD_WEIGHTS_INT8, CAD_WEIGHTS_INT8);
	float quanta[CAD_LAYERS_MAX];
	struct cad_error error;
	char *bytes;
	size_t size;

	file_of(&copy, &bytes, &size);
	char *begin = memmem(bytes, size, "\"quanta\":\"", 10), *end = begin ? strchr(begin + 10, '"') : NULL;
	assert_non_null(end);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		size_t room = (size_t)(end - begin) + 1;
		assert_true(snprintf(begin, room, "\"quanta\":\"%s\"", texts[i]) < (int)room);
		memset(begin + strlen(begin), ' ', room - strlen(begin));
		golden_copy_write(golden_copy_path(&copy, "model.safetensors"), bytes, size);
		struct cad_model *model = open_model(copy.directory);
		is_refused(cad_model_quanta_recorded(model, quanta, &error), &error, CAD_ERR_CORRUPT, "'quanta'",
			texts[i]);
		cad_model_close(model);
	}
	free(bytes);
	golden_copy_remove(&copy);
}

static int create(void **state)
{
	(void)state;
	return kn_device_open(&(struct kn_device_options){ 0 }, &device, NULL);
}

static int destroy(void **state)
{
	(void)state;
	device->ops->destroy(device);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packed_is_the_checkpoint),
		cmocka_unit_test(packing_twice_gives_the_same_bytes),
		cmocka_unit_test(nothing_is_left_of_what_ends_early),
		cmocka_unit_test(what_is_packed_is_not_packed_again),
		cmocka_unit_test(it_is_for_its_own_numerics),
		cmocka_unit_test(damaged_headers),
		cmocka_unit_test(another_config),
		cmocka_unit_test(damaged_data),
		cmocka_unit_test(rows_of_another_length),
		cmocka_unit_test(damaged_quanta),
	};
	return cmocka_run_group_tests_name("model_pack", tests, create, destroy);
}
