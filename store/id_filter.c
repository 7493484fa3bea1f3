/* SPDX-License-Identifier: ISC */
#include "store/id_filter.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FILTER_BITS   (UINT32_C(1) << 24) /* a power of two */
#define FILTER_HASHES 4

struct om_id_filter {
	uint64_t word[FILTER_BITS / 64];
};

struct om_id_filter *
om_id_filter_new(void)
{
	return calloc(1, sizeof(struct om_id_filter));
}

void
om_id_filter_free(struct om_id_filter *filter)
{
	free(filter);
}

/* The bit of hash number i. */
static uint32_t
filter_bit(uint64_t hash, unsigned i)
{
	return ((uint32_t)hash + i * ((uint32_t)(hash >> 32) | 1)) & (FILTER_BITS - 1);
}

void
om_id_filter_add(struct om_id_filter *filter, const char *id)
{
	const uint64_t hash = XXH3_64bits(id, strlen(id));

	for (unsigned i = 0; i < FILTER_HASHES; i++) {
		const uint32_t bit = filter_bit(hash, i);

		filter->word[bit / 64] |= UINT64_C(1) << (bit % 64);
	}
}

bool
om_id_filter_may_have(const struct om_id_filter *filter, const char *id)
{
	const uint64_t hash = XXH3_64bits(id, strlen(id));
	bool may = true;

	for (unsigned i = 0; may && i < FILTER_HASHES; i++) {
		const uint32_t bit = filter_bit(hash, i);

		may = (filter->word[bit / 64] >> (bit % 64) & 1) != 0;
	}
	return may;
}

void
om_id_filter_add_all(struct om_id_filter *filter)
{
	memset(filter->word, 0xff, sizeof(filter->word));
}

void
om_id_filter_clear(struct om_id_filter *filter)
{
	memset(filter->word, 0, sizeof(filter->word));
}
