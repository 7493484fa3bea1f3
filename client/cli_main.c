/* SPDX-License-Identifier: ISC */
/* The `omerta` program. */
#include "client/verbs.h"

int
main(int argc, char **argv)
{
	return om_cli_main("omerta", argc, argv, NULL);
}
