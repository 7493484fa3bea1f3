/* SPDX-License-Identifier: ISC */
/*
 * Log lines on stderr.
 *
 * 1. One line is one write(2) of at most LOG_LINE_MAX bytes, below PIPE_BUF: lines of several threads
 *    do not mix, on a pipe neither.
 * 2. Text from a peer is data: control bytes, broken UTF-8 and (in JSON) quotes are escaped.
 *    If broken: a job's name forges a line or drives the operator's terminal.
 * 3. No lock and no allocation: logging cannot fail and cannot wait for another thread.
 */
#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/parse.h"

#define LOG_TEXT_MAX 2048 /* of the formatted text; the rest is cut and marked */
#define LOG_LINE_MAX 4000
#define LOG_CUT      "..."

/* Relaxed is enough: a level change needs no order with anything. */
static atomic_int log_least = OM_LOG_INFO;
static bool log_json;
static bool log_priority;

static const struct {
	const char *name;
	char syslog; /* <6> and the like, sd-daemon(3) */
} log_levels[] = {
	[OM_LOG_DEBUG] = { "debug", '7' },
	[OM_LOG_INFO] = { "info", '6' },
	[OM_LOG_WARN] = { "warn", '4' },
	[OM_LOG_ERROR] = { "error", '3' },
};

struct line {
	char text[LOG_LINE_MAX];
	size_t len;
	bool full;
};

void
om_log_init(enum om_log_level least, int json)
{
	om_log_set_level(least);
	log_json = json != 0;
	log_priority = getenv("JOURNAL_STREAM") != NULL;
}

void
om_log_set_level(enum om_log_level least)
{
	atomic_store_explicit(&log_least, (int)least, memory_order_relaxed);
}

bool
om_log_is_on(enum om_log_level level)
{
	return (int)level >= atomic_load_explicit(&log_least, memory_order_relaxed);
}

enum om_err
om_log_level_parse(const char *text, enum om_log_level *out)
{
	for (size_t i = 0; i < OM_COUNT(log_levels); i++) {
		if (strcmp(text, log_levels[i].name) == 0) {
			*out = (enum om_log_level)i;
			return OM_OK;
		}
	}
	return OM_ERR_INVALID;
}

/* All or nothing, so that no escape and no character is cut in half; room stays for the end. */
static void
line_add(struct line *line, const char *text, size_t len)
{
	if (line->full || len > sizeof(line->text) - sizeof(LOG_CUT "\"}\n") - line->len) {
		line->full = true;
		return;
	}
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

static void
line_add_cstr(struct line *line, const char *text)
{
	line_add(line, text, strlen(text));
}

/* Bytes of the character at p that may go out as they are; 0: p[0] must be escaped. */
static size_t
clean_char(const unsigned char *p, size_t left)
{
	size_t len;

	if (p[0] < 0x80) {
		return p[0] < 0x20 || p[0] == 0x7f ? 0 : 1;
	}
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (len > left || !om_utf8_valid((struct om_str){ (const char *)p, len })) {
		return 0;
	}
	/* C1 controls (U+0080 to U+009F) drive terminals too. */
	return p[0] == 0xc2 && p[1] < 0xa0 ? 0 : len;
}

static void
line_add_escaped(struct line *line, const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;
	char esc[8];
	size_t step;

	for (size_t i = 0; i < len; i += step) {
		step = clean_char(p + i, len - i);
		if (step == 0) {
			step = 1;
			if (p[i] == '\n') {
				line_add_cstr(line, "\\n");
				continue;
			}
			(void)snprintf(esc, sizeof(esc), log_json ? "\\u%04x" : "\\x%02x", p[i]);
			line_add_cstr(line, esc);
			continue;
		}
		if (log_json && (p[i] == '"' || p[i] == '\\')) {
			line_add_cstr(line, "\\");
		}
		line_add(line, text + i, step);
	}
}

static void
line_write(const struct line *line)
{
	size_t done = 0;

	while (done < line->len) {
		ssize_t n = write(STDERR_FILENO, line->text + done, line->len - done);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return; /* nowhere to report it */
		}
		done += (size_t)n;
	}
}

static void
line_build(struct line *line, enum om_log_level level, const char *event, const char *text,
	   size_t len, bool cut)
{
	const char priority[] = { '<', log_levels[level].syslog, '>' };
	char when[OM_WALL_TEXT];

	om_wall_format(om_wall_now(), when);
	if (log_priority) {
		line_add(line, priority, sizeof(priority));
	}
	line_add_cstr(line, log_json ? "{\"time\":\"" : "");
	line_add_cstr(line, when);
	line_add_cstr(line, log_json ? "\",\"level\":\"" : " ");
	line_add_cstr(line, log_levels[level].name);
	line_add_cstr(line, log_json ? "\",\"event\":\"" : " ");
	line_add_escaped(line, event, strlen(event));
	line_add_cstr(line, log_json ? "\",\"text\":\"" : " ");
	line_add_escaped(line, text, len);
	cut = cut || line->full;
	/* line_add kept room for these. */
	line->len += (size_t)sprintf(line->text + line->len, "%s%s\n", cut ? LOG_CUT : "",
				     log_json ? "\"}" : "");
}

void
om_log(enum om_log_level level, const char *event, const char *fmt, ...)
{
	int saved_errno = errno;
	char text[LOG_TEXT_MAX];
	struct line line;
	bool cut;
	va_list ap;
	int n;

	if ((int)level < atomic_load_explicit(&log_least, memory_order_relaxed)) {
		return;
	}
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0) {
		n = 0;
	}
	cut = (size_t)n >= sizeof(text);
	line.len = 0;
	line.full = false;
	line_build(&line, level, event, text, cut ? sizeof(text) - 1 : (size_t)n, cut);
	line_write(&line);
	errno = saved_errno;
}
