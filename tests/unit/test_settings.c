/* SPDX-License-Identifier: Apache-2.0 */
/* Settings and their fingerprint; the process's signals and secret. */
#include "cadre/v1/types.pb-c.h"
#include "common/process/process.h"
#include "common/cluster/settings_message.h"
#include "tests/support/must.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

static float quanta[3] = { 0, 0x1p-14f, 0x1p-13f };
static const struct cad_settings plain = { .wire = CADRE_ROW_FIX16, .layers = 3, .quanta = quanta };

static void fingerprint_sees_everything(void **state)
{
	(void)state;
	struct cad_settings base, other;
	struct cad_error error;
	char hex[33], text[CADRE_TEXT_BYTES];
	must(cad_settings_init(&base, &plain, &error), &error);
	cad_settings_fingerprint(&base, hex);

	/* part of the protocol: programs of one version agree on it */
	assert_string_equal(hex, "be44c6ff02927abc24418217d20f6a35");
	cad_settings_text(&base, text);
	assert_int_equal(strncmp(text, "profile=f32 router=f32 wire=fix16 weights=f32 kv=f32 quanta=3:", 62), 0);

	for (int change = 0; change < 11; change++) {
		char changed[33];
		must(cad_settings_init(&other, &base, &error), &error);
		if (change == 0)
			other.wire = CADRE_ROW_F32;
		else if (change == 1)
			other.weights = CAD_WEIGHTS_BF16;
		else if (change == 2)
			other.quanta[2] = 0x1p-15f;
		else if (change == 3)
			other.layers = 2;
		else if (change == 4)
			other.kv = CAD_KV_BF16;
		else if (change == 5)
			other.profile = CAD_PROFILE_INT8;
		else if (change == 6)
			other.router_profile = CAD_PROFILE_INT8;
		else if (change == 8)
			other.profile = CAD_PROFILE_BF16;
		else if (change == 9)
			other.router_profile = CAD_PROFILE_BF16;
		else if (change == 10)
			other.profile = CAD_PROFILE_BF16_SM90;
		cad_settings_fingerprint(&other, changed);
		assert_int_equal(strcmp(hex, changed) == 0, change == 7);
		cad_settings_fini(&other);
	}

	cad_settings_fini(&base);
}

static void what_is_left_open_follows_the_profile(void **state)
{
	(void)state;
	static const struct {
		enum cad_profile profile, router;
		enum cadre_row_type wire;
		enum cad_weights weights, experts, routers;
	} good[] = {
		{ CAD_PROFILE_F32, CAD_PROFILE_F32, CADRE_ROW_FIX16, CAD_WEIGHTS_BF16, CAD_WEIGHTS_BF16,
			CAD_WEIGHTS_BF16 },
		{ CAD_PROFILE_INT8, CAD_PROFILE_INT8, CADRE_ROW_Q8, CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_INT8,
			CAD_WEIGHTS_INT8 },
		{ CAD_PROFILE_INT4, CAD_PROFILE_F32, CADRE_ROW_Q8, CAD_WEIGHTS_BF16, CAD_WEIGHTS_INT4,
			CAD_WEIGHTS_BF16 },
		{ CAD_PROFILE_F32, CAD_PROFILE_INT8, CADRE_ROW_FIX16, CAD_WEIGHTS_BF16, CAD_WEIGHTS_BF16,
			CAD_WEIGHTS_INT8 },
		{ CAD_PROFILE_BF16, CAD_PROFILE_BF16, CADRE_ROW_BF16, CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_BF16_ROWS,
			CAD_WEIGHTS_BF16_ROWS },
		{ CAD_PROFILE_BF16, CAD_PROFILE_INT8, CADRE_ROW_BF16, CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_BF16_ROWS,
			CAD_WEIGHTS_INT8 },
		{ CAD_PROFILE_INT4, CAD_PROFILE_BF16, CADRE_ROW_Q8, CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_INT4,
			CAD_WEIGHTS_BF16_ROWS },
		{ CAD_PROFILE_BF16_SM90, CAD_PROFILE_F32, CADRE_ROW_BF16, CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_BF16_SM90,
			CAD_WEIGHTS_AS_IS },
	};
	struct cad_error error;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		struct cad_settings s = { .profile = good[i].profile, .weights = good[i].weights };
		s.router_profile = good[i].router == good[i].profile ? CAD_PROFILE_SAME : good[i].router;
		must(cad_settings_complete(&s, &error), &error);
		assert_int_equal(s.router_profile, good[i].router);
		assert_int_equal(s.wire, good[i].wire);
		assert_int_equal(cad_settings_expert_weights(&s), good[i].experts);
		assert_int_equal(cad_settings_router_weights(&s), good[i].routers);
	}

	static const struct {
		struct cad_settings settings;
		const char *words[2];
	} bad[] = {
		{ { .profile = CAD_PROFILE_INT8, .wire = CADRE_ROW_FIX16 }, { "--wire fix16", "--numerics int8" } },
		{ { .wire = CADRE_ROW_Q8 }, { "--wire q8", "--numerics f32" } },
		{ { .profile = CAD_PROFILE_BF16, .wire = CADRE_ROW_F32 }, { "--wire f32", "bf16 alone" } },
		{ { .profile = CAD_PROFILE_BF16, .wire = CADRE_ROW_Q8 }, { "--wire q8", "--numerics bf16" } },
		{ { .profile = CAD_PROFILE_BF16_SM90, .wire = CADRE_ROW_FIX16 }, { "--wire fix16", "bf16-sm90" } },
		{ { .profile = CAD_PROFILE_BF16, .router_profile = CAD_PROFILE_SAME, .weights = CAD_WEIGHTS_BF16 },
			{ "--weights bf16", "--router-numerics bf16" } },
		{ { .profile = CAD_PROFILE_INT4, .router_profile = CAD_PROFILE_SAME, .weights = CAD_WEIGHTS_BF16 },
			{ "--weights bf16", "--router-numerics int4" } },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct cad_settings s = bad[i].settings;
		assert_int_equal(cad_settings_complete(&s, &error), CAD_ERR_INVALID);
		assert_non_null(strstr(error.text, bad[i].words[0]));
		assert_non_null(strstr(error.text, bad[i].words[1]));
		s.layers = 3, s.quanta = quanta;
		assert_int_equal(cad_settings_init(&(struct cad_settings){ 0 }, &s, &error), CAD_ERR_INVALID);
	}
}

