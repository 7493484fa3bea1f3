/* SPDX-License-Identifier: ISC */
/*
 * Envelope and body decoder on any bytes.  What is accepted must encode and decode to the same.
 *
 * The mutator now and then starts from a fresh valid message made from the schema's table, so each
 * message type is reached without a corpus, and a new one on the day its line is written.
 */
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "msg/codec.h"
#include "msg/envelope.h"
#include "tests/unit/msg_gen.h"

#define ARENA_MAX (16u * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size); /* libFuzzer's */

static struct om_arena arena = { .max = ARENA_MAX };

static bool
decode(struct om_bin bytes, struct om_envelope *env, void **body)
{
	struct om_why why;
	enum om_body_type type;

	om_arena_reset(&arena);
	if (om_envelope_decode(bytes, env, &why) != OM_OK) {
		OM_ASSERT(strnlen(why.text, sizeof(why.text)) < sizeof(why.text));
		return false;
	}
	type = om_msg_info(env->type)->body;
	*body = om_arena_alloc(&arena, om_body_info(type)->size);
	OM_ASSERT(*body != NULL);
	if (om_body_decode(type, env->body, *body, &arena, &why) != OM_OK) {
		OM_ASSERT(why.text[0] != '\0');
		return false;
	}
	return true;
}

static void
encode(const struct om_envelope *env, const void *body, struct om_buf *out)
{
	OM_ASSERT(om_envelope_encode(env->type, env->id, env->deadline_ms, body, out) == OM_OK);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct om_buf first = { .max = 0 };
	struct om_buf second = { .max = 0 };
	struct om_envelope env;
	void *body;

	if (decode((struct om_bin){ data, size }, &env, &body)) {
		encode(&env, body, &first);
		OM_ASSERT(decode((struct om_bin){ first.data, first.len }, &env, &body));
		encode(&env, body, &second);
		OM_ASSERT(first.len == second.len);
		OM_ASSERT(memcmp(first.data, second.data, first.len) == 0);
	}
	om_buf_fini(&first);
	om_buf_fini(&second);
	return 0;
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	struct gen gen = { .seed = seed, .arena = &arena, .full = seed & 1 };
	struct om_buf out = { .max = 0 };
	enum om_msg_type type;
	void *body;

	if (gen_next(&gen) % 16 != 0) {
		return LLVMFuzzerMutate(data, size, max_size);
	}
	om_arena_reset(&arena);
	type = (enum om_msg_type)(1 + gen_next(&gen) % (OM_MSG_COUNT - 1));
	body = gen_alloc(&gen, om_body_info(om_msg_info(type)->body)->size);
	gen_body(&gen, om_msg_info(type)->body, body);
	OM_ASSERT(om_envelope_encode(type, gen_next(&gen), 0, body, &out) == OM_OK);
	if (out.len <= max_size) {
		memcpy(data, out.data, out.len);
		size = out.len;
	}
	om_buf_fini(&out);
	return LLVMFuzzerMutate(data, size, max_size);
}
