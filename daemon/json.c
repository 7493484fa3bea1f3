/* SPDX-License-Identifier: ISC */
#include "daemon/json.h"

#include "base/parse.h"

void
om_json_str(struct om_buf *out, struct om_str s)
{
	bool utf8 = om_utf8_valid(s);

	om_buf_add_str(out, "\"");
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];

		if (c == '"' || c == '\\') {
			om_buf_printf(out, "\\%c", c);
		} else if (c < 0x20 || c == 0x7f) {
			om_buf_printf(out, "\\u%04x", c);
		} else if (c >= 0x80 && !utf8) {
			om_buf_add_str(out, "\\ufffd");
		} else {
			om_buf_add(out, &c, 1);
		}
	}
	om_buf_add_str(out, "\"");
}

void
om_json_member(struct om_buf *out, const char *name, const char *value, bool first)
{
	om_buf_printf(out, "%s\"%s\":", first ? "" : ",", name);
	om_json_str(out, om_str_of(value));
}
