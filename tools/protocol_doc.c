/* SPDX-License-Identifier: ISC */
/*
 * Writes the message reference of docs/protocol.md and of docs/man/omerta-protocol.7 from the schema's
 * own tables, so that the manual cannot drift.  A name that ends in .7 is a manual page in mdoc.
 *
 *	protocol_doc FILE		rewrites the part between the two marks in FILE
 *	protocol_doc --check FILE	exit status 1 when FILE is not what would be written
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "msg/schema.h"

#define FILE_MAX  (4u * 1024 * 1024)
#define KIND_TEXT 160

/* How a kind of file marks the part that is made, and what is put there. */
struct form {
	const char *begin, *end;
	void (*put)(struct om_buf *out);
};

/* link: another body is a link to its place on the page. */
static const char *
kind_text(const struct om_field_info *f, bool link, char out[KIND_TEXT])
{
	bool nested = f->kind == OM_KIND_OBJ || f->kind == OM_KIND_OBJS;
	const char *name = nested ? om_body_info(f->sub)->name : "";
	char sub[80];
	unsigned long long limit = f->limit;

	(void)snprintf(sub, sizeof(sub), link ? "[%s](#body-%s)" : "%s%.0s", name, name);
	switch (f->kind) {
	case OM_KIND_U64:
		(void)snprintf(out, KIND_TEXT,
			       f->limit == UINT64_MAX ? "uint" : "uint, at most %llu", limit);
		break;
	case OM_KIND_I64:
		(void)snprintf(out, KIND_TEXT, "int");
		break;
	case OM_KIND_F64:
		(void)snprintf(out, KIND_TEXT, "float");
		break;
	case OM_KIND_BOOL:
		(void)snprintf(out, KIND_TEXT, "bool");
		break;
	case OM_KIND_STR:
		(void)snprintf(out, KIND_TEXT, "str, at most %llu bytes", limit);
		break;
	case OM_KIND_BIN:
		(void)snprintf(out, KIND_TEXT, "bin or str, at most %llu bytes", limit);
		break;
	case OM_KIND_RAW:
		(void)snprintf(out, KIND_TEXT, "any value, at most %llu bytes", limit);
		break;
	case OM_KIND_STRS:
		(void)snprintf(out, KIND_TEXT, "array of str, at most %llu", limit);
		break;
	case OM_KIND_MAP:
		(void)snprintf(out, KIND_TEXT, "map of str to str, at most %llu", limit);
		break;
	case OM_KIND_OBJ:
		(void)snprintf(out, KIND_TEXT, "%s", sub);
		break;
	case OM_KIND_OBJS:
		(void)snprintf(out, KIND_TEXT, "array of %s, at most %llu", sub, limit);
		break;
	}
	return out;
}

/* Marks the body and those inside it. */
static void
body_mark(enum om_body_type body, bool used[OM_BODY_COUNT])
{
	const struct om_body_info *info = om_body_info(body);

	if (used[body]) {
		return;
	}
	used[body] = true;
	for (size_t i = 0; i < info->field_count; i++) {
		if (info->fields[i].kind == OM_KIND_OBJ || info->fields[i].kind == OM_KIND_OBJS) {
			body_mark(info->fields[i].sub, used);
		}
	}
}

static void
put_message(struct om_buf *out, const struct om_msg_info *m)
{
	om_buf_printf(out, "| `%s` | ", m->name);
	if (m->body == OM_BODY_empty) {
		om_buf_printf(out, "- ");
	} else {
		const char *body = om_body_info(m->body)->name;

		om_buf_printf(out, "[%s](#body-%s) ", body, body);
	}
	if (m->answer != OM_MSG_NONE) {
		om_buf_printf(out, "| `%s` ", om_msg_info(m->answer)->name);
	} else {
		om_buf_printf(out, "| - ");
	}
	om_buf_printf(out, "| %s |\n", m->doc);
}

static void
put_messages(struct om_buf *out, const char *title, enum om_who who, bool routed)
{
	om_buf_printf(out, "\n### %s\n\n| type | body | answer | |\n|---|---|---|---|\n", title);
	for (int t = OM_MSG_NONE + 1; t < OM_MSG_COUNT; t++) {
		const struct om_msg_info *m = om_msg_info((enum om_msg_type)t);

		if (m->who == who && (m->route[0] != '\0') == routed) {
			put_message(out, m);
		}
	}
}

