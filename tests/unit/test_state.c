/* SPDX-License-Identifier: Apache-2.0 */
/* The state file: what it keeps, whom it refuses, and that a process which is killed inside any
 * write leaves a whole transaction behind, or none. */
#include "common/base/clock.h"
#include "orchestration/placement/state.h"
#include "tests/support/must.h"

#include <glob.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT_BYTES = 32768 };

/* ---- a file of its own for each test ---- */

static int setup(void **state)
{
	/* in memory where there is such a folder: every commit waits for the disk */
	char *path = strdup(access("/dev/shm", W_OK) == 0 ? "/dev/shm/cadre-state-XXXXXX" : "/tmp/cadre-state-XXXXXX");
	int fd = path ? mkstemp(path) : -1;

	if (fd < 0) {
		free(path);
		return -1;
	}
	close(fd);
	unlink(path);
	*state = path;
	return 0;
}

static void remove_files(const char *path)
{
	char pattern[128];
	glob_t found;
	snprintf(pattern, sizeof pattern, "%s*", path);
	if (glob(pattern, 0, NULL, &found) != 0)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		unlink(found.gl_pathv[i]);
	globfree(&found);
}

static int teardown(void **state)
{
	remove_files(*state);
	free(*state);
	return 0;
}

static struct pl_state *open_state(const char *path)
{
	struct pl_state *state;
	struct cad_error error;
	must(pl_state_open(path, &state, &error), &error);
	return state;
}

static struct pl_node node_named(const char *id, enum pl_role role)
{
	struct pl_node node = {
		.presence = PL_LIVE,
		.role = role,
		.memory_bytes = 1ull << 40,
		.pid = 42,
		.exchange_address = "127.0.0.1:7400",
		.kernels_fingerprint = "abc",
	};
	snprintf(node.id, sizeof node.id, "%s", id);
	return node;
}

/* What is in a file, as text: "a expert 1099511627776 abc; a 1/2; ". */
static void text_node(void *context, const struct pl_hello *hello)
{
	char *text = context;
	size_t used = strlen(text);
	snprintf(text + used, TEXT_BYTES - used, "%s %s %llu %s; ", hello->id,
		hello->role == PL_ROLE_EXPERT ? "expert" : "router", (unsigned long long)hello->memory_bytes,
		hello->kernels_fingerprint);
}

static void text_held(void *context, const char *id, uint32_t layer, uint32_t expert)
{
	char *text = context;
	size_t used = strlen(text);
	snprintf(text + used, TEXT_BYTES - used, "%s %u/%u; ", id, layer, expert);
}

static void read_text(struct pl_state *state, char text[TEXT_BYTES])
{
	const struct pl_state_reader reader = { text_node, text_held, text };
	struct cad_error error;
	text[0] = 0;
	must(pl_state_read(state, &reader, &error), &error);
}

/* ---- what it keeps ---- */

static void remembers_over_a_restart(void **state)
{
	struct pl_state *file = open_state(*state);
	struct cad_error error;
	char text[TEXT_BYTES], kernels[PL_TEXT_BYTES];
	struct pl_node a = node_named("a", PL_ROLE_EXPERT), r = node_named("r", PL_ROLE_ROUTER);

	assert_int_equal(pl_state_epoch(file), 0);
	pl_state_kernels(file, kernels);
	assert_string_equal(kernels, "");
	pl_state_begin(file);
	pl_state_put_node(file, &r);
	pl_state_put_node(file, &a);
	pl_state_put_held(file, "a", 1, 2, true);
	pl_state_put_held(file, "a", 1, 2, true);
	pl_state_put_held(file, "a", 0, 7, true);
	pl_state_put_held(file, "a", 0, 6, true);
	pl_state_put_held(file, "a", 0, 6, false);
	pl_state_put_epoch(file, 12);
	pl_state_put_kernels(file, "avx2-1");
	must(pl_state_commit(file, &error), &error);
	pl_state_close(file);

	file = open_state(*state);
	read_text(file, text);
	assert_string_equal(text, "a expert 1099511627776 abc; r router 1099511627776 abc; a 0/7; a 1/2; ");
	assert_int_equal(pl_state_epoch(file), 12);
	pl_state_kernels(file, kernels);
	assert_string_equal(kernels, "avx2-1");
	pl_state_begin(file);
	pl_state_delete_node(file, "a");
	must(pl_state_commit(file, &error), &error);
	read_text(file, text);
	assert_string_equal(text, "r router 1099511627776 abc; ");
	pl_state_close(file);
}