/* Routers compute on CPUs, which the other order of bf16 is faster on. */
static void routers_of_sm90_compute_in_bf16(void **state)
{
	(void)state;
	struct cad_settings s = { .profile = CAD_PROFILE_BF16_SM90, .router_profile = CAD_PROFILE_SAME };
	enum cad_profile profile;
	struct cad_error error;
	must(cad_settings_complete(&s, &error), &error);
	assert_int_equal(s.router_profile, CAD_PROFILE_BF16);
	assert_int_equal(cad_settings_router_weights(&s), CAD_WEIGHTS_BF16_ROWS);
	assert_int_equal(cad_profile_parse("bf16-sm90", &profile), CAD_OK);
	assert_int_equal(profile, CAD_PROFILE_BF16_SM90);
	for (const struct cad_choice *c = cad_router_profile_choices; c->name; c++)
		assert_string_not_equal(c->name, "bf16-sm90");
}

static void only_powers_of_two(void **state)
{
	(void)state;
	static float bad[] = { 3, -0.5f, INFINITY, NAN, 0x1p-140f };
	struct cad_settings settings, from = plain;
	struct cad_error error;
	from.layers = 1;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		from.quanta = &bad[i];
		assert_int_equal(cad_settings_init(&settings, &from, &error), CAD_ERR_INVALID);
		assert_non_null(strstr(error.text, "layer 0"));
	}

	from.layers = 0;
	assert_int_equal(cad_settings_init(&settings, &from, &error), CAD_ERR_INVALID);
}

static void through_the_message(void **state)
{
	(void)state;
	struct cad_settings settings, back;
	struct cad_settings_storage storage;
	Cadre__V1__Settings message;
	struct cad_error error;
	must(cad_settings_init(&settings,
		     &(struct cad_settings){
			     .profile = CAD_PROFILE_INT8,
			     .weights = CAD_WEIGHTS_BF16,
			     .kv = CAD_KV_BF16,
			     .layers = 3,
			     .quanta = quanta,
		     },
		     &error),
		&error);
	cad_settings_to_proto(&settings, &storage, &message);
	uint8_t packed[256];
	assert_true(cadre__v1__settings__get_packed_size(&message) <= sizeof packed);
	size_t bytes = cadre__v1__settings__pack(&message, packed);
	Cadre__V1__Settings *unpacked = cadre__v1__settings__unpack(NULL, bytes, packed);
	assert_non_null(unpacked);
	must(cad_settings_from_proto(unpacked, &back, &error), &error);
	char hex[33], back_hex[33];
	cad_settings_fingerprint(&settings, hex);
	cad_settings_fingerprint(&back, back_hex);
	assert_string_equal(back_hex, hex);
	cad_settings_fini(&back);

	unpacked->quanta[1] *= 2;
	assert_int_equal(cad_settings_from_proto(unpacked, &back, &error), CAD_ERR_CORRUPT);
	unpacked->quanta[1] = 3;
	assert_int_equal(cad_settings_from_proto(unpacked, &back, &error), CAD_ERR_INVALID);
	static char odd[] = "fp8";
	Cadre__V1__Settings wrong = message;
	wrong.wire = odd;
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "'fp8'"));
	wrong = message;
	wrong.profile = odd;
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_INVALID);
	wrong = message;
	wrong.weights = odd;
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_INVALID);
	wrong = message;
	wrong.router_profile = odd;
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_INVALID);
	wrong = message;
	wrong.wire = (char *)"auto";
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_INVALID);
	wrong = message;
	wrong.wire = (char *)"fix16"; /* int8 has only one */
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_INVALID);
	wrong = message;
	wrong.kv = odd;
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "keys and values as 'fp8'"));
	wrong = message;
	wrong.exchange_version = 0; /* of release 0.2.0, which does not say it */
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "version 1 of the token exchange"));
	wrong.exchange_version = CADRE_WIRE_VERSION + 1;
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_UNSUPPORTED);
	wrong = message;
	wrong.n_quanta = 100000;
	assert_int_equal(cad_settings_from_proto(&wrong, &back, &error), CAD_ERR_INVALID);
	cadre__v1__settings__free_unpacked(unpacked, NULL);
	cad_settings_fini(&settings);
}

