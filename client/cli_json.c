/* SPDX-License-Identifier: ISC */
/*
 * JSON.  One schema: that of the protocol.  Every object is a message's body with "version" and
 * "type" in front, so docs/protocol.md documents it and a new field appears by itself.  Binary fields
 * are strings when they are UTF-8, else {"base64": "..."}.
 */
#include <limits.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "base/parse.h"
#include "client/cli_impl.h"

static json_t *
json_bin(struct om_bin bin)
{
	size_t size = sodium_base64_encoded_len(bin.len, sodium_base64_VARIANT_ORIGINAL);
	json_t *object;
	char *text;

	if (om_utf8_valid((struct om_str){ (const char *)bin.ptr, bin.len })) {
		return json_stringn(bin.len != 0 ? (const char *)bin.ptr : "", bin.len);
	}
	text = malloc(size);
	if (text == NULL) {
		return NULL;
	}
	(void)sodium_bin2base64(text, size, bin.ptr, bin.len, sodium_base64_VARIANT_ORIGINAL);
	object = json_pack("{s:s}", "base64", text);
	free(text);
	return object;
}

static json_t *
json_list(const struct omerta_body *body, const struct om_field_info *f)
{
	json_t *array = json_array();
	size_t n = omerta_count(body, f->name);

	for (size_t i = 0; i < n; i++) {
		json_t *item = f->kind == OM_KIND_STRS
				   ? json_string(omerta_str_at(body, f->name, i))
				   : om_cli_json(omerta_body_at(body, f->name, i));

		(void)json_array_append_new(array, item != NULL ? item : json_null());
	}
	return array;
}

static json_t *
json_map(const struct omerta_body *body, const struct om_field_info *f)
{
	json_t *object = json_object();
	const char *key, *value;

	for (size_t i = 0; omerta_pair_at(body, f->name, i, &key, &value); i++) {
		(void)json_object_set_new(object, key, json_string(value));
	}
	return object;
}

static json_t *
json_field(const struct omerta_body *body, const struct om_field_info *f)
{
	const void *at = om_client_body_at(body, f);
	uint64_t u;

	switch (f->kind) {
	case OM_KIND_U64:
		u = omerta_get_u64(body, f->name);
		return json_integer(u > INT64_MAX ? INT64_MAX : (json_int_t)u);
	case OM_KIND_I64:
		return json_integer(omerta_get_i64(body, f->name));
	case OM_KIND_F64:
		return json_real(omerta_get_f64(body, f->name));
	case OM_KIND_BOOL:
		return json_boolean(omerta_get_bool(body, f->name));
	case OM_KIND_STR:
		return json_string(omerta_get_str(body, f->name));
	case OM_KIND_BIN:
	case OM_KIND_RAW:
		return json_bin(*(const struct om_bin *)at);
	case OM_KIND_STRS:
	case OM_KIND_OBJS:
		return json_list(body, f);
	case OM_KIND_MAP:
		return json_map(body, f);
	case OM_KIND_OBJ:
		return om_cli_json(omerta_body_at(body, f->name, 0));
	}
	return NULL;
}

json_t *
om_cli_json(const struct omerta_body *body)
{
	const struct om_body_info *info = om_body_info(body->type);
	json_t *object = json_object();

	for (size_t i = 0; object != NULL && i < info->field_count; i++) {
		if (omerta_has(body, info->fields[i].name)) {
			json_t *value = json_field(body, &info->fields[i]);

			(void)json_object_set_new(object, info->fields[i].name,
						  value != NULL ? value : json_null());
		}
	}
	return object;
}

/*
 * Members of the body behind ours.  One of the same name gets the first word of the type in front:
 * the "version" of daemon.state is "daemon_version".
 */
static bool
json_append(json_t *line, const char *type, json_t *object)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value)
	{
		char own[128];

		(void)snprintf(own, sizeof(own), "%.*s_%s", (int)strcspn(type, "."), type, key);
		if (json_object_set(line, json_object_get(line, key) != NULL ? own : key, value) !=
		    0) {
			return false;
		}
	}
	return true;
}