static void quanta_and_checksums_are_kept_by_key(void **state)
{
	struct pl_state *file = open_state(*state);
	struct cad_error error;
	const float quanta[] = { 0, 0.5f, 0.25f };
	float back[3];
	char hex[33];

	assert_int_equal(pl_state_quanta_load(file, "k", back, 3), CAD_ERR_NOT_FOUND);
	must(pl_state_quanta_store(file, "k", quanta, 3, &error), &error);
	assert_int_equal(pl_state_quanta_load(file, "k", back, 3), CAD_OK);
	assert_memory_equal(quanta, back, sizeof quanta);
	assert_int_equal(pl_state_quanta_load(file, "k", back, 2), CAD_ERR_NOT_FOUND);
	assert_int_equal(pl_state_quanta_load(file, "other", back, 3), CAD_ERR_NOT_FOUND);
	assert_int_equal(pl_state_checksum(file, 1, 2, hex), CAD_ERR_NOT_FOUND);
	pl_state_begin(file);
	pl_state_put_checksum(file, 1, 2, "0123456789abcdef0123456789abcdef");
	must(pl_state_commit(file, &error), &error);
	assert_int_equal(pl_state_checksum(file, 1, 2, hex), CAD_OK);
	assert_string_equal(hex, "0123456789abcdef0123456789abcdef");
	pl_state_close(file);
}

/* Checksums of experts are those of certain files; with others they are forgotten, and nothing else
 * is. */
static void checksums_belong_to_their_files(void **state)
{
	static const char known[] = "0123456789abcdef0123456789abcdef";
	struct pl_state *file = open_state(*state);
	struct cad_error error;
	struct pl_node a = node_named("a", PL_ROLE_EXPERT);
	char hex[33], text[TEXT_BYTES];

	assert_int_equal(pl_state_router_checksum(file, hex), CAD_ERR_NOT_FOUND);
	pl_state_begin(file); /* as before the files were known */
	pl_state_put_checksum(file, 1, 2, known);
	pl_state_put_router_checksum(file, known);
	pl_state_put_node(file, &a);
	pl_state_put_held(file, "a", 1, 2, true);
	must(pl_state_commit(file, &error), &error);
	for (int i = 0; i < 2; i++) {
		assert_true(pl_state_has_files(file, "files-1"));
		must(pl_state_put_files(file, "files-1", &error), &error);
		pl_state_close(file);
		file = open_state(*state);
	}
	assert_int_equal(pl_state_checksum(file, 1, 2, hex), CAD_OK);

	assert_false(pl_state_has_files(file, "files-2"));
	must(pl_state_put_files(file, "files-2", &error), &error);
	assert_int_equal(pl_state_checksum(file, 1, 2, hex), CAD_ERR_NOT_FOUND);
	assert_int_equal(pl_state_router_checksum(file, hex), CAD_OK);
	assert_string_equal(hex, known);
	read_text(file, text);
	assert_string_equal(text, "a expert 1099511627776 abc; a 1/2; ");
	pl_state_close(file);
	file = open_state(*state);
	assert_string_equal(pl_state_loss(file), "");
	assert_true(pl_state_has_files(file, "files-2"));
	pl_state_close(file);
}

