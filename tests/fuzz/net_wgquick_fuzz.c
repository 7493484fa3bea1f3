/* SPDX-License-Identifier: ISC */
/* libFuzzer target: wg-quick files.  What is accepted keeps the rules of om_wg_config_check. */
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "net/wg_quick.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct om_wg_config zero;
	struct om_wg_config cfg;
	struct om_why why = { "" };
	enum om_err err;

	err = om_wg_quick_parse((struct om_str){ (const char *)data, size }, &cfg, &why);
	if (err == OM_OK) {
		OM_ASSERT(om_wg_config_check(&cfg, NULL) == OM_OK);
		OM_ASSERT(cfg.allowed_count <= OM_WG_ALLOWED_MAX);
	} else {
		OM_ASSERT(why.text[0] != '\0');
		OM_ASSERT(memcmp(&cfg, &zero, sizeof(cfg)) == 0);
	}
	return 0;
}
