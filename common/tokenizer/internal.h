/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a tokenizer: what its files share. Nothing outside common/tokenizer/ includes this.
 *
 * Encoding runs a text through stages: added tokens are cut out, the rest is normalized, cut into
 * pieces (pre-tokenizers), each piece becomes ids (BPE), and a template adds special tokens. The
 * stages are arrays built once when the file is parsed (nested "Sequence" components are flattened,
 * which changes nothing because they run in order). A `tok_work` is the scratch of one encoding;
 * everything else is read-only, so any number of threads may share a tokenizer.
 */
#ifndef CADRE_COMMON_TOKENIZER_INTERNAL_H
#define CADRE_COMMON_TOKENIZER_INTERNAL_H

#include "common/base/utf8.h"
#include "common/tokenizer/tokenizer.h"

#include <jansson.h>

enum {
	TOK_ID_LIMIT = 1 << 22, /* ids are below this; published vocabularies stay below 2^19 */
	TOK_STAGES_MAX = 64,    /* components of one kind, after flattening */
	TOK_DEPTH_MAX = 16,     /* Sequence in Sequence in ... */
	/* bytes of one added token: a factor in the time that finding added tokens takes */
	TOK_ADDED_BYTES_MAX = 4096,
	TOK_TEXT_BYTES_MAX = 1 << 30, /* of one text, before and after normalization */
};

/* ---- growing arrays (text.c) ---- */

/* Room for `more` items after `count`; *items and *capacity change only on success. */
CAD_MUST_USE enum cad_status cad_tok_reserve(
	void **items, size_t *capacity, size_t count, size_t more, size_t item_bytes);
CAD_MUST_USE enum cad_status cad_tok_append(struct cad_text *text, const char *bytes, size_t size);
CAD_MUST_USE enum cad_status cad_tok_push_id(struct cad_ids *ids, int32_t id);

struct tok_slice {
	const char *bytes;
	size_t size;
};

/* For "%.*s" in sentences: how much of a string to show, whole characters only. */
int cad_tok_show(struct tok_slice string);

/* ---- Unicode (unicode.c) ---- */

bool cad_tok_is_space(uint32_t character); /* White_Space */
bool cad_tok_is_mark(uint32_t character);  /* has a combining class: normal forms move it */
bool cad_tok_is_number(uint32_t character);
bool cad_tok_is_punctuation(uint32_t character);
bool cad_tok_is_word(uint32_t character); /* \w */
/* Is nothing but itself where case is ignored, alone and beside others. */
bool cad_tok_is_caseless(uint32_t character);
/* Characters that the library counts in a general category ("L", "Lu") and PCRE2 may not, as text
 * for a character class; NULL: not a known category. */
const char *cad_tok_category_additions(const char *category, size_t size);

enum tok_form { TOK_NFC, TOK_NFD, TOK_NFKC, TOK_NFKD };
/* Appends the normal form of text. Linear, also on long runs of combining marks. */
CAD_MUST_USE enum cad_status cad_tok_normal_form(
	enum tok_form form, const char *bytes, size_t size, struct cad_text *out);
CAD_MUST_USE enum cad_status cad_tok_lowercase(const char *bytes, size_t size, struct cad_text *out);

/* The printable character that represents a byte in byte-level vocabularies, and back (-1: it
 * represents none). */
uint32_t cad_tok_byte_to_character(unsigned char byte);
int cad_tok_character_to_byte(uint32_t character);
/* Appends the bytes that the characters of token represent; false, and nothing appended, if one of
 * them represents none. */
CAD_MUST_USE enum cad_status cad_tok_bytes_of(struct tok_slice token, struct cad_text *out, bool *all);

/* ---- patterns (regex.c) ---- */

/* A literal or a regular expression, as Split and Replace take them. */
struct tok_pattern {
	char *literal; /* NULL: code */
	size_t literal_size;
	void *code;     /* pcre2_code */
	bool is_native; /* compiled to machine code */
};

/* Goes through the matches of a pattern in one text, left to right, as the library's iterator
 * does. */
struct tok_matches {
	const struct tok_pattern *pattern;
	const char *text;
	size_t size, from, last_end;
	bool any;
	void *match_data, *context; /* PCRE2's */
};