static void identity_is_padded_and_cut(void **state)
{
	(void)state;
	struct cad_settings settings;
	struct cadre_wire_identity identity;
	char longest[200];
	memset(longest, 'n', sizeof longest);
	longest[199] = 0;
	memset(&identity, 0xff, sizeof identity);
	assert_int_equal(cad_settings_init(&settings, &plain, NULL), CAD_OK);
	cad_identity_fill(&identity, "c", longest, "0123456789abcdef0123456789abcdef", &settings);
	assert_string_equal(identity.cluster, "c");
	assert_int_equal(identity.cluster[CADRE_NAME_BYTES - 1], 0);
	assert_int_equal(strlen(identity.node), CADRE_NAME_BYTES - 1);
	assert_int_equal(strlen(identity.settings), 32);
	cad_settings_fini(&settings);
}

static void secret(void **state)
{
	(void)state;
	char path[] = "/tmp/cadre-secret-XXXXXX", *text = NULL;
	struct cad_error error;
	assert_int_equal(cad_secret_read("/nowhere/secret", "cluster secret", &text, &error), CAD_ERR_IO);
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "0123456789abcde\n", 16), 16);
	assert_int_equal(cad_secret_read(path, "cluster secret", &text, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "at least 16"));
	assert_int_equal(pwrite(fd, "0123456789abcdef \n\n", 19, 0), 19);
	must(cad_secret_read(path, "cluster secret", &text, &error), &error);
	assert_string_equal(text, "0123456789abcdef");
	free(text);
	assert_int_equal(ftruncate(fd, 5000), 0); /* NULs, and too long */
	assert_int_equal(cad_secret_read(path, "cluster secret", &text, &error), CAD_ERR_INVALID);
	assert_int_equal(ftruncate(fd, 40), 0);
	assert_int_equal(cad_secret_read(path, "cluster secret", &text, &error), CAD_ERR_INVALID);
	close(fd);
	unlink(path);
}

static void on_signal(void *context, int number)
{
	struct cad_signals **signals = context;
	assert_int_equal(number, SIGTERM);
	cad_signals_close(*signals);
	*signals = NULL;
}

/* Under AddressSanitizer and ThreadSanitizer, malloc is theirs. */
static void large_blocks_go_back(void **state)
{
	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip();
#else
	enum { BYTES = 4 << 20 };
	struct cad_error error;
	must(cad_process_init(&error), &error);
	for (int i = 0; i < 4; i++) {
		size_t before = mallinfo2().hblkhd;
		char *volatile block = malloc(BYTES);
		assert_true(mallinfo2().hblkhd >= before + BYTES); /* a mapping of its own */
		free(block);
		assert_int_equal(mallinfo2().hblkhd, before);
	}
#endif
}

static void signals_come_as_events(void **state)
{
	(void)state;
	struct cad_error error;
	struct cad_signals *signals;
	uv_loop_t loop;
	must(cad_process_init(&error), &error);
	assert_int_equal(uv_loop_init(&loop), 0);
	must(cad_signals_create(&loop, on_signal, &signals, &signals, &error), &error);
	assert_int_equal(kill(getpid(), SIGTERM), 0);
	assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
	assert_null(signals);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_false(cad_signals_pending());
	assert_int_equal(kill(getpid(), SIGINT), 0);
	assert_true(cad_signals_pending());

	sigset_t interrupt;
	int number;
	assert_int_equal(sigemptyset(&interrupt) + sigaddset(&interrupt, SIGINT), 0);
	assert_int_equal(sigwait(&interrupt, &number), 0);
	assert_int_equal(number, SIGINT);
	assert_false(cad_signals_pending());
	char name[CADRE_NAME_BYTES];
	cad_process_name(name, sizeof name);
	assert_true(strlen(name) > 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fingerprint_sees_everything),
		cmocka_unit_test(what_is_left_open_follows_the_profile),
		cmocka_unit_test(routers_of_sm90_compute_in_bf16),
		cmocka_unit_test(only_powers_of_two),
		cmocka_unit_test(through_the_message),
		cmocka_unit_test(identity_is_padded_and_cut),
		cmocka_unit_test(secret),
		cmocka_unit_test(large_blocks_go_back),
		cmocka_unit_test(signals_come_as_events),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