static void
put_bodies(struct om_buf *out, const char *title, const bool used[OM_BODY_COUNT])
{
	char kind[KIND_TEXT];

	om_buf_printf(out, "\n### %s\n", title);
	for (int b = 0; b < OM_BODY_COUNT; b++) {
		const struct om_body_info *info = om_body_info((enum om_body_type)b);

		if (!used[b] || info->field_count == 0) {
			continue;
		}
		om_buf_printf(out,
			      "\n<a id=\"body-%s\"></a>\n**%s**\n\n| field | | value | "
			      "|\n|---|---|---|---|\n",
			      info->name, info->name);
		for (size_t i = 0; i < info->field_count; i++) {
			const struct om_field_info *f = &info->fields[i];

			om_buf_printf(out, "| `%s` | %s | %s | %s |\n", f->name,
				      f->required ? "required" : "optional",
				      kind_text(f, true, kind), f->doc);
		}
	}
}

static void
put_errors(struct om_buf *out)
{
	om_buf_printf(out, "\n### Error codes\n\n| code | |\n|---|---|\n");
	for (int e = 1; e < OM_ERR_COUNT; e++) {
		om_buf_printf(out, "| `%s` | %s |\n", om_err_code((enum om_err)e),
			      om_err_text((enum om_err)e));
	}
}

static void
put_markdown(struct om_buf *out)
{
	bool outside[OM_BODY_COUNT] = { false };
	bool inside[OM_BODY_COUNT] = { false };

	for (int t = OM_MSG_NONE + 1; t < OM_MSG_COUNT; t++) {
		const struct om_msg_info *m = om_msg_info((enum om_msg_type)t);

		body_mark(m->body, m->who != OM_WHO_ACTOR ? outside : inside);
	}
	for (int b = 0; b < OM_BODY_COUNT; b++) {
		inside[b] = inside[b] && !outside[b];
	}
	put_messages(out, "Requests for everyone", OM_WHO_PEER, true);
	put_messages(out, "Requests for the operator", OM_WHO_OPERATOR, true);
	put_messages(out, "Answers and events", OM_WHO_PEER, false);
	put_messages(out, "Answers for the operator", OM_WHO_OPERATOR, false);
	put_bodies(out, "Bodies", outside);
	put_errors(out);
	om_buf_printf(
	    out, "\n## Inside the daemon\n\nMessages between the daemon's own services, refused "
		 "from outside.\n");
	put_messages(out, "Messages", OM_WHO_ACTOR, false);
	put_bodies(out, "Bodies inside the daemon", inside);
	om_buf_add_str(out, "\n");
}

/* --- the manual page -------------------------------------------------------------------------- */

/* A line of text: no macro, whatever it begins with, and no escape. */
static void
man_text(struct om_buf *out, const char *text)
{
	if (text[0] == '.' || text[0] == '\'') {
		om_buf_add_str(out, "\\&");
	}
	for (; *text != '\0'; text++) {
		om_buf_add_str(out, *text == '\\' ? "\\e" : (char[]){ *text, '\0' });
	}
	om_buf_add_str(out, "\n");
}

static void
man_messages(struct om_buf *out, const char *title, enum om_who who, bool routed)
{
	om_buf_printf(out, ".Ss %s\n.Bl -tag -width Ds\n", title);
	for (int t = OM_MSG_NONE + 1; t < OM_MSG_COUNT; t++) {
		const struct om_msg_info *m = om_msg_info((enum om_msg_type)t);

		if (m->who != who || (m->route[0] != '\0') != routed) {
			continue;
		}
		om_buf_printf(out, ".It Ic %s", m->name);
		if (m->body != OM_BODY_empty) {
			om_buf_printf(out, " Ar %s", om_body_info(m->body)->name);
		}
		om_buf_add_str(out, "\n");
		man_text(out, m->doc);
		if (m->answer != OM_MSG_NONE) {
			om_buf_printf(out, ".br\nAnswer:\n.Ic %s\n", om_msg_info(m->answer)->name);
		}
	}
	om_buf_add_str(out, ".El\n");
}