/* Errors about a component do not name it; the caller adds where it is in the file. */
CAD_MUST_USE enum cad_status cad_tok_pattern_parse(
	const json_t *json, struct tok_pattern *pattern, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_tok_pattern_compile(
	const char *regex, size_t size, struct tok_pattern *pattern, struct cad_error *error);
void cad_tok_pattern_fini(struct tok_pattern *pattern);
bool cad_tok_pattern_matches_nothing(const struct tok_pattern *pattern); /* it has a match of no characters */
CAD_MUST_USE enum cad_status cad_tok_matches_init(struct tok_matches *matches, const struct tok_pattern *pattern);
void cad_tok_matches_start(struct tok_matches *matches, const char *text, size_t size);
/* CAD_OK and [*start, *end), CAD_AGAIN when there are no more, or an error. */
CAD_MUST_USE enum cad_status cad_tok_matches_next(
	struct tok_matches *matches, size_t *start, size_t *end, struct cad_error *error);
void cad_tok_matches_fini(struct tok_matches *matches);

/* ---- reading JSON (json_load.c) ---- */

/* A file of JSON. Jansson takes U+0000 in strings, and in no key; in keys of this tree another
 * character stands for it, one that the file does not have (0: there was no such key). */
struct tok_json {
	json_t *root; /* an object */
	uint32_t zero;
};
/* As Python writes it. */
CAD_MUST_USE enum cad_status cad_tok_json_load(
	const char *bytes, size_t size, struct tok_json *file, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_tok_json_open(const char *path, struct tok_json *file, struct cad_error *error);
void cad_tok_json_fini(struct tok_json *file);
/* Appends a key as it was meant. */
CAD_MUST_USE enum cad_status cad_tok_json_key(
	const struct tok_json *file, const char *key, size_t size, struct cad_text *out);

/* ---- reading components (json.c) ---- */

/* `where` names the component in sentences. A missing or null key gives the default, a wrong type
 * is CAD_ERR_CORRUPT. */
CAD_MUST_USE enum cad_status cad_tok_json_bool(
	const json_t *object, const char *key, bool fallback, bool *value, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_tok_json_string(
	const json_t *object, const char *key, struct tok_slice *value, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_tok_json_integer(
	const json_t *object, const char *key, int64_t min, int64_t max, int64_t *value, struct cad_error *error);
/* Exactly one character. */
CAD_MUST_USE enum cad_status cad_tok_json_character(
	const json_t *object, const char *key, uint32_t *value, struct cad_error *error);

/* Calls `one` for every component in `json` (null: none), including the members of Sequences, which
 * are listed under `members`. */
typedef enum cad_status tok_component(void *context, const char *type, const json_t *json, struct cad_error *error);
CAD_MUST_USE enum cad_status cad_tok_json_flatten(
	const json_t *json, const char *members, tok_component *one, void *context, struct cad_error *error);

/* ---- pieces (text.c) ---- */

/* A stretch of the text of tok_work: text still to be cut or encoded (id < 0), or an added token.
 * origin: how many of its first bytes come from the very first character of the input (what
 * Metaspace's "first" asks). */
struct tok_piece {
	uint32_t start, size, origin;
	int32_t id;
};

struct tok_pieces {
	struct tok_piece *items;
	size_t count, capacity;
};

/* Appends unless it is an empty text. */
CAD_MUST_USE enum cad_status cad_tok_pieces_push(struct tok_pieces *pieces, struct tok_piece piece);

/* One symbol sequence while it is merged, and the arrays of one encoding. */
struct tok_symbols {
	uint32_t *ids, *offsets; /* symbol, and where its text starts within the piece */
	size_t count, ids_capacity, offsets_capacity;
	size_t unknown_offset; /* of the character that CAD_ERR_INVALID is about */
	uint32_t *prev, *next, *ranks, *merged;
	size_t links_capacity;
	uint64_t *heap;
	size_t heap_count, heap_capacity;
};

struct tok_work {
	const char *text; /* what pieces point into: the caller's text or one of `buffers` */
	struct tok_pieces pieces, spare;
	struct cad_text buffers[2];
	struct tok_symbols symbols;
	size_t ids_max;    /* of the whole encoding */
	size_t pieces_max; /* with more pieces than this there will be more ids than that */
};

/* ---- one encoding (tokenizer.c) ---- */

/* CAD_ERR_RANGE and the sentence for a text of more than ids_max tokens. */
CAD_MUST_USE enum cad_status cad_tok_too_long(size_t ids_max, struct cad_error *error);

/* ---- normalizers (normalize.c) ---- */

enum tok_normalizer_kind {
	TOK_NORMAL_FORM,
	TOK_NORMAL_LOWERCASE,
	TOK_NORMAL_PREPEND,
	TOK_NORMAL_REPLACE,
	TOK_NORMAL_STRIP,
	TOK_NORMAL_BYTE_LEVEL
};

struct tok_normalizer {
	enum tok_normalizer_kind kind;
	enum tok_form form;
	struct tok_pattern pattern;
	char *content;
	size_t content_size;
	bool left, right;
};

struct tok_normalizers {
	struct tok_normalizer items[TOK_STAGES_MAX];
	size_t count;
};

CAD_MUST_USE enum cad_status cad_tok_normalizers_parse(
	const json_t *json, struct tok_normalizers *normalizers, struct cad_error *error);
void cad_tok_normalizers_fini(struct tok_normalizers *normalizers);
/* Appends the normalized text to out; *origin goes in and out as in tok_piece. */
CAD_MUST_USE enum cad_status cad_tok_normalize(const struct tok_normalizers *normalizers, const char *bytes,
	size_t size, struct cad_text *out, size_t *origin, struct cad_error *error);

/* ---- pre-tokenizers (split.c) ---- */

enum tok_behavior { TOK_ISOLATED, TOK_REMOVED, TOK_MERGED_WITH_PREVIOUS, TOK_MERGED_WITH_NEXT, TOK_CONTIGUOUS };
enum tok_prepend { TOK_PREPEND_ALWAYS, TOK_PREPEND_FIRST, TOK_PREPEND_NEVER };
enum tok_splitter_kind {
	TOK_SPLIT_PATTERN,
	TOK_SPLIT_BYTE_LEVEL,
	TOK_SPLIT_METASPACE,
	TOK_SPLIT_CHARACTERS,
	TOK_SPLIT_WORDS
};

struct tok_splitter {
	enum tok_splitter_kind kind;
	enum tok_behavior behavior;
	bool invert;
	struct tok_pattern pattern; /* Split, and the words of ByteLevel */
	bool has_pattern, add_prefix_space;
	bool (*is_match)(uint32_t character); /* Digits, Punctuation, WhitespaceSplit */
	enum tok_prepend prepend;
	bool split;
	char replacement[4];
	size_t replacement_size;
};

struct tok_splitters {
	struct tok_splitter items[TOK_STAGES_MAX];
	size_t count;
	/* the last one is ByteLevel, and BPE takes the bytes themselves: nothing is mapped to
	 * characters */
	bool keep_bytes;
};

CAD_MUST_USE enum cad_status cad_tok_splitters_parse(
	const json_t *json, struct tok_splitters *splitters, struct cad_error *error);
void cad_tok_splitters_fini(struct tok_splitters *splitters);
bool cad_tok_splitters_end_in_bytes(const struct tok_splitters *splitters);
CAD_MUST_USE enum cad_status cad_tok_split(
	const struct tok_splitters *splitters, struct tok_work *work, struct cad_error *error);

/* ---- vocabulary and BPE (vocab.c, model.c, bpe.c) ---- */

/* String to id. Strings are stored in an arena. */
struct tok_map {
	struct cad_text arena;
	struct {
		uint64_t offset;
		uint32_t size;
		int32_t id;
	} * slots; /* id < 0: free */
	size_t count, slot_count;
};
CAD_MUST_USE enum cad_status cad_tok_map_init(struct tok_map *map, size_t count_max);
void cad_tok_map_fini(struct tok_map *map);
int32_t cad_tok_map_get(const struct tok_map *map, const char *bytes, size_t size); /* -1: not there */
/* The map has room for the count it was made for. An existing entry keeps its place and takes the
 * new id. */
CAD_MUST_USE enum cad_status cad_tok_map_put(struct tok_map *map, const char *bytes, size_t size, int32_t id);

/* Id to string. */
struct tok_names {
	struct cad_text arena;
	struct {
		uint64_t offset;
		int64_t size;
	} * items;      /* size < 0: no such token */
	uint32_t count; /* one above the largest id */
};
void cad_tok_names_fini(struct tok_names *names);
CAD_MUST_USE enum cad_status cad_tok_names_grow(struct tok_names *names, uint32_t count);
CAD_MUST_USE enum cad_status cad_tok_names_put(struct tok_names *names, int32_t id, const char *bytes, size_t size);
bool cad_tok_names_get(const struct tok_names *names, int32_t id, struct tok_slice *name);

#define TOK_NO_PAIR UINT64_MAX
size_t cad_tok_hash_pair(uint64_t pair);
size_t cad_tok_slots_for(size_t count); /* a power of two, at least twice as many */

struct tok_merge {
	uint64_t pair; /* left << 32 | right; TOK_NO_PAIR in a free slot */
	uint32_t rank, id;
};

struct tok_bpe {
	struct tok_merge *merges; /* open addressing */
	size_t merge_slots;
	/* pairs of first symbols between which some merge may happen; open addressing */
	uint64_t *crossings;
	size_t crossing_slots;
	bool crosses_anywhere; /* crossings are not known */
	struct {
		uint32_t character;
		int32_t id;
	} * characters; /* open addressing; id < 0: free */
	size_t character_slots;
	int32_t byte_fallback[256]; /* id of <0xHH>, -1 */
	int32_t byte_symbol[256];   /* of the character that represents a byte */
	struct tok_map whole;       /* pieces that are one token as a whole */
	int32_t unknown;            /* -1: none */
	/* "unk_token", where the vocabulary does not have it: a text that needs it is refused */
	struct cad_text unknown_missing;
	bool has_byte_fallback, fuse_unknown;
	bool ignore_merges; /* a piece that is a token becomes that token, whatever merges would give */
	bool bytes;         /* pieces are bytes, each of which is a symbol */
	/* no id covers more than this many bytes of a piece; 0: one may, or a piece may become no
	 * id at all */
	size_t id_bytes_max;
};

CAD_MUST_USE enum cad_status cad_tok_bpe_parse(const struct tok_json *file, bool bytes_wanted, struct tok_bpe *bpe,
	struct tok_map *vocab, struct tok_names *names, struct cad_error *error);
void cad_tok_bpe_fini(struct tok_bpe *bpe);
/* Appends the ids of one piece, or of its beginning, once there are more than ids_max.
 * CAD_ERR_INVALID: it has a character that would need the unknown token that is missing. */
CAD_MUST_USE enum cad_status cad_tok_bpe_encode(const struct tok_bpe *bpe, const char *piece, size_t size,
	struct tok_symbols *symbols, size_t ids_max, struct cad_ids *ids);
void cad_tok_symbols_fini(struct tok_symbols *symbols);

/* ---- added tokens (added.c, added_read.c) ---- */

struct tok_added_token {
	int32_t id;
	bool single_word, left, right;
};

/* A trie over bytes. */
struct tok_trie {
	struct tok_trie_node {
		int32_t child, sibling, token;
		unsigned char byte;
	} * nodes;
	size_t count, capacity;
	int32_t first[256]; /* child of the root by byte, -1 */
};

struct tok_added {
	struct tok_added_token *tokens;
	size_t count;
	struct tok_trie plain, normalized; /* matched before and after normalization */
	bool *is_special;                  /* by id: left out of a decoding that skips special tokens */
};

void cad_tok_trie_init(struct tok_trie *trie);
/* *first: the token that is entered for these bytes, which may have been so before. */
CAD_MUST_USE enum cad_status cad_tok_trie_insert(
	struct tok_trie *trie, const char *bytes, size_t size, int32_t token, int32_t *first);
/* `beside`: more of them, in the same form, whose ids need not be said (beside.c). */
CAD_MUST_USE enum cad_status cad_tok_added_parse(const json_t *json, const json_t *beside,
	const struct tok_normalizers *normalizers, const struct tok_map *vocab, struct tok_added *added,
	struct tok_names *names, struct cad_error *error);
void cad_tok_added_fini(struct tok_added *added);
/* Cuts bytes [start, start + size) of text, where `origin` is as in tok_piece, into added tokens
 * and the text between them. */
CAD_MUST_USE enum cad_status cad_tok_added_cut(const struct tok_added *added, const struct tok_trie *trie,
	const char *text, size_t start, size_t size, size_t origin, struct tok_pieces *pieces);

/* ---- files beside tokenizer.json (beside.c) ---- */

/* path: of tokenizer.json, and `own` its "added_tokens". *tokens: NULL, or a list in the same form, a
 * new reference. A file of another name has none beside it. */
CAD_MUST_USE enum cad_status cad_tok_beside_read(
	const char *path, const json_t *own, json_t **tokens, struct cad_error *error);

/* ---- template (template.c) ---- */

struct tok_template {
	struct cad_ids before, after;
};
CAD_MUST_USE enum cad_status cad_tok_template_parse(
	const json_t *json, struct tok_template *template, struct cad_error *error);
void cad_tok_template_fini(struct tok_template *template);

/* ---- decoders (decode.c) ---- */

enum tok_decoder_kind {
	TOK_DECODE_BYTE_LEVEL,
	TOK_DECODE_BYTE_FALLBACK,
	TOK_DECODE_FUSE,
	TOK_DECODE_STRIP,
	TOK_DECODE_REPLACE,
	TOK_DECODE_METASPACE,
	TOK_DECODE_SPACES
};

struct tok_decoder_stage {
	enum tok_decoder_kind kind;
	bool fused; /* what arrives is one string in parts, not tokens */
	struct tok_pattern pattern;
	char *content;
	size_t content_size;
	char character[4];
	size_t character_size;
	size_t start, stop;
	bool drop_first; /* Metaspace: the replacement vanishes in the first token */
};

struct tok_decoders {
	struct tok_decoder_stage items[TOK_STAGES_MAX];
	size_t count;
};
CAD_MUST_USE enum cad_status cad_tok_decoders_parse(
	const json_t *json, struct tok_decoders *decoders, struct cad_error *error);
void cad_tok_decoders_fini(struct tok_decoders *decoders);

struct cad_tokenizer {
	struct tok_normalizers normalizers;
	struct tok_splitters splitters;
	struct tok_bpe bpe;
	struct tok_added added;
	struct tok_template template;
	struct tok_decoders decoders;
	struct tok_names names;
	uint32_t padded_size; /* ids from names.count up to here have no token */
};

#endif
