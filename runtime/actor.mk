# SPDX-License-Identifier: ISC
# The runtime as others link it: libomerta-actor (shared, static, pkg-config), without omertad.

ACTOR_SONAME := libomerta-actor.so.0
ACTOR_SO     := $(BUILD)/$(ACTOR_SONAME)
ACTOR_A      := $(BUILD)/libomerta-actor.a
# Of base/ only what the runtime stands on: Concurrency Kit is the only library that it needs.
ACTOR_BASE   := assert buf clock err log parse
ACTOR_OBJ    := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard runtime/*.c) $(ACTOR_BASE:%=base/%.c))
ACTOR_HEADERS := runtime/actor.h runtime/system.h runtime/supervisor.h runtime/stats.h runtime/mailbox.h
ACTOR_BASE_HEADERS := base/err.h base/clock.h base/log.h base/assert.h

.PHONY: actor-headers
actor-headers:
	@echo $(ACTOR_HEADERS) $(ACTOR_BASE_HEADERS)

$(ACTOR_SO): $(ACTOR_OBJ) runtime/actor.map
	$(call say,LD) $(CC) -shared -Wl,-soname,$(ACTOR_SONAME) -Wl,--version-script,runtime/actor.map \
	    -Wl,-z,relro,-z,now $(if $(SAN),,-Wl,-z,defs) $(SANFLAGS) -o $@ $(ACTOR_OBJ) -lck -lpthread
$(ACTOR_A): $(ACTOR_OBJ)
	@rm -f $@
	@ar rcs $@ $^

.PHONY: actor install-actor
actor: $(ACTOR_SO) $(ACTOR_A)
all: actor

# <omerta/actor.h> is the umbrella; the headers keep their places below it.
install: install-actor
install-actor: actor
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/share/man/man3 \
	    $(DESTDIR)$(PREFIX)/include/omerta/runtime $(DESTDIR)$(PREFIX)/include/omerta/base
	install -m 644 $(ACTOR_HEADERS) $(DESTDIR)$(PREFIX)/include/omerta/runtime/
	install -m 644 $(ACTOR_BASE_HEADERS) $(DESTDIR)$(PREFIX)/include/omerta/base/
	install -m 644 runtime/umbrella.h.in $(DESTDIR)$(PREFIX)/include/omerta/actor.h
	install -m 755 $(ACTOR_SO) $(DESTDIR)$(PREFIX)/lib/
	ln -sf $(ACTOR_SONAME) $(DESTDIR)$(PREFIX)/lib/libomerta-actor.so
	install -m 644 $(ACTOR_A) $(DESTDIR)$(PREFIX)/lib/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' runtime/omerta-actor.pc.in \
	    >$(DESTDIR)$(PREFIX)/lib/pkgconfig/omerta-actor.pc
	[ ! -f docs/man/om-actor.3 ] || install -m 644 docs/man/om-actor.3 $(DESTDIR)$(PREFIX)/share/man/man3/