static void
man_bodies(struct om_buf *out, const bool used[OM_BODY_COUNT])
{
	char kind[KIND_TEXT];

	om_buf_add_str(out, ".Ss Bodies\n");
	for (int b = 0; b < OM_BODY_COUNT; b++) {
		const struct om_body_info *info = om_body_info((enum om_body_type)b);

		if (!used[b] || info->field_count == 0) {
			continue;
		}
		om_buf_printf(out, ".Pp\n.Ar %s :\n.Bl -tag -width Ds -compact\n", info->name);
		for (size_t i = 0; i < info->field_count; i++) {
			const struct om_field_info *f = &info->fields[i];

			om_buf_printf(out, ".It Va %s\n%s%s:\n", f->name, kind_text(f, false, kind),
				      f->required ? ", required" : "");
			man_text(out, f->doc);
		}
		om_buf_add_str(out, ".El\n");
	}
}

static void
put_man(struct om_buf *out)
{
	bool used[OM_BODY_COUNT] = { false };

	for (int t = OM_MSG_NONE + 1; t < OM_MSG_COUNT; t++) {
		const struct om_msg_info *m = om_msg_info((enum om_msg_type)t);

		if (m->who != OM_WHO_ACTOR) {
			body_mark(m->body, used);
		}
	}
	man_messages(out, "Requests for everyone", OM_WHO_PEER, true);
	man_messages(out, "Requests for the operator", OM_WHO_OPERATOR, true);
	man_messages(out, "Answers and events", OM_WHO_PEER, false);
	man_messages(out, "Answers for the operator", OM_WHO_OPERATOR, false);
	man_bodies(out, used);
	om_buf_add_str(out, ".Ss Error codes\n.Bl -tag -width Ds -compact\n");
	for (int e = 1; e < OM_ERR_COUNT; e++) {
		om_buf_printf(out, ".It Ic %s\n", om_err_code((enum om_err)e));
		man_text(out, om_err_text((enum om_err)e));
	}
	om_buf_add_str(out, ".El\n");
}

/* --- files ------------------------------------------------------------------------------------ */

static const struct form markdown = {
	"<!-- begin: made by make docs from msg/schema.tbl and base/err.h -->\n",
	"<!-- end: made by make docs -->\n",
	put_markdown,
};
static const struct form man = {
	".\\\" begin: made by make docs from msg/schema.tbl and base/err.h\n",
	".\\\" end: made by make docs\n",
	put_man,
};

static bool
read_file(const char *path, struct om_buf *out)
{
	FILE *f = fopen(path, "re");
	char chunk[4096];
	size_t n;

	if (f == NULL) {
		perror(path);
		return false;
	}
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0) {
		om_buf_add(out, chunk, n);
	}
	(void)fclose(f);
	return om_buf_cstr(out) != NULL;
}

static bool
write_file(const char *path, const struct om_buf *text)
{
	FILE *f = fopen(path, "we");
	bool ok;

	if (f == NULL) {
		perror(path);
		return false;
	}
	ok = fwrite(text->data, 1, text->len, f) == text->len;
	if (fclose(f) != 0 || !ok) {
		perror(path);
		return false;
	}
	return true;
}

/* The file with its middle part made anew. */
static bool
renew(const struct form *form, struct om_buf *old, struct om_buf *out)
{
	const char *text = om_buf_cstr(old);
	const char *begin = strstr(text, form->begin);
	const char *end = strstr(text, form->end);

	if (begin == NULL || end == NULL || end < begin) {
		(void)fprintf(stderr, "the two marks are not there\n");
		return false;
	}
	om_buf_add(out, text, (size_t)(begin - text) + strlen(form->begin));
	form->put(out);
	om_buf_add_str(out, end);
	return !out->failed;
}

int
main(int argc, char **argv)
{
	bool check = argc == 3 && strcmp(argv[1], "--check") == 0;
	struct om_buf old = { .max = FILE_MAX };
	struct om_buf new = { .max = FILE_MAX };
	const char *path = argc > 1 ? argv[argc - 1] : "";
	size_t len = strlen(path);
	const struct form *form = len > 2 && strcmp(path + len - 2, ".7") == 0 ? &man : &markdown;
	int rc = 1;

	if (argc != 2 && !check) {
		(void)fprintf(stderr, "usage: protocol_doc [--check] FILE\n");
		return 2;
	}
	if (!read_file(path, &old) || !renew(form, &old, &new)) {
		goto out;
	}
	if (old.len == new.len && memcmp(old.data, new.data, old.len) == 0) {
		rc = 0;
	} else if (check) {
		(void)fprintf(stderr, "%s does not match msg/schema.tbl: run make docs\n", path);
	} else {
		rc = write_file(path, &new) ? 0 : 1;
	}
out:
	om_buf_fini(&old);
	om_buf_fini(&new);
	return rc;
}
