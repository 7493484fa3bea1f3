# SPDX-License-Identifier: ISC
# The client library as others link it (shared, static, pkg-config), its examples, its installation.

CLIENT_SONAME := libomerta-client.so.0
CLIENT_SO     := $(BUILD)/$(CLIENT_SONAME)
CLIENT_A      := $(BUILD)/libomerta-client.a
CLIENT_SRC    := $(wildcard client/lib_*.c) msg/codec.c msg/codec_encode.c msg/envelope.c msg/schema.c
CLIENT_OBJ    := $(CLIENT_SRC:%.c=$(BUILD)/obj/%.o)
CLIENT_LIBS   := -lzmq -lmsgpackc -lpthread
CLIENT_EXAMPLES := $(patsubst client/examples/%.c,$(BUILD)/examples/%,$(wildcard client/examples/*.c))

# Only omerta_* is visible; anything else fails the build.
$(CLIENT_SO): $(CLIENT_OBJ) $(call LIB,base) client/omerta.map
	$(CC) -shared -Wl,-soname,$(CLIENT_SONAME) -Wl,--version-script,client/omerta.map \
	    $(if $(SAN),,-Wl,--no-undefined) -Wl,-z,relro,-z,now $(SANFLAGS) -o $@ $(CLIENT_OBJ) \
	    $(call LIB,base) $(CLIENT_LIBS)
	@! nm -D --defined-only $@ | grep -v -e ' omerta_' -e ' OMERTA_' || \
	    { echo "$@ exports more than omerta_*"; rm -f $@; exit 1; }

# One object with everything else made local, so that a static program gets no om_ names either.
$(CLIENT_A): $(CLIENT_OBJ) $(call LIB,base)
	$(LD) -r -o $(BUILD)/omerta-client.o $(CLIENT_OBJ) --whole-archive $(call LIB,base)
	objcopy --wildcard --keep-global-symbol='omerta_*' $(BUILD)/omerta-client.o
	@rm -f $@
	ar rcs $@ $(BUILD)/omerta-client.o

# The examples see the installed header only: "omerta.h", nothing of the tree.
$(BUILD)/examples/%: client/examples/%.c client/omerta.h $(CLIENT_SO)
	@mkdir -p $(@D)
	$(CC) -Iclient $(CFLAGS) $(LDFLAGS) -o $@ $< $(CLIENT_SO) -Wl,-rpath,'$$ORIGIN/..'

.PHONY: client install-client
client: $(CLIENT_SO) $(CLIENT_A) $(CLIENT_EXAMPLES)
all: client

install: install-client
install-client: client $(BUILD)/omerta
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include \
	    $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/lib/python3/dist-packages \
	    $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man7 \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 755 $(BUILD)/omerta $(DESTDIR)$(PREFIX)/bin/
	install -m 644 client/omerta.h $(DESTDIR)$(PREFIX)/include/
	install -m 755 $(CLIENT_SO) $(DESTDIR)$(PREFIX)/lib/
	ln -sf $(CLIENT_SONAME) $(DESTDIR)$(PREFIX)/lib/libomerta-client.so
	install -m 644 $(CLIENT_A) $(DESTDIR)$(PREFIX)/lib/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' client/omerta-client.pc.in \
	    >$(DESTDIR)$(PREFIX)/lib/pkgconfig/omerta-client.pc
	install -m 644 client/python/omerta.py $(DESTDIR)$(PREFIX)/lib/python3/dist-packages/
	install -m 644 docs/man/omerta.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 docs/man/omerta-protocol.7 $(DESTDIR)$(PREFIX)/share/man/man7/
	install -m 644 client/completion/omerta.bash \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/omerta