static void belongs_to_one_cluster_and_checkpoint(void **state)
{
	struct pl_state *file = open_state(*state);
	struct cad_error error;
	bool fresh;

	must(pl_state_claim(file, "c", "m1", &error), &error);
	must(pl_state_claim(file, "c", "m1", &error), &error);
	assert_int_equal(pl_state_claim(file, "d", "m1", &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "belongs to cluster 'c', this is cluster 'd'"));
	assert_int_equal(pl_state_claim(file, "c", "m2", &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "fingerprint m1, --model has m2"));

	/* other settings: what nodes hold does not count any more */
	struct pl_node a = node_named("a", PL_ROLE_EXPERT);
	char text[TEXT_BYTES];
	must(pl_state_settings(file, "s1", &fresh, &error), &error);
	assert_true(fresh);
	pl_state_begin(file);
	pl_state_put_node(file, &a);
	pl_state_put_held(file, "a", 0, 0, true);
	must(pl_state_commit(file, &error), &error);
	must(pl_state_settings(file, "s1", &fresh, &error), &error);
	assert_false(fresh);
	must(pl_state_settings(file, "s2", &fresh, &error), &error);
	assert_true(fresh);
	read_text(file, text);
	assert_string_equal(text, "");
	pl_state_close(file);
}

static void failed_change_undoes_its_transaction(void **state)
{
	struct pl_state *file = open_state(*state);
	struct cad_error error;

	pl_state_begin(file);
	pl_state_put_epoch(file, 5);
	pl_state_put_held(file, "nobody", 0, 0, true); /* of no node */
	assert_int_equal(pl_state_commit(file, &error), CAD_ERR_IO);
	assert_int_equal(pl_state_epoch(file), 0);
	pl_state_begin(file);
	pl_state_put_epoch(file, 6);
	must(pl_state_commit(file, &error), &error);
	assert_int_equal(pl_state_epoch(file), 6);
	pl_state_close(file);
}

static void second_service_is_refused(void **state)
{
	struct pl_state *file = open_state(*state), *other;
	struct cad_error error;
	assert_int_equal(pl_state_open(*state, &other, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "does another cadre-placement run with it?"));
	pl_state_close(file);
}

static void other_files_are_refused(void **state)
{
	struct pl_state *opened;
	struct cad_error error;
	struct stat before, after;
	sqlite3 *database;

	assert_int_equal(pl_state_open("/nonexistent/state.db", &opened, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "/nonexistent/state.db"));
	assert_int_equal(pl_state_open("/tmp", &opened, &error), CAD_ERR_IO);

	/* a database, but of another program; one of our tables may be in it */
	assert_int_equal(sqlite3_open(*state, &database), SQLITE_OK);
	assert_int_equal(sqlite3_exec(database, "CREATE TABLE meta (key, value); CREATE TABLE bookmarks (url)", NULL,
				 NULL, NULL),
		SQLITE_OK);
	sqlite3_close(database);
	assert_int_equal(stat(*state, &before), 0);
	assert_int_equal(pl_state_open(*state, &opened, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "is a database of another program"));
	assert_int_equal(stat(*state, &after), 0);
	assert_int_equal(after.st_ino, before.st_ino);
	assert_int_equal(after.st_size, before.st_size);
	assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
}

static void newer_formats_are_refused_and_left_alone(void **state)
{
	struct pl_state *file = open_state(*state);
	struct cad_error error;
	struct stat before, after;
	sqlite3 *database;

	pl_state_close(file);
	assert_int_equal(sqlite3_open(*state, &database), SQLITE_OK);
	assert_int_equal(sqlite3_exec(database,
				 "UPDATE meta SET value = 'cadre-placement-state-99' WHERE key = 'format';"
				 "INSERT INTO nodes VALUES ('what / is ? this', 7, 1, 2, 3, 4, 5, 6, 7)",
				 NULL, NULL, NULL),
		SQLITE_OK);
	sqlite3_close(database);
	assert_int_equal(stat(*state, &before), 0);
	assert_int_equal(pl_state_open(*state, &file, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "has the format 'cadre-placement-state-99'"));
	assert_int_equal(stat(*state, &after), 0);
	assert_int_equal(after.st_ino, before.st_ino);
	assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
}

/* ---- damage ---- */

enum { IMAGE_BYTES = 1 << 20 };
struct image {
	size_t size;
	unsigned char bytes[IMAGE_BYTES];
};

static void image_read(const char *path, struct image *image)
{
	FILE *file = fopen(path, "rb");
	assert_non_null(file);
	image->size = fread(image->bytes, 1, IMAGE_BYTES, file);
	assert_true(image->size < IMAGE_BYTES);
	fclose(file);
}

