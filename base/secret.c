/* SPDX-License-Identifier: ISC */
#include "base/secret.h"

#include <string.h>

void
om_secret_wipe(void *mem, size_t len)
{
	if (len > 0) {
		explicit_bzero(mem, len);
	}
}

bool
om_secret_eq(const void *a, const void *b, size_t len)
{
	const unsigned char *x = a;
	const unsigned char *y = b;
	/* volatile: the compiler may not find out that the first difference decides. */
	volatile unsigned char diff = 0;

	for (size_t i = 0; i < len; i++) {
		diff = (unsigned char)(diff | (x[i] ^ y[i]));
	}
	return diff == 0;
}
