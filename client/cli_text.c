/* SPDX-License-Identifier: ISC */
/* Text for people: tables, colours, sizes and times.  Strings from jobs are never printed raw. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "client/cli_impl.h"

#define SHORT_ID 12

/* A character that could move the cursor, or forge a line: C0, DEL, and C1 in its UTF-8 form. */
static bool
text_is_control(const unsigned char *c)
{
	return c[0] < 0x20 || c[0] == 0x7f || (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0);
}

void
om_cli_clean(FILE *out, const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
		if (text_is_control(c)) {
			(void)fputc('?', out);
			c += c[0] == 0xc2 ? 1 : 0;
		} else {
			(void)fputc(*c, out);
		}
	}
}

static size_t
text_width(const char *text)
{
	size_t n = 0;

	for (const char *c = text; *c != '\0'; c++) {
		n += (*c & 0xc0) != 0x80 ? 1 : 0; /* a code point a column is near enough */
	}
	return n;
}

/* --- colours --------------------------------------------------------------------------------------- */

const char *
om_cli_paint(const struct om_cli *cli, bool tty, enum om_cli_colour colour)
{
	static const char *const codes[] = { "\033[0m",  "\033[1m",  "\033[31m",
					     "\033[32m", "\033[33m", "\033[36m" };

	return cli->colour && tty ? codes[colour] : "";
}

enum om_cli_colour
om_cli_state_colour(const char *state)
{
	static const struct {
		const char *state;
		enum om_cli_colour colour;
	} colours[] = {
		{ "completed", OM_CLI_GREEN },   { "running", OM_CLI_CYAN },
		{ "provisioning", OM_CLI_CYAN }, { "pending_approval", OM_CLI_YELLOW },
		{ "queued", OM_CLI_PLAIN },      { "cancelled", OM_CLI_YELLOW },
		{ "received", OM_CLI_PLAIN },
	};

	for (size_t i = 0; i < OM_COUNT(colours); i++) {
		if (strcmp(colours[i].state, state) == 0) {
			return colours[i].colour;
		}
	}
	return OM_CLI_RED;
}

/* --- tables ---------------------------------------------------------------------------------------- */

void
om_cli_cell(struct om_cli_table *t, const char *text)
{
	char *copy =
	    om_arena_str(&t->arena, om_str_of(text == NULL || text[0] == '\0' ? "-" : text));

	if (t->count == t->cap) {
		size_t cap = t->cap == 0 ? 64 : t->cap * 2;
		char **cells = realloc(t->cells, cap * sizeof(*cells));

		if (cells == NULL) {
			return;
		}
		t->cells = cells;
		t->cap = cap;
	}
	t->cells[t->count++] = copy;
}

/* Cut to what fits a column; the last column may be as long as it likes. */
static void
table_cut(char *cell)
{
	size_t width = 0;

	for (char *c = cell; *c != '\0'; c++) {
		if ((*c & 0xc0) != 0x80 && ++width > OM_CLI_CELL_MAX) {
			*c = '\0';
			return;
		}
	}
}

static void
table_cell(struct om_cli *cli, const struct om_cli_table *t, size_t column, const char *text,
	   size_t width)
{
	size_t own = text_width(text), pad = width > own ? width - own : 0;
	bool right = ((t->right >> column) & 1u) != 0, last = column + 1 == t->columns;
	bool state = t->state == column;

	(void)fprintf(cli->out, "%s%*s", column > 0 ? "  " : "", right ? (int)pad : 0, "");
	(void)fputs(state ? om_cli_paint(cli, cli->out_tty, om_cli_state_colour(text)) : "",
		    cli->out);
	om_cli_clean(cli->out, text);
	(void)fprintf(cli->out, "%s%*s", state ? om_cli_paint(cli, cli->out_tty, OM_CLI_PLAIN) : "",
		      right || last ? 0 : (int)pad, "");
}