static void image_write(const char *path, const struct image *image)
{
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(image->bytes, 1, image->size, file), image->size);
	assert_int_equal(fclose(file), 0);
}

/* A state of several pages: 3 nodes, what they hold, checksums and quanta. */
static void make_full(const char *path)
{
	struct pl_state *file = open_state(path);
	struct cad_error error;
	bool fresh;
	float quanta[64];

	must(pl_state_claim(file, "c", "m1", &error), &error);
	must(pl_state_settings(file, "s1", &fresh, &error), &error);
	for (int i = 0; i < 64; i++)
		quanta[i] = (float)(i + 1);
	must(pl_state_quanta_store(file, "k", quanta, 64, &error), &error);
	pl_state_begin(file);
	for (unsigned n = 0; n < 3; n++) {
		char id[8], hex[33];
		snprintf(id, sizeof id, "n%u", n);
		struct pl_node node = node_named(id, PL_ROLE_EXPERT);
		pl_state_put_node(file, &node);
		for (unsigned cell = 0; cell < 200; cell++) {
			pl_state_put_held(file, id, n, cell, true);
			snprintf(hex, sizeof hex, "%08x%08x%08x%08x", n, cell, cell * 2654435761u, n ^ cell);
			pl_state_put_checksum(file, n, cell, hex);
		}
	}
	pl_state_put_epoch(file, 12);
	pl_state_put_kernels(file, "k1");
	must(pl_state_commit(file, &error), &error);
	pl_state_close(file);
}

/* Everything that make_full put there is in it. */
static bool is_full(struct pl_state *file)
{
	static char text[TEXT_BYTES], wanted[TEXT_BYTES];
	float quanta[64];
	char kernels[PL_TEXT_BYTES];
	struct cad_error error;
	size_t used = 0;
	bool full = pl_state_epoch(file) == 12 && pl_state_quanta_load(file, "k", quanta, 64) == CAD_OK;

	for (int i = 0; full && i < 64; i++)
		full = quanta[i] == (float)(i + 1);
	pl_state_kernels(file, kernels);
	full = full && strcmp(kernels, "k1") == 0 && pl_state_claim(file, "c", "m1", &error) == CAD_OK;
	for (unsigned n = 0; full && n < 3; n++)
		for (unsigned cell = 0; full && cell < 200; cell++) {
			char hex[33], expected[33];
			snprintf(expected, sizeof expected, "%08x%08x%08x%08x", n, cell, cell * 2654435761u, n ^ cell);
			full = pl_state_checksum(file, n, cell, hex) == CAD_OK && strcmp(hex, expected) == 0;
		}

	const struct pl_state_reader reader = { text_node, text_held, text };
	text[0] = 0;
	must(pl_state_read(file, &reader, &error), &error);
	for (unsigned n = 0; n < 3; n++)
		used += (size_t)snprintf(wanted + used, sizeof wanted - used, "n%u expert 1099511627776 abc; ", n);
	for (unsigned n = 0; n < 3; n++)
		for (unsigned cell = 0; cell < 200; cell++)
			used += (size_t)snprintf(wanted + used, sizeof wanted - used, "n%u %u/%u; ", n, n, cell);
	return full && strcmp(text, wanted) == 0;
}

/* The name in "...; it is now 'NAME'". */
static void name_aside(const struct pl_state *file, char name[256])
{
	const char *at = strstr(pl_state_loss(file), "it is now '");
	assert_non_null(at);
	snprintf(name, 256, "%s", at + strlen("it is now '"));
	assert_int_equal(name[strlen(name) - 1], '\'');
	name[strlen(name) - 1] = 0;
}

