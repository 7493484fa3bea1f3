# SPDX-License-Identifier: ISC
#
# omerta.  `make demo` and `make test` set up everything on a fresh Debian 12 machine (as root).
#
#   make            build everything          make unit T=pattern   some unit tests
#   make CC=clang   with clang                make SAN=asan|tsan    with a sanitizer
#
# A folder is a layer and a static library; a unit test is linked against its own layer and those
# below, so an upward call does not link.  Objects live in build/<variant>/.

CC	?= gcc
ifeq ($(origin CC),default)
CC	:= gcc
endif
SAN	?=
BUILD	:= build/$(CC)$(if $(SAN),-$(SAN))
PREFIX	?= /usr/local
DESTDIR	?=
VERSION	:= 0.1.0
V	?=
ifeq ($(V),)
say	= @echo "  $(1)	$@";
endif

PKGS	:= libzmq libsodium msgpack jansson libxxhash libvirt sqlite3 libcrypto libmnl libnftnl libnftables
WARN	:= -Wall -Wextra -Wconversion -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	   -Wpointer-arith -Wwrite-strings -Wundef -Wvla
HARDEN	:= -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIC -fno-semantic-interposition
OPT	:= -O2 -g
ifeq ($(SAN),asan)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
else ifeq ($(SAN),tsan)
SANFLAGS := -fsanitize=thread -fno-omit-frame-pointer
else
HARDEN	+= -D_FORTIFY_SOURCE=2
endif
# GCC clears and copies a struct of a hundred bytes by "rep stos" and "rep movs", which take tens of cycles
# before their first byte.  No option of Clang, nor for other processors.
UNROLL	:= unrolled_loop:256:noalign,libcall:-1:noalign
TUNE	:= -mmemset-strategy=$(UNROLL) -mmemcpy-strategy=$(UNROLL)
TUNE	:= $(shell $(CC) $(TUNE) -S -x c -o /dev/null /dev/null >/dev/null 2>&1 && echo "$(TUNE)")
CPPFLAGS += -I. -D_GNU_SOURCE -DOM_VERSION='"$(VERSION)"'
CFLAGS	:= -std=gnu11 $(OPT) $(TUNE) $(WARN) $(HARDEN) $(SANFLAGS) $(EXTRA_CFLAGS)
LDFLAGS	:= -pie -Wl,-z,relro,-z,now $(SANFLAGS)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDLIBS	:= $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lck -lpthread -lm

# --- layers: what a folder's tests and programs link, top first ----------------------------------
LAYERS	:= base runtime msg vm net store actors daemon client
LINK_base    := base
LINK_runtime := runtime base
LINK_msg     := msg runtime base
LINK_vm      := vm base
LINK_net     := net base
LINK_store   := store base
LINK_actors  := actors msg runtime vm net store base
LINK_daemon  := daemon actors msg runtime vm net store base
LINK_client  := client net msg base

