/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sentence that one thread leaves for others: why something is not as it should be, for whoever
 * asks (/readyz). A new one takes the place of the one before.
 *
 * Embedded by its owner; zeroed, it is empty. One thread puts, and never waits, so the step's may;
 * any thread gets, and looks again while one is being put. Nothing allocates.
 */
#ifndef CADRE_COMMON_BASE_NOTE_H
#define CADRE_COMMON_BASE_NOTE_H

#include <stdatomic.h>
#include <stdint.h>

enum { CAD_NOTE_BYTES = 256, CAD_NOTE_WORDS = CAD_NOTE_BYTES / 8 };

struct cad_note {
	_Atomic uint32_t version; /* odd: it is being put */
	_Atomic uint64_t words[CAD_NOTE_WORDS];
};

/* Cut on a UTF-8 border if it is longer. */
void cad_note_put(struct cad_note *note, const char *text);
/* A whole one, terminated; empty if a reader met nothing but changes. */
void cad_note_get(const struct cad_note *note, char text[CAD_NOTE_BYTES]);

#endif