/* A damaged file has another name, byte for byte, and there is a new one. */
static void assert_is_set_aside(const char *path, const struct image *damaged, const char *why)
{
	static struct image aside;
	struct pl_state *file = open_state(path);
	char name[256], text[TEXT_BYTES];

	if (!strstr(pl_state_loss(file), why))
		fail_msg("of %zu bytes: '%s' does not say '%s'", damaged->size, pl_state_loss(file), why);
	name_aside(file, name);
	assert_int_equal(strncmp(name, path, strlen(path)), 0);
	image_read(name, &aside);
	assert_int_equal(aside.size, damaged->size);
	assert_memory_equal(aside.bytes, damaged->bytes, damaged->size);
	assert_int_equal(unlink(name), 0);

	read_text(file, text);
	assert_string_equal(text, "");
	assert_int_equal(pl_state_epoch(file), 0);
	pl_state_close(file);
	file = open_state(path);
	assert_string_equal(pl_state_loss(file), "");
	pl_state_close(file);
	remove_files(path);
}

static void damaged_files_are_set_aside(void **state)
{
	static struct image good, bad;
	struct cad_random random = { 7 };
	make_full(*state);
	image_read(*state, &good);
	print_message("%zu bytes\n", good.size);
	assert_true(good.size > 10 * 4096);

	for (size_t size = 1; size < good.size; size += size < 100 ? 11 : 4096 - 7) {
		bad = good;
		bad.size = size;
		image_write(*state, &bad);
		assert_is_set_aside(*state, &bad, "is damaged");
	}

	bad.size = 0;
	image_write(*state, &bad);
	assert_is_set_aside(*state, &bad, "it is empty");

	static const char *const tables[] = { "meta", "quanta", "checksums", "held" };
	for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
		char sql[64];
		sqlite3 *database;
		image_write(*state, &good);
		snprintf(sql, sizeof sql, "DROP TABLE %s", tables[i]);
		assert_int_equal(sqlite3_open(*state, &database), SQLITE_OK);
		assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
		sqlite3_close(database);
		image_read(*state, &bad);
		assert_is_set_aside(*state, &bad, "a table is missing");
	}

	bad.size = good.size;
	for (size_t i = 0; i < bad.size; i++)
		bad.bytes[i] = (unsigned char)cad_random_below(&random, 256);
	image_write(*state, &bad);
	assert_is_set_aside(*state, &bad, "is damaged");

	static const char sentence[] = "this is no database. ";
	for (size_t i = 0; i < bad.size; i++)
		bad.bytes[i] = (unsigned char)sentence[i % (sizeof sentence - 1)];
	image_write(*state, &bad);
	assert_is_set_aside(*state, &bad, "file is not a database");

	bad = good;
	memcpy(bad.bytes, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16);
	image_write(*state, &bad);
	assert_is_set_aside(*state, &bad, "file is not a database");
}

/* Either it is noticed, or nothing is lost: for every byte of the header, and every half of a page
 * that is of another time or file. */
static unsigned torn(const char *path, const struct image *good, const struct image *bad)
{
	struct pl_state *file;
	struct cad_error error;
	char name[256];

	image_write(path, bad);
	enum cad_status status = pl_state_open(path, &file, &error);
	if (status != CAD_OK)
		fail_msg("%s", error.text);
	bool noticed = pl_state_loss(file)[0] != 0;
	if (noticed) {
		name_aside(file, name);
		assert_int_equal(unlink(name), 0);
	} else if (!is_full(file)) {
		for (size_t i = 0; i < good->size; i++)
			if (good->bytes[i] != bad->bytes[i])
				print_message(
					"a loss at byte %zu of page %zu is not noticed\n", i % 4096, i / 4096 + 1),
					i = good->size;
		pl_state_close(file);
		remove_files(path);
		return 1000000;
	}
	pl_state_close(file);
	remove_files(path);

	return noticed;
}

static void torn_pages_are_noticed(void **state)
{
	static struct image good, bad;
	struct cad_random random = { 11 };
	unsigned noticed = 0, tried = 0;
	make_full(*state);
	image_read(*state, &good);
	remove_files(*state);

	for (size_t at = 0; at < 100; at++) {
		bad = good;
		bad.bytes[at] ^= 0xff;
		noticed += torn(*state, &good, &bad);
		tried++;
	}
	for (size_t half = 0; half < good.size; half += 2048)
		for (int kind = 0; kind < 4; kind++) {
			bad = good;
			for (size_t i = half; i < half + 2048; i++)
				bad.bytes[i] = (unsigned char)(kind == 0 ? 0
						: kind == 1              ? cad_random_below(&random, 256)
						: kind == 2              ? good.bytes[(i + 4096) % good.size]
									 : good.bytes[(i + 8 * 4096) % good.size]);
			noticed += torn(*state, &good, &bad);
			tried++;
		}
	print_message("%u of %u noticed\n", noticed, tried);
	assert_true(noticed > tried / 2 && noticed <= tried);
}