void
om_cli_print_json(struct om_cli *cli, const char *type, json_t *object)
{
	json_t *line = json_pack("{s:i, s:s}", "version", OM_CLI_SCHEMA_VERSION, "type", type);
	char *text = NULL;

	if (line != NULL && object != NULL && json_append(line, type, object)) {
		text = json_dumps(line, JSON_COMPACT);
	}
	if (text != NULL) {
		(void)fprintf(cli->out, "%s\n", text);
		(void)fflush(cli->out); /* a stream's reader gets each line as it comes */
		free(text);
	} else {
		(void)fprintf(cli->err, "%s: out of memory\n", cli->program);
	}
	json_decref(line);
	json_decref(object);
}

void
om_cli_print_body(struct om_cli *cli, const char *type, const struct omerta_body *body)
{
	om_cli_print_json(cli, type, om_cli_json(body));
}

/* --- from JSON ------------------------------------------------------------------------------------- */

static bool
json_take_base64(struct omerta_body *body, const char *name, const char *text)
{
	size_t max = strlen(text), len = 0;
	uint8_t *data = malloc(max + 1);
	bool ok;

	if (data == NULL) {
		return false;
	}
	ok = sodium_base642bin(data, max + 1, text, max, NULL, &len, NULL,
			       sodium_base64_VARIANT_ORIGINAL) == 0;
	if (ok) {
		omerta_set_bin(body, name, data, len);
	}
	free(data);
	return ok;
}

static bool
json_take_elements(struct om_cli *cli, struct omerta_body *body, const struct om_field_info *f,
		   json_t *value)
{
	const char *key;
	json_t *item;
	size_t i;

	if (f->kind == OM_KIND_OBJ) {
		return om_cli_body_from_json(cli, omerta_add_body(body, f->name), value);
	}
	if (f->kind == OM_KIND_MAP) {
		json_object_foreach(value, key, item)
		{
			if (!json_is_string(item)) {
				return false;
			}
			omerta_add_pair(body, f->name, key, json_string_value(item));
		}
		return json_is_object(value);
	}
	json_array_foreach(value, i, item)
	{
		if (f->kind == OM_KIND_STRS && !json_is_string(item)) {
			return false;
		}
		if (f->kind == OM_KIND_STRS) {
			omerta_add_str(body, f->name, json_string_value(item));
		} else if (!om_cli_body_from_json(cli, omerta_add_body(body, f->name), item)) {
			return false;
		}
	}
	return json_is_array(value);
}

static bool
json_take_field(struct om_cli *cli, struct omerta_body *body, const struct om_field_info *f,
		json_t *value)
{
	const char *base64 = json_string_value(json_object_get(value, "base64"));

	switch (f->kind) {
	case OM_KIND_U64:
		omerta_set_u64(body, f->name, (uint64_t)json_integer_value(value));
		return json_is_integer(value) && json_integer_value(value) >= 0;
	case OM_KIND_BOOL:
		omerta_set_bool(body, f->name, json_is_true(value));
		return json_is_boolean(value);
	case OM_KIND_STR:
	case OM_KIND_BIN:
		if (f->kind == OM_KIND_BIN && base64 != NULL) {
			return json_take_base64(body, f->name, base64);
		}
		omerta_set_str(body, f->name,
			       json_is_string(value) ? json_string_value(value) : "");
		return json_is_string(value);
	case OM_KIND_STRS:
	case OM_KIND_MAP:
	case OM_KIND_OBJ:
	case OM_KIND_OBJS:
		return json_take_elements(cli, body, f, value);
	default: /* no request has others */
		return false;
	}
}

bool
om_cli_body_from_json(struct om_cli *cli, struct omerta_body *body, json_t *object)
{
	const char *key;
	json_t *value;

	if (body == NULL || !json_is_object(object)) {
		(void)om_cli_usage(cli, "a body is a JSON object");
		return false;
	}
	json_object_foreach(object, key, value)
	{
		size_t i;
		const struct om_field_info *f = om_client_body_find(body, key, &i);

		if (f == NULL) {
			omerta_set_str(body, key, ""); /* the library's words for it */
			(void)om_cli_usage(cli, "%s", omerta_body_error(body));
			return false;
		}
		if (!json_take_field(cli, body, f, value)) {
			(void)om_cli_usage(cli, "the field \"%s\" is of another kind", key);
			return false;
		}
	}
	return true;
}
