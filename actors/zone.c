/* SPDX-License-Identifier: ISC */
/*
 * A TZif file: moments at which the offset changed, and behind the last of them a rule in the words of
 * POSIX's TZ ("CET-1CEST,M3.5.0,M10.5.0/3").  Everything is checked against the bytes that are there.
 */
#include "actors/zone.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ZONE_DIR    "/usr/share/zoneinfo"
#define FILE_MAX    (64 * 1024)
#define HEADER      44
#define DAY_S       86400
#define CHANGES_MAX 4096 /* the longest has some 250 */
#define OFFSET_MAX  (26 * 3600)

/* When summer time begins or ends: the day, and seconds of that day on the wall. */
struct change_day {
	char kind; /* 'M' month, week, day; 'J' 1 to 365 without a leap day; 'n' 0 to 365 */
	int month, week, day;
	int64_t at_s;
};

struct om_zone {
	size_t count;
	int64_t *at; /* count of them, growing */
	int32_t *offset; /* from at[i] on */
	int32_t first; /* before at[0] */
	bool has_rule, has_dst;
	int32_t std, dst;
	struct change_day begin, end;
};

/* --- the rule ------------------------------------------------------------------------------------ */

/* Days since 1970 of a date of the Gregorian calendar. */
static int64_t
days_of(int64_t year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t yoe = y - era * 400;
	int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static int64_t
change_day_of(const struct change_day *c, int64_t year)
{
	int64_t first, next, day;

	if (c->kind != 'M') {
		bool leap = days_of(year, 3, 1) - days_of(year, 2, 1) == 29;

		return days_of(year, 1, 1) + c->day -
		       (c->kind == 'J' ? 1 - (leap && c->day >= 60) : 0);
	}
	first = days_of(year, c->month, 1);
	next = c->month == 12 ? days_of(year + 1, 1, 1) : days_of(year, c->month + 1, 1);
	/* 1970-01-01 was a Thursday. */
	day = first + (c->day - (first + 4) % 7 + 7) % 7 + 7 * (c->week - 1);
	return day < next ? day : day - 7;
}

static int32_t
rule_offset(const struct om_zone *zone, int64_t unix_s)
{
	time_t wall = (time_t)(unix_s + zone->std);
	int64_t year, begin, end;
	struct tm tm;
	bool summer;

	if (!zone->has_dst || gmtime_r(&wall, &tm) == NULL) {
		return zone->std;
	}
	year = tm.tm_year + INT64_C(1900);
	begin = change_day_of(&zone->begin, year) * DAY_S + zone->begin.at_s - zone->std;
	end = change_day_of(&zone->end, year) * DAY_S + zone->end.at_s - zone->dst;
	/* In the south it lasts over the turn of the year. */
	summer = begin < end ? unix_s >= begin && unix_s < end : unix_s >= begin || unix_s < end;
	return summer ? zone->dst : zone->std;
}

static bool
rule_number(const char **at, int most, int *out)
{
	int n = 0;

	if (**at < '0' || **at > '9') {
		return false;
	}
	while (**at >= '0' && **at <= '9' && n <= most) {
		n = n * 10 + *(*at)++ - '0';
	}
	*out = n;
	return n <= most;
}

/* [+-]h[h][:mm[:ss]] */
static bool
rule_time(const char **at, int64_t *out)
{
	bool minus = **at == '-';
	int h, m = 0, s = 0;

	*at += **at == '-' || **at == '+';
	if (!rule_number(at, 167, &h)) {
		return false;
	}
	if (**at == ':') {
		++*at;
		if (!rule_number(at, 59, &m)) {
			return false;
		}
	}
	if (**at == ':') {
		++*at;
		if (!rule_number(at, 59, &s)) {
			return false;
		}
	}
	*out = (h * INT64_C(3600) + m * 60 + s) * (minus ? -1 : 1);
	return true;
}

/* Letters, or anything in <>. */
static bool
rule_name(const char **at)
{
	const char *begin = *at;

	if (**at == '<') {
		*at += strcspn(*at, ">");
		*at += **at == '>';
		return (*at)[-1] == '>';
	}
	while ((**at >= 'A' && **at <= 'Z') || (**at >= 'a' && **at <= 'z')) {
		++*at;
	}
	return *at - begin >= 3;
}

/* West of UTC, as POSIX counts; out is east. */
static bool
rule_zone(const char **at, int32_t *out)
{
	int64_t west;

	if (!rule_time(at, &west) || west < -OFFSET_MAX || west > OFFSET_MAX) {
		return false;
	}
	*out = (int32_t)-west;
	return true;
}

static bool
rule_day(const char **at, struct change_day *out)
{
	*out = (struct change_day){ .kind = 'n', .at_s = 2 * INT64_C(3600) };
	if (*(*at)++ != ',') {
		return false;
	}
	if (**at == 'M') {
		out->kind = 'M';
		++*at;
		if (!rule_number(at, 12, &out->month) || out->month < 1 || *(*at)++ != '.' ||
		    !rule_number(at, 5, &out->week) || out->week < 1 || *(*at)++ != '.' ||
		    !rule_number(at, 6, &out->day)) {
			return false;
		}
	} else {
		if (**at == 'J') {
			out->kind = 'J';
			++*at;
		}
		if (!rule_number(at, 365, &out->day) || (out->kind == 'J' && out->day < 1)) {
			return false;
		}
	}
	if (**at == '/') {
		++*at;
		return rule_time(at, &out->at_s);
	}
	return true;
}

/* "CET-1CEST,M3.5.0,M10.5.0/3"; an empty one says that nothing is known. */
static bool
rule_parse(struct om_zone *zone, const char *text)
{
	if (text[0] == '\0') {
		return true;
	}
	if (!rule_name(&text) || !rule_zone(&text, &zone->std)) {
		return false;
	}
	zone->has_rule = true;
	if (*text == '\0') {
		return true;
	}
	zone->has_dst = true;
	zone->dst = zone->std + 3600;
	if (!rule_name(&text) || (*text != ',' && !rule_zone(&text, &zone->dst))) {
		return false;
	}
	return rule_day(&text, &zone->begin) && rule_day(&text, &zone->end) && *text == '\0';
}

/* --- the file ------------------------------------------------------------------------------------ */

static int64_t
big_endian(const uint8_t *p, size_t n)
{
	uint64_t v = p[0] >= 0x80 ? UINT64_MAX : 0; /* the sign */

	for (size_t i = 0; i < n; i++) {
		v = v << 8 | p[i];
	}
	return (int64_t)v;
}

struct tzif {
	size_t times, types, chars, leaps, stds, uts;
	size_t len; /* of its data, with moments of so many bytes */
};

static bool
tzif_header(const uint8_t *p, size_t len, size_t moment, struct tzif *out)
{
	size_t *const counts[] = { &out->uts,   &out->stds,  &out->leaps,
				   &out->times, &out->types, &out->chars };

	if (len < HEADER || memcmp(p, "TZif", 4) != 0 || p[4] < '2') {
		return false;
	}
	for (size_t i = 0; i < OM_COUNT(counts); i++) {
		int64_t n = big_endian(p + 20 + 4 * i, 4);

		if (n < 0 || n > FILE_MAX) {
			return false;
		}
		*counts[i] = (size_t)n;
	}
	out->len = out->times * (moment + 1) + out->types * 6 + out->chars +
		   out->leaps * (moment + 4) + out->stds + out->uts;
	return out->len <= len - HEADER;
}

/* The second block: its moments have eight bytes. */
static bool
tzif_changes(struct om_zone *zone, const uint8_t *p, const struct tzif *h)
{
	const uint8_t *index = p + 8 * h->times, *types = index + h->times;

	if (h->types == 0 || h->times > CHANGES_MAX) {
		return false;
	}
	zone->at = calloc(h->times + 1, sizeof(*zone->at));
	zone->offset = calloc(h->times + 1, sizeof(*zone->offset));
	if (zone->at == NULL || zone->offset == NULL) {
		return false;
	}
	for (size_t i = 0; i < h->times; i++) {
		int64_t offset;

		if (index[i] >= h->types) {
			return false;
		}
		offset = big_endian(types + 6 * index[i], 4);
		zone->at[i] = big_endian(p + 8 * i, 8);
		if (offset < -OFFSET_MAX || offset > OFFSET_MAX ||
		    (i > 0 && zone->at[i] <= zone->at[i - 1])) {
			return false;
		}
		zone->offset[i] = (int32_t)offset;
	}
	zone->count = h->times;
	zone->first = (int32_t)big_endian(types, 4);
	return zone->first >= -OFFSET_MAX && zone->first <= OFFSET_MAX;
}

static bool
tzif_parse(struct om_zone *zone, const uint8_t *p, size_t len)
{
	struct tzif h;
	char rule[128];
	size_t n;

	if (!tzif_header(p, len, 4, &h)) {
		return false;
	}
	p += HEADER + h.len;
	len -= HEADER + h.len;
	if (!tzif_header(p, len, 8, &h) || !tzif_changes(zone, p + HEADER, &h)) {
		return false;
	}
	p += HEADER + h.len;
	len -= HEADER + h.len;
	/* A line of its own at the end. */
	if (len < 2 || p[0] != '\n' || p[len - 1] != '\n' || len - 2 >= sizeof(rule)) {
		return false;
	}
	n = len - 2;
	memcpy(rule, p + 1, n);
	rule[n] = '\0';
	return rule_parse(zone, rule);
}

/* A path below the folder, and nothing else. */
static bool
is_name(struct om_str s)
{
	if (s.len == 0 || s.len > OM_ZONE_NAME_MAX || s.ptr[0] == '/' || s.ptr[s.len - 1] == '/') {
		return false;
	}
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];

		if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
		    c != '/' && c != '_' && c != '-' && c != '+') {
			return false;
		}
	}
	return true;
}