static void memory_needs_no_file(void **state)
{
	(void)state;
	struct pl_state *a = open_state(""), *b = open_state("");
	struct cad_error error;
	pl_state_begin(a);
	pl_state_put_epoch(a, 3);
	must(pl_state_commit(a, &error), &error);
	assert_int_equal(pl_state_epoch(a), 3);
	assert_int_equal(pl_state_epoch(b), 0);
	pl_state_close(a);
	pl_state_close(b);
}

/* ---- kill points ---- */

/* A file system that ends the process inside its n-th write, with half of it done. */

static int writes_left;

struct torn_file {
	sqlite3_file base;
	sqlite3_file *real; /* right behind */
};

static bool last_write(void) { return --writes_left == 0; }

static sqlite3_file *real(sqlite3_file *file) { return ((struct torn_file *)file)->real; }
static int torn_close(sqlite3_file *file) { return real(file)->pMethods->xClose(real(file)); }
static int torn_read(sqlite3_file *file, void *to, int bytes, sqlite3_int64 at)
{
	return real(file)->pMethods->xRead(real(file), to, bytes, at);
}
static int torn_write(sqlite3_file *file, const void *from, int bytes, sqlite3_int64 at)
{
	bool last = last_write();
	int code = real(file)->pMethods->xWrite(real(file), from, last ? bytes / 2 : bytes, at);
	if (last)
		_exit(9);
	return code;
}
static int torn_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
	if (last_write())
		_exit(9);
	return real(file)->pMethods->xTruncate(real(file), bytes);
}
static int torn_sync(sqlite3_file *file, int flags)
{
	if (last_write())
		_exit(9);
	/* the process dies here, not the machine: the page cache stays, and the test stays quick */
	(void)file, (void)flags;
	return SQLITE_OK;
}
static int torn_size(sqlite3_file *file, sqlite3_int64 *bytes)
{
	return real(file)->pMethods->xFileSize(real(file), bytes);
}
static int torn_lock(sqlite3_file *file, int level) { return real(file)->pMethods->xLock(real(file), level); }
static int torn_unlock(sqlite3_file *file, int level) { return real(file)->pMethods->xUnlock(real(file), level); }
static int torn_check(sqlite3_file *file, int *out)
{
	return real(file)->pMethods->xCheckReservedLock(real(file), out);
}
static int torn_control(sqlite3_file *file, int op, void *argument)
{
	return real(file)->pMethods->xFileControl(real(file), op, argument);
}
static int torn_sector(sqlite3_file *file) { return real(file)->pMethods->xSectorSize(real(file)); }
static int torn_traits(sqlite3_file *file) { return real(file)->pMethods->xDeviceCharacteristics(real(file)); }

static const sqlite3_io_methods torn_methods = { 1, torn_close, torn_read, torn_write, torn_truncate, torn_sync,
	torn_size, torn_lock, torn_unlock, torn_check, torn_control, torn_sector, torn_traits, NULL, NULL, NULL, NULL,
	NULL, NULL };

static int torn_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
	sqlite3_vfs *below = vfs->pAppData;
	struct torn_file *torn = (struct torn_file *)file;
	torn->real = (sqlite3_file *)(torn + 1);
	int code = below->xOpen(below, name, torn->real, flags, out);
	torn->base.pMethods = torn->real->pMethods ? &torn_methods : NULL;
	return code;
}

static int torn_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	sqlite3_vfs *below = vfs->pAppData;
	if (last_write())
		_exit(9);
	return below->xDelete(below, name, sync);
}

/* Step n: n nodes, node i holds experts 0 .. n - 1 of layer i; epoch n. From step to step almost
 * everything changes. */
