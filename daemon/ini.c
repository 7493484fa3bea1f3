/* SPDX-License-Identifier: ISC */
#include "daemon/ini.h"

#include <string.h>
#include "base/parse.h"

struct parser {
	const struct om_ini *ini;
	struct om_str section;
	struct om_str name;
	unsigned line;
};

static void
ini_error(const struct parser *p, const char *text)
{
	p->ini->error(p->ini->arg, p->line, text);
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* A ; or # after a blank starts a comment, unless it is inside quotes. */
static struct om_str
ini_strip_comment(struct om_str s)
{
	bool quoted = s.len > 0 && s.ptr[0] == '"';
	size_t i;

	for (i = 0; i < s.len; i++) {
		if (quoted) {
			quoted = i == 0 || s.ptr[i] != '"';
		} else if ((s.ptr[i] == '#' || s.ptr[i] == ';') &&
			   (i == 0 || is_blank(s.ptr[i - 1]))) {
			s.len = i;
			break;
		}
	}
	return om_str_trim(s);
}

/* [section], [section NAME] */
static void
ini_section(struct parser *p, struct om_str line)
{
	const char *close;
	struct om_str in;
	size_t i;

	line = ini_strip_comment(line);
	close = memchr(line.ptr, ']', line.len);
	if (close == NULL || close != line.ptr + line.len - 1) {
		ini_error(p, "a section is written [name] or [rule NAME], alone on its line");
		return;
	}
	in = om_str_trim((struct om_str){ line.ptr + 1, line.len - 2 });
	for (i = 0; i < in.len && !is_blank(in.ptr[i]); i++) {
	}
	p->section = (struct om_str){ in.ptr, i };
	p->name = om_str_trim((struct om_str){ in.ptr + i, in.len - i });
	if (p->section.len == 0) {
		ini_error(p, "a section needs a name");
	} else if (p->ini->section != NULL) {
		p->ini->section(p->ini->arg, p->section, p->name, p->line);
	}
}

static void
ini_pair(struct parser *p, struct om_str line)
{
	struct om_ini_entry entry = { .section = p->section, .name = p->name, .line = p->line };
	size_t i;

	for (i = 0; i < line.len && line.ptr[i] != '=' && line.ptr[i] != ':'; i++) {
	}
	if (i == line.len) {
		ini_error(p, "expected `key = value`, [section] or a comment");
		return;
	}
	entry.key = om_str_trim((struct om_str){ line.ptr, i });
	if (entry.key.len == 0) {
		ini_error(p, "there is no key before the sign");
		return;
	}
	entry.value = om_str_trim((struct om_str){ line.ptr + i + 1, line.len - i - 1 });
	entry.value = ini_strip_comment(entry.value);
	if (entry.value.len > 0 && entry.value.ptr[0] == '"') {
		if (entry.value.len < 2 || entry.value.ptr[entry.value.len - 1] != '"') {
			ini_error(p, "a quote is not closed");
			return;
		}
		entry.value.ptr++;
		entry.value.len -= 2;
	}
	p->ini->entry(p->ini->arg, &entry);
}

void
om_ini_parse(struct om_str text, const struct om_ini *ini)
{
	struct parser p = { .ini = ini };
	struct om_str line;

	if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0) { /* byte order mark */
		text.ptr += 3;
		text.len -= 3;
	}
	while (om_str_next(&text, '\n', &line)) {
		p.line++;
		if (line.len > OM_INI_LINE_MAX) {
			ini_error(&p, "the line is too long");
			continue;
		}
		if (line.len > 0 && memchr(line.ptr, '\0', line.len) != NULL) {
			ini_error(&p, "the line holds a NUL byte");
			continue;
		}
		line = om_str_trim(line);
		if (line.len == 0 || line.ptr[0] == '#' || line.ptr[0] == ';') {
			continue;
		}
		if (line.ptr[0] == '[') {
			ini_section(&p, line);
		} else {
			ini_pair(&p, line);
		}
	}
}
