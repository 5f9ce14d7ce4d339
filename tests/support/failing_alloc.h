/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocations that fail on demand: a test runs a piece of code again and again, each time with the
 * next allocation failing, until it runs clean.
 *
 * Linking this file replaces malloc and its family in the test program (and in the libraries
 * that it uses). The order to fail belongs to the thread that gave it. Under a sanitizer, which has
 * an allocator of its own, nothing is replaced and `test_allocations_can_fail` says so.
 */
#ifndef CADRE_TESTS_SUPPORT_FAILING_ALLOC_H
#define CADRE_TESTS_SUPPORT_FAILING_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

bool test_allocations_can_fail(void);
/* The allocation after `n` good ones fails, and only that one. */
void test_fail_allocation(long n);
/* Takes the order back; true when an allocation did fail. */
bool test_fail_allocation_end(void);
/* While paused, allocations neither fail nor count. */
void test_fail_allocation_pause(bool paused);
/* Blocks that are allocated and not freed, of all threads. */
long test_allocations_live(void);
/* How often the calling thread has asked the heap for memory or given it some back; 0 under a
 * sanitizer. */
unsigned long test_heap_calls(void);
/* Bytes that were asked for since the program began, of all threads: a measure of work. 0 under a
 * sanitizer. */
size_t test_allocated_bytes(void);

#endif