static void expected_text(unsigned step, char text[TEXT_BYTES])
{
	size_t used = 0;
	text[0] = 0;
	for (unsigned i = 0; i < step; i++)
		used += (size_t)snprintf(text + used, TEXT_BYTES - used, "n%u expert 1099511627776 abc; ", i);
	for (unsigned i = 0; i < step; i++)
		for (unsigned e = 0; e < step; e++)
			used += (size_t)snprintf(text + used, TEXT_BYTES - used, "n%u %u/%u; ", i, i, e);
}

enum { STEPS = 5 };

/* The child's life: open, and one transaction per step; each that was acknowledged is told through
 * the pipe. */
static void live_and_die(const char *path, int pipe_fd)
{
	sqlite3_vfs *below = sqlite3_vfs_find(NULL);
	sqlite3_vfs torn = *below;

	torn.zName = "torn";
	torn.pAppData = below;
	torn.szOsFile = (int)sizeof(struct torn_file) + below->szOsFile;
	torn.xOpen = torn_open;
	torn.xDelete = torn_delete;
	sqlite3_vfs_register(&torn, 1);
	struct pl_state *state;
	struct cad_error error;
	if (pl_state_open(path, &state, &error) != CAD_OK)
		_exit(3);
	for (unsigned step = 1; step <= STEPS; step++) {
		char id[8];
		pl_state_begin(state);
		for (unsigned i = 0; i < step; i++) {
			snprintf(id, sizeof id, "n%u", i);
			struct pl_node node = node_named(id, PL_ROLE_EXPERT);
			pl_state_delete_node(state, id);
			pl_state_put_node(state, &node);
			for (unsigned e = 0; e < step; e++)
				pl_state_put_held(state, id, i, e, true);
		}
		pl_state_put_epoch(state, step);
		if (pl_state_commit(state, &error) != CAD_OK)
			_exit(3);
		if (write(pipe_fd, "x", 1) != 1)
			_exit(3);
	}

	pl_state_close(state);
	_exit(0);
}

static void killed_in_any_write_it_is_before_or_after(void **state)
{
	const char *path = *state;
	unsigned kills = 0;

	for (int writes = 1;; writes++) {
		int ends[2];
		remove_files(path);
		assert_int_equal(pipe(ends), 0);
		pid_t child = fork();
		if (child == 0) {
			writes_left = writes;
			live_and_die(path, ends[1]);
		}
		close(ends[1]);
		char acknowledged[STEPS + 1];
		unsigned count = 0;
		for (ssize_t got; (got = read(ends[0], acknowledged, sizeof acknowledged)) > 0;)
			count += (unsigned)got;
		close(ends[0]);
		int status;
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status));
		if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 9)
			fail_msg("the child failed at write %d", writes);
		struct pl_state *after = open_state(path);
		char text[TEXT_BYTES], expected[TEXT_BYTES];
		uint64_t epoch = pl_state_epoch(after);
		assert_in_range(epoch, count, count + 1);
		read_text(after, text);
		expected_text((unsigned)epoch, expected);
		assert_string_equal(text, expected);
		pl_state_close(after);
		if (WEXITSTATUS(status) == 0) {
			assert_int_equal(epoch, STEPS);
			break;
		}
		kills++;
	}

	print_message("killed at %u writes\n", kills);
	assert_true(kills > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(remembers_over_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(quanta_and_checksums_are_kept_by_key, setup, teardown),
		cmocka_unit_test_setup_teardown(checksums_belong_to_their_files, setup, teardown),
		cmocka_unit_test_setup_teardown(belongs_to_one_cluster_and_checkpoint, setup, teardown),
		cmocka_unit_test_setup_teardown(failed_change_undoes_its_transaction, setup, teardown),
		cmocka_unit_test_setup_teardown(second_service_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(other_files_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(newer_formats_are_refused_and_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_files_are_set_aside, setup, teardown),
		cmocka_unit_test_setup_teardown(torn_pages_are_noticed, setup, teardown),
		cmocka_unit_test(memory_needs_no_file),
		cmocka_unit_test_setup_teardown(killed_in_any_write_it_is_before_or_after, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
