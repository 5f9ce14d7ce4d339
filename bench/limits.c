/* SPDX-License-Identifier: Apache-2.0 */
#include "limits.h"

#include "common/base/clock.h"
#include "kernels/cpu/tile.h"
#include "kernels/kernels.h"

#include <ctype.h>
#include <immintrin.h>
#include <stdio.h>
#include <string.h>

enum { ROUNDS = 100000, CHAINS = 12, STEP = 256 };

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

static void fma_256(void)
{
	__m256 s[CHAINS], one = _mm256_set1_ps(1.0f);
	KN_UNROLL_FOR (size_t i = 0; i < CHAINS; i++)
		s[i] = _mm256_setzero_ps();
	for (size_t n = 0; n < ROUNDS; n++)
		KN_UNROLL_FOR (size_t i = 0; i < CHAINS; i++) {
			s[i] = _mm256_fmadd_ps(one, one, s[i]);
			KEEP(s[i]);
		}
}

__attribute__((target("avx512f"))) static void fma_512(void)
{
	__m512 s[CHAINS], one = _mm512_set1_ps(1.0f);
	KN_UNROLL_FOR (size_t i = 0; i < CHAINS; i++)
		s[i] = _mm512_setzero_ps();
	for (size_t n = 0; n < ROUNDS; n++)
		KN_UNROLL_FOR (size_t i = 0; i < CHAINS; i++) {
			s[i] = _mm512_fmadd_ps(one, one, s[i]);
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
	case LIMIT_COUNT: break;
	}
}

double limit_probe(struct kn_pool *pool, enum limit limit, const uint8_t *buffer, size_t bytes)
{
	static const double flops[LIMIT_COUNT] = { 0, CHAINS * 16.0 * ROUNDS, CHAINS * 32.0 * ROUNDS };
	size_t jobs = kn_pool_threads(pool) * (limit == LIMIT_READ ? 8 : 1);
	struct probe p = { limit, buffer, bytes / jobs / STEP * STEP };
	uint64_t begin = cad_clock_now_ns(&cad_clock_system);
	kn_pool_for(pool, jobs, probe_job, &p);
	double ns = (double)(cad_clock_now_ns(&cad_clock_system) - begin);
	return (limit == LIMIT_READ ? (double)(p.slice * jobs) : flops[limit] * (double)jobs) / ns;
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