enum om_err
om_zone_open(struct om_str name, struct om_zone **out)
{
	char path[sizeof(ZONE_DIR) + OM_ZONE_NAME_MAX + 1];
	uint8_t *data = NULL;
	struct om_zone *zone = NULL;
	enum om_err err = OM_ERR_NOT_FOUND;
	ssize_t n;
	int fd = -1;

	*out = NULL;
	if (!is_name(name)) {
		return OM_ERR_NOT_FOUND;
	}
	(void)snprintf(path, sizeof(path), ZONE_DIR "/%.*s", OM_STR_ARG(name));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		goto out;
	}
	data = malloc(FILE_MAX);
	zone = calloc(1, sizeof(*zone));
	if (data == NULL || zone == NULL) {
		err = OM_ERR_NOMEM;
		goto out;
	}
	n = read(fd, data, FILE_MAX); /* a folder cannot be read */
	if (n < 0) {
		goto out;
	}
	err = OM_ERR_INVALID;
	if (tzif_parse(zone, data, (size_t)n)) {
		*out = zone;
		zone = NULL;
		err = OM_OK;
	}
out:
	if (fd >= 0) {
		(void)close(fd);
	}
	free(data);
	om_zone_free(zone);
	return err;
}

int32_t
om_zone_offset(const struct om_zone *zone, int64_t unix_s)
{
	size_t low = 0, high = zone->count;

	if (zone->count == 0 || unix_s >= zone->at[zone->count - 1]) {
		if (zone->has_rule) {
			return rule_offset(zone, unix_s);
		}
		return zone->count == 0 ? zone->first : zone->offset[zone->count - 1];
	}
	/* The first change behind the moment. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (zone->at[middle] <= unix_s) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low == 0 ? zone->first : zone->offset[low - 1];
}

void
om_zone_free(struct om_zone *zone)
{
	if (zone != NULL) {
		free(zone->at);
		free(zone->offset);
		free(zone);
	}
}
