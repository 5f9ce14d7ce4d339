/* SPDX-License-Identifier: Apache-2.0 */
#include "limits.h"

#include "common/base/clock.h"
#include "kernels/cpu/tile.h"
#include "kernels/kernels.h"

#include <cpuid.h>
#include <ctype.h>
#include <immintrin.h>
#include <stdio.h>
#include <string.h>

enum { ROUNDS = 1000000, CHAINS = 12, STEP = 256, WINDOWS = 6 };

struct probe {
	enum limit limit;
	const uint8_t *buffer;
	size_t slice;
};

/* Keeps the compiler from removing or merging a chain. */
#define KEEP(v) __asm__ volatile("" : "+v"(v))

static void read_slice(const uint8_t *p, size_t bytes)
{
	__m256i s[8];
	KN_UNROLL_FOR (size_t v = 0; v < 8; v++)
		s[v] = _mm256_setzero_si256();
	for (size_t i = 0; i < bytes; i += STEP)
		KN_UNROLL_FOR (size_t v = 0; v < 8; v++) {
			if (v % 2 == 0)
				_mm_prefetch((const char *)p + i + v * 32 + KN_FETCH_BYTES, _MM_HINT_T0);
			s[v] = _mm256_xor_si256(s[v], _mm256_load_si256((const __m256i *)(p + i + v * 32)));
		}
	KN_UNROLL_FOR (size_t v = 0; v < 8; v++)
		KEEP(s[v]);
}

/* A probe of arithmetic: CHAINS independent chains of one operation, many times over. */
#define CHAINS_PROBE(name, target_text, type, zero, one, operation) \
	__attribute__((target(target_text))) static void name(void) \
	{ \
		type s[CHAINS], ones = one; \
		KN_UNROLL_FOR (size_t i = 0; i < CHAINS; i++) \
			s[i] = zero; \
		for (size_t n = 0; n < ROUNDS; n++) \
			KN_UNROLL_FOR (size_t i = 0; i < CHAINS; i++) { \
				s[i] = operation; \
				KEEP(s[i]); \
			} \
	}

CHAINS_PROBE(fma_256, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_set1_ps(1.0f), _mm256_fmadd_ps(ones, ones, s[i]))
CHAINS_PROBE(fma_512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_set1_ps(1.0f), _mm512_fmadd_ps(ones, ones, s[i]))
CHAINS_PROBE(vnni_256, "avxvnni", __m256i, _mm256_setzero_si256(), _mm256_set1_epi8(1),
	_mm256_dpbusd_avx_epi32(s[i], ones, ones))
CHAINS_PROBE(vnni_512, "avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_set1_epi8(1),
	_mm512_dpbusd_epi32(s[i], ones, ones))

/* Here the products too must not be computed once for all rounds. */
static void int8_256(void)
{
	__m256i s[CHAINS], ones = _mm256_set1_epi8(1), pairs = _mm256_set1_epi16(1);
	KN_UNROLL_FOR (size_t i = 0; i < CHAINS; i++)
		s[i] = _mm256_setzero_si256();
	for (size_t n = 0; n < ROUNDS; n++)
		KN_UNROLL_FOR (size_t i = 0; i < CHAINS; i++) {
			__m256i products = _mm256_maddubs_epi16(ones, ones);
			KEEP(products);
			s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(products, pairs));
			KEEP(s[i]);
		}
}

static void probe_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct probe *p = context;
	switch (p->limit) {
	case LIMIT_READ: read_slice(p->buffer + job * p->slice, p->slice); break;
	case LIMIT_FMA_256: fma_256(); break;
	case LIMIT_FMA_512: fma_512(); break;
	case LIMIT_INT8_256: int8_256(); break;
	case LIMIT_VNNI_256: vnni_256(); break;
	case LIMIT_VNNI_512: vnni_512(); break;
	case LIMIT_COUNT: break;
	}
}

/* clang 14 does not know the name "avxvnni". */
static bool has_avx_vnni(void)
{
	unsigned a, b, c, d;
	return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1 << 4);
}

bool limit_exists(enum limit limit)
{
	switch (limit) {
	case LIMIT_FMA_512: return __builtin_cpu_supports("avx512f");
	case LIMIT_VNNI_256: return has_avx_vnni();
	case LIMIT_VNNI_512: return __builtin_cpu_supports("avx512vnni");
	default: return limit < LIMIT_COUNT;
	}
}

enum limit limit_of_form(const char *form, bool integers)
{
	bool wide = strcmp(form, "avx512") == 0 || strcmp(form, "amx") == 0;
	if (!integers)
		return wide ? LIMIT_FMA_512 : LIMIT_FMA_256;
	enum limit limit = wide ? LIMIT_VNNI_512 : strcmp(form, "avxvnni") == 0 ? LIMIT_VNNI_256 : LIMIT_INT8_256;
	return limit_exists(limit) ? limit : LIMIT_INT8_256;
}

/* A thread that sleeps needs some 50 us to wake up, and a neighbour may take a core for longer: the
 * first window wakes, and the best of the others counts. */
double limit_probe(struct kn_pool *pool, enum limit limit, const uint8_t *buffer, size_t bytes)
{
	static const double operations[LIMIT_COUNT] = { 0, 16, 32, 64, 64, 128 };
	size_t jobs = kn_pool_threads(pool) * (limit == LIMIT_READ ? 8 : 1);
	struct probe p = { limit, buffer, bytes / jobs / STEP * STEP };
	double work = (double)jobs * (limit == LIMIT_READ ? (double)p.slice : operations[limit] * CHAINS * ROUNDS),
	       best = 0;

	for (int window = 0; window < WINDOWS; window++) {
		uint64_t begin = cad_clock_now_ns(&cad_clock_system);
		kn_pool_for(pool, jobs, probe_job, &p);
		double rate = work / (double)(cad_clock_now_ns(&cad_clock_system) - begin);
		if (window > 0 && rate > best)
			best = rate;
	}

	return best;
}

const char *limit_machine(char name[64])
{
	char line[256], model[256] = "unknown";
	FILE *file = fopen("/proc/cpuinfo", "r");

	while (file && fgets(line, sizeof line, file))
		if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
			snprintf(model, sizeof model, "%s", strchr(line, ':') + 1);
			break;
		}
	if (file)
		fclose(file);
	size_t at = 0;
	for (const char *p = model; *p && at < 48; p++) {
		if (*p == '(') { /* (R), (TM) */
			p = strchr(p, ')') ? strchr(p, ')') : p;
			continue;
		}
		bool keep = isalnum((unsigned char)*p) || *p == '.';
		if (keep)
			name[at++] = (char)tolower((unsigned char)*p);
		else if (at > 0 && name[at - 1] != '-')
			name[at++] = '-';
	}

	snprintf(name + at, 64 - at, "%s%u", at > 0 && name[at - 1] == '-' ? "" : "-", kn_threads_default());
	return name;
}
