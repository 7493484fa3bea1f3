/* SPDX-License-Identifier: ISC */
#include "store/id_filter.h"
#include <stdalign.h>
#include <string.h>
#include <xxhash.h>
#include "base/huge.h"

#define FILTER_LINES  (UINT32_C(1) << 15) /* a power of two */
#define FILTER_HASHES 4

/* A cache line; an id's bits are in one. */
struct filter_line {
	alignas(64) uint64_t word[8];
};

struct om_id_filter {
	struct filter_line line[FILTER_LINES];
};

struct om_id_filter *
om_id_filter_new(void)
{
	return om_huge_new(sizeof(struct om_id_filter));
}

void
om_id_filter_free(struct om_id_filter *filter)
{
	om_huge_free(filter, sizeof(*filter));
}

static size_t
filter_line(uint64_t hash)
{
	return hash & (FILTER_LINES - 1);
}

/* The bit of hash number i, in the line; of bits of the hash that nothing else is made of. */
static unsigned
filter_bit(uint64_t hash, unsigned i)
{
	return (unsigned)(hash >> (16 + 9 * i)) & 511;
}

uint64_t
om_id_filter_hash(const struct om_id_filter *filter, const char *id)
{
	const uint64_t hash = XXH3_64bits(id, strlen(id));

	__builtin_prefetch(&filter->line[filter_line(hash)]);
	return hash;
}

void
om_id_filter_add(struct om_id_filter *filter, uint64_t hash)
{
	struct filter_line *line = &filter->line[filter_line(hash)];

	for (unsigned i = 0; i < FILTER_HASHES; i++) {
		const unsigned bit = filter_bit(hash, i);

		line->word[bit / 64] |= UINT64_C(1) << (bit % 64);
	}
}

bool
om_id_filter_may_have(const struct om_id_filter *filter, uint64_t hash)
{
	const struct filter_line *line = &filter->line[filter_line(hash)];
	bool may = true;

	for (unsigned i = 0; may && i < FILTER_HASHES; i++) {
		const unsigned bit = filter_bit(hash, i);

		may = (line->word[bit / 64] >> (bit % 64) & 1) != 0;
	}
	return may;
}

void
om_id_filter_add_all(struct om_id_filter *filter)
{
	memset(filter->line, 0xff, sizeof(filter->line));
}

void
om_id_filter_clear(struct om_id_filter *filter)
{
	memset(filter->line, 0, sizeof(filter->line));
}