# A main() lives in a file of its own and is no part of its folder's library.
MAINS	:= daemon/main.c client/cli_main.c
SRC	= $(filter-out $(MAINS),$(wildcard $(1)/*.c))
LIB	= $(BUILD)/lib/libom_$(1).a
LIBS	= $(foreach l,$(LINK_$(1)),$(call LIB,$(l)))

# The longest first: what begins last must not be what is waited for.
TESTS	:= store_fault_test actors_provider_test actors_executor_test msg_hostile_test
TESTS	+= $(filter-out $(TESTS),$(sort $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/*_test.c))))
TESTBINS := $(addprefix $(BUILD)/unit/,$(TESTS))
SIMS	:= $(sort $(patsubst tests/sim/%.c,%,$(wildcard tests/sim/*_sim.c)))
SIMBINS	:= $(addprefix $(BUILD)/sim/,$(SIMS))
STRESS	:= $(sort $(patsubst tests/stress/%.c,%,$(wildcard tests/stress/*_stress.c)))
STRESSBINS := $(addprefix $(BUILD)/stress/,$(STRESS))
SYSTEM	:= $(sort $(patsubst tests/system/%.c,%,$(wildcard tests/system/*_test.c)))
SYSTEMBINS := $(addprefix $(BUILD)/system/,$(SYSTEM))
T	?=

.PHONY: all libs setup demo test unit sim stress onecore system hostile chaos crash-cycles lint asan ubsan tsan bench \
	bench-quick install clean image format
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BUILD)/omertad $(BUILD)/omerta $(BUILD)/omerta-agent $(BUILD)/private-libvirtd
libs: $(foreach l,$(LAYERS),$(call LIB,$(l)))

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC) $(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

define LIBRULE
$(call LIB,$(1)): $(patsubst %.c,$(BUILD)/obj/%.o,$(call SRC,$(1)))
	@mkdir -p $$(@D)
	@rm -f $$@
	ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call LIBRULE,$(l))))

# A message is made on one thread and freed on another, which glibc's malloc pays with locks: a sixth of
# what a submit costs.  A sanitizer has an allocator of its own.
DAEMON_MALLOC := $(if $(SAN),,$(shell pkg-config --libs jemalloc 2>/dev/null))
$(BUILD)/omertad: $(BUILD)/obj/daemon/main.o $(call LIB,client) $(call LIBS,daemon)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(DAEMON_MALLOC)

$(BUILD)/omerta: $(BUILD)/obj/client/cli_main.o $(call LIBS,client)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The guest agent: static, no sanitizer, nothing of the host but base/.
AGENT_SRC := $(wildcard vm/guest/*.c) base/mp.c base/buf.c base/err.c base/file.c base/parse.c
$(BUILD)/omerta-agent: $(AGENT_SRC) $(wildcard vm/guest/*.h base/*.h vm/guest_proto.h) Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -std=gnu11 -Os -g0 -static $(WARN) -fstack-protector-strong -o $@ $(AGENT_SRC)

# Small programs of one file: libvirtd for machines without systemd.
$(BUILD)/private-libvirtd: tools/private_libvirtd.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

# --- tests -----------------------------------------------------------------------------------------
layer	= $(word 1,$(subst _, ,$(1)))
define TESTRULE
$(BUILD)/$(1)/$(2): $(BUILD)/obj/tests/$(1)/$(2).o $(call LIBS,$(call layer,$(2)))
	@mkdir -p $$(@D)
	$(CC) $$(LDFLAGS) -o $$@ $$^ $(LDLIBS) -lcmocka
endef
$(foreach t,$(TESTS),$(eval $(call TESTRULE,unit,$(t))))
$(foreach t,$(SIMS),$(eval $(call TESTRULE,sim,$(t))))
$(foreach t,$(STRESS),$(eval $(call TESTRULE,stress,$(t))))
$(foreach t,$(SYSTEM),$(eval $(call TESTRULE,system,$(t))))

# Each allocation of our code in these tests goes through their own functions, which fail the Nth.
WRAP	= $(patsubst %,-Wl$(comma)--wrap=%,$(1))
comma	:= ,
NOMEM_WRAP := malloc calloc realloc aligned_alloc free mmap munmap mprotect pthread_create
NOMEM_ZMQ  := zmq_ctx_new zmq_ctx_term zmq_socket zmq_close zmq_bind zmq_connect zmq_msg_init_size zmq_msg_init_data
$(BUILD)/unit/runtime_nomem_test: private LDFLAGS += $(call WRAP,$(NOMEM_WRAP))
$(BUILD)/unit/store_nomem_test: private LDFLAGS += $(call WRAP,$(NOMEM_WRAP) strdup)
$(BUILD)/unit/actors_manager_test: private LDFLAGS += $(call WRAP,om_service_send)
$(BUILD)/unit/msg_bus_nomem_test: private LDFLAGS += $(call WRAP,$(NOMEM_WRAP) $(NOMEM_ZMQ))
HOLD_TESTS := store_apply_test store_flight_test store_flight_random_test store_two_logs_test
$(HOLD_TESTS:%=$(BUILD)/unit/%): private LDFLAGS += $(call WRAP,pthread_cond_wait)
$(BUILD)/unit/actors_ledger_sent_test: private LDFLAGS += $(call WRAP,om_offload_to om_service_later)

unit: $(if $(T),$(foreach t,$(TESTBINS),$(if $(findstring $(T),$(t)),$(t))),$(TESTBINS))
	JOBS=$$(nproc) tests/run.sh unit $^
sim: $(SIMBINS)
	tests/run.sh sim $^
stress: $(STRESSBINS)
	tests/run.sh stress $^
# All threads on one core: what only works while a second thread really runs fails or hangs here.
onecore: $(STRESSBINS) $(filter $(BUILD)/unit/runtime_%,$(TESTBINS))
	STRESS_ROUNDS=2 TEST_TIMEOUT=60 taskset -c 0 tests/run.sh onecore $^
# Breaks each promise of the runtime once: its test must fail.
mutants:
	tests/mutants/run.sh $(T)
system: all image $(SYSTEMBINS)
	BUILD=$(BUILD) tests/system/run.sh $(T)
# The one that is worth a sanitizer's time in every run: noise from outside, and no VM.
hostile: all
	BUILD=$(BUILD) tests/system/run.sh hostile
# The long runs of two of them: JOBS jobs and things that die meanwhile; CYCLES kills of the daemon.
chaos: all image
	BUILD=$(BUILD) JOBS=$(or $(JOBS),100) tests/system/chaos_test.py
crash-cycles: all
	BUILD=$(BUILD) CYCLES=$(or $(CYCLES),1000) tests/system/crash_test.py Cycles

# --- the two commands of the README, and what they stand on -----------------------------------
setup:
	tools/setup.sh build image run test

image: $(BUILD)/omerta-agent
	vm/image/build.sh --agent $(BUILD)/omerta-agent

demo:
	@tools/demo.sh

test: setup
	@tests/all.sh

lint:
	tools/lint.sh

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

asan:
	$(MAKE) SAN=asan unit sim stress
ubsan: asan
tsan:
	$(MAKE) SAN=tsan unit sim stress onecore

# --- fuzzers (make fuzz), and the protocol manual from the schema (make docs) ----------------------
-include tests/fuzz/fuzz.mk docs/docs.mk

# --- the client library as others link it, its examples, its installation --------------------------
include client/client.mk

# --- the runtime alone, and omertad on a system ----------------------------------------------------
include runtime/actor.mk
include dist/install.mk

# --- benches: bench/bench.mk has the targets bench and bench-quick ---------------------------------
-include bench/bench.mk

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

clean:
	rm -rf build
