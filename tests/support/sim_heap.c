/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/sim_heap.h"

#include <stdbool.h>
#include <stdlib.h>

static bool earlier(const struct happens *a, const struct happens *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

enum cad_status sim_heap_put(struct sim_heap *heap, struct happens happens)
{
	if (heap->count == heap->capacity) {
		size_t capacity = heap->capacity ? 2 * heap->capacity : 256;
		struct happens *items = realloc(heap->items, capacity * sizeof *items);
		if (!items)
			return CAD_ERR_MEMORY;
		heap->items = items;
		heap->capacity = capacity;
	}

	size_t at = heap->count++;
	for (; at > 0 && earlier(&happens, &heap->items[(at - 1) / 2]); at = (at - 1) / 2)
		heap->items[at] = heap->items[(at - 1) / 2];
	heap->items[at] = happens;

	return CAD_OK;
}

struct happens sim_heap_take(struct sim_heap *heap)
{
	struct happens first = heap->items[0], last = heap->items[--heap->count];
	size_t at = 0;

	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= heap->count)
			break;
		if (child + 1 < heap->count && earlier(&heap->items[child + 1], &heap->items[child]))
			child++;
		if (!earlier(&heap->items[child], &last))
			break;
		heap->items[at] = heap->items[child];
		at = child;
	}

	heap->items[at] = last;
	return first;
}
