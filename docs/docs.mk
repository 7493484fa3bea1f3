# SPDX-License-Identifier: ISC
# make docs writes the generated parts of the manual; make docs-check fails when they are not up to
# date.

PROTOCOL_DOC := $(BUILD)/bin/protocol_doc
$(PROTOCOL_DOC): $(BUILD)/obj/tools/protocol_doc.o $(BUILD)/obj/msg/schema.o $(call LIB,base)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -lpthread

.PHONY: docs docs-check
docs: $(PROTOCOL_DOC)
	$(PROTOCOL_DOC) docs/protocol.md
	$(PROTOCOL_DOC) docs/man/omerta-protocol.7
docs-check: $(PROTOCOL_DOC)
	$(PROTOCOL_DOC) --check docs/protocol.md
	$(PROTOCOL_DOC) --check docs/man/omerta-protocol.7
	tools/behaviour_check.py
