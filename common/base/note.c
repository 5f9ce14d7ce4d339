/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/note.h"

#include "common/base/utf8.h"

#include <sched.h>
#include <string.h>

enum { LOOKS_MAX = 1000 };

void cad_note_put(struct cad_note *note, const char *text)
{
	uint64_t words[CAD_NOTE_WORDS] = { 0 };
	memcpy(words, text, cad_utf8_whole(text, strnlen(text, CAD_NOTE_BYTES - 1)));

	atomic_fetch_add(&note->version, 1);
	for (int i = 0; i < CAD_NOTE_WORDS; i++)
		atomic_store(&note->words[i], words[i]);
	atomic_fetch_add(&note->version, 1);
}

void cad_note_get(const struct cad_note *note, char text[CAD_NOTE_BYTES])
{
	uint64_t words[CAD_NOTE_WORDS];

	for (int look = 0; look < LOOKS_MAX; look++) {
		uint32_t before = atomic_load(&note->version);
		for (int i = 0; i < CAD_NOTE_WORDS; i++)
			words[i] = atomic_load(&note->words[i]);
		if (before % 2 == 0 && atomic_load(&note->version) == before) {
			memcpy(text, words, CAD_NOTE_BYTES);
			return;
		}
		sched_yield();
	}
	text[0] = 0;
}