static void
table_aligned(struct om_cli *cli, struct om_cli_table *t)
{
	size_t widths[OM_CLI_COLUMNS_MAX] = { 0 };

	for (size_t c = 0; c < t->columns; c++) {
		widths[c] = cli->headers ? text_width(t->headers[c]) : 0;
	}
	for (size_t i = 0; i < t->count; i++) {
		size_t c = i % t->columns, w;

		if (c + 1 < t->columns) {
			table_cut(t->cells[i]);
		}
		w = text_width(t->cells[i]);
		widths[c] = w > widths[c] ? w : widths[c];
	}
	if (cli->headers) {
		(void)fputs(om_cli_paint(cli, cli->out_tty, OM_CLI_BOLD), cli->out);
		for (size_t c = 0; c < t->columns; c++) {
			struct om_cli_table plain = *t;

			plain.state = SIZE_MAX;
			table_cell(cli, &plain, c, t->headers[c], widths[c]);
		}
		(void)fprintf(cli->out, "%s\n", om_cli_paint(cli, cli->out_tty, OM_CLI_PLAIN));
	}
	for (size_t i = 0; i < t->count; i++) {
		size_t c = i % t->columns;

		table_cell(cli, t, c, t->cells[i], widths[c]);
		if (c + 1 == t->columns) {
			(void)fputc('\n', cli->out);
		}
	}
}

void
om_cli_table_print(struct om_cli *cli, struct om_cli_table *t)
{
	bool whole = t->count % t->columns == 0;

	for (size_t i = 0; i < t->count; i++) {
		whole = whole && t->cells[i] != NULL;
	}
	if (!whole) {
		(void)fprintf(cli->err, "%s: out of memory\n", cli->program);
	} else if (cli->out_tty) {
		table_aligned(cli, t);
	} else {
		for (size_t i = 0; i < t->count; i++) {
			om_cli_clean(cli->out, t->cells[i]);
			(void)fputc(i % t->columns + 1 == t->columns ? '\n' : '\t', cli->out);
		}
	}
	om_arena_fini(&t->arena);
	free(t->cells);
	t->cells = NULL;
	t->count = t->cap = 0;
}

/* --- values ---------------------------------------------------------------------------------------- */

const char *
om_cli_bytes(uint64_t n, char out[OM_CLI_TEXT])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB" };
	double v = (double)n;
	size_t u = 0;

	while (v >= 999.95 && u + 1 < OM_COUNT(units)) {
		v /= 1000;
		u++;
	}
	(void)snprintf(out, OM_CLI_TEXT, u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return out;
}

const char *
om_cli_span(int64_t ms, char out[OM_CLI_TEXT])
{
	int64_t s = ms / 1000, min = s / 60, h = min / 60;

	if (ms < 1000) {
		(void)snprintf(out, OM_CLI_TEXT, "%" PRId64 " ms", ms);
	} else if (s < 120) {
		(void)snprintf(out, OM_CLI_TEXT, "%.1f s", (double)ms / 1000);
	} else if (min < 60) {
		(void)snprintf(out, OM_CLI_TEXT, "%" PRId64 " min", min);
	} else if (h < 48) {
		(void)snprintf(out, OM_CLI_TEXT, "%" PRId64 " h %" PRId64 " min", h, min % 60);
	} else {
		(void)snprintf(out, OM_CLI_TEXT, "%" PRId64 " d %" PRId64 " h", h / 24, h % 24);
	}
	return out;
}

const char *
om_cli_clock(int64_t ms, char out[OM_CLI_TEXT])
{
	int64_t s = ms / 1000;

	if (s >= 3600) {
		(void)snprintf(out, OM_CLI_TEXT, "%" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600,
			       s / 60 % 60, s % 60);
	} else {
		(void)snprintf(out, OM_CLI_TEXT, "%" PRId64 ":%02" PRId64, s / 60, s % 60);
	}
	return out;
}

const char *
om_cli_when(uint64_t at_ms, char out[OM_CLI_TEXT])
{
	time_t t = (time_t)(at_ms / 1000);
	struct tm tm;

	if (at_ms == 0 || localtime_r(&t, &tm) == NULL ||
	    strftime(out, OM_CLI_TEXT, "%Y-%m-%d %H:%M:%S", &tm) == 0) {
		(void)snprintf(out, OM_CLI_TEXT, "-");
	}
	return out;
}

/* The whole id goes into a pipe; a person gets enough of it. */
const char *
om_cli_short_id(const struct om_cli *cli, const char *id, char out[OMERTA_ID_SIZE])
{
	(void)snprintf(out, OMERTA_ID_SIZE, "%.*s", cli->out_tty ? SHORT_ID : OMERTA_ID_SIZE - 1,
		       id != NULL ? id : "-");
	return out;
}
