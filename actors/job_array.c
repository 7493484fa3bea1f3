/* SPDX-License-Identifier: ISC */
#include "actors/job_array.h"

#include <stdio.h>
#include <string.h>

#include "base/parse.h"

#define INDEX_BITS (OM_ARRAY_INDEX_MAX / 64 + 1)

/* What is taken already: an index twice would be one job twice. */
struct taken {
	uint64_t bits[INDEX_BITS];
};

static enum om_err
bad(struct om_str piece, struct om_why *why)
{
	return om_why_set(why, OM_ERR_INVALID,
			  "array: \"%.*s\" is no index from 0 to %d, 0-9 or 0-9:2",
			  OM_STR_ARG(piece), OM_ARRAY_INDEX_MAX);
}

/* "4", "0-9" or "0-9:3". */
static enum om_err
parse_range(struct om_str piece, uint64_t *first, uint64_t *last, uint64_t *step)
{
	struct om_str rest = piece, range, part;
	bool stepped;

	*step = 1;
	if (!om_str_next(&rest, ':', &range)) {
		return OM_ERR_INVALID;
	}
	stepped = om_str_next(&rest, ':', &part);
	if (stepped && (om_parse_u64(part, 1, OM_ARRAY_INDEX_MAX, step) != OM_OK ||
			om_str_next(&rest, ':', &part))) {
		return OM_ERR_INVALID;
	}
	rest = range;
	if (!om_str_next(&rest, '-', &part) ||
	    om_parse_u64(part, 0, OM_ARRAY_INDEX_MAX, first) != OM_OK) {
		return OM_ERR_INVALID;
	}
	*last = *first;
	if (!om_str_next(&rest, '-', &part)) {
		return stepped ? OM_ERR_INVALID : OM_OK;
	}
	if (om_parse_u64(part, *first, OM_ARRAY_INDEX_MAX, last) != OM_OK ||
	    om_str_next(&rest, '-', &part)) {
		return OM_ERR_INVALID;
	}
	return OM_OK;
}

static enum om_err
take_range(struct om_str piece, struct taken *taken, struct om_job_array *out, struct om_why *why)
{
	uint64_t first, last, step;

	if (parse_range(piece, &first, &last, &step) != OM_OK) {
		return bad(piece, why);
	}
	for (uint64_t i = first; i <= last; i += step) {
		uint64_t *word = &taken->bits[i / 64], bit = UINT64_C(1) << (i % 64);

		if (out->count == OM_ARRAY_JOBS_MAX) {
			return om_why_set(why, OM_ERR_INVALID,
					  "array: at most %d jobs are in one array",
					  OM_ARRAY_JOBS_MAX);
		}
		if ((*word & bit) != 0) {
			return om_why_set(why, OM_ERR_INVALID, "array: index %llu is there twice",
					  (unsigned long long)i);
		}
		*word |= bit;
		out->index[out->count++] = (uint32_t)i;
	}
	return OM_OK;
}

enum om_err
om_job_array_parse(struct om_str text, struct om_job_array *out, struct om_why *why)
{
	struct om_str rest = om_str_trim(text), indices, piece;
	struct taken taken = { { 0 } };
	enum om_err err = OM_OK;
	uint64_t limit = 0;

	out->count = out->limit = 0;
	if (!om_str_next(&rest, '%', &indices)) {
		return bad(text, why);
	}
	if (om_str_next(&rest, '%', &piece) &&
	    (om_parse_u64(piece, 1, OM_ARRAY_JOBS_MAX, &limit) != OM_OK ||
	     om_str_next(&rest, '%', &piece))) {
		return om_why_set(why, OM_ERR_INVALID,
				  "array: after %% comes how many may run at one time, 1 to %d",
				  OM_ARRAY_JOBS_MAX);
	}
	out->limit = (uint32_t)limit;
	while (err == OM_OK && om_str_next(&indices, ',', &piece)) {
		err = take_range(om_str_trim(piece), &taken, out, why);
	}
	if (err == OM_OK && out->count == 0) {
		err = bad(text, why);
	}
	return err;
}

enum om_err
om_job_array_member(struct om_str array, uint32_t index, struct om_job_id *out)
{
	if (array.len == 0 || array.len > OM_ARRAY_ID_MAX || index > OM_ARRAY_INDEX_MAX) {
		return OM_ERR_INVALID;
	}
	(void)snprintf(out->text, sizeof(out->text), "%.*s_%u", OM_STR_ARG(array), index);
	return OM_OK;
}

bool
om_job_array_split(struct om_str id, struct om_str *array, uint32_t *index)
{
	size_t at = id.len;
	struct om_str digits;
	uint64_t value;

	while (at > 0 && id.ptr[at - 1] != '_') {
		at--;
	}
	digits = (struct om_str){ id.ptr + at, id.len - at };
	if (at < 2 || (digits.len > 1 && digits.ptr[0] == '0') ||
	    om_parse_u64(digits, 0, OM_ARRAY_INDEX_MAX, &value) != OM_OK) {
		return false;
	}
	*array = (struct om_str){ id.ptr, at - 1 };
	*index = (uint32_t)value;
	return true;
}
