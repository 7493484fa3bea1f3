# SPDX-License-Identifier: ISC
# make fuzz [FUZZ_SECONDS=n] [T=pattern]: every tests/fuzz/*_fuzz.c with libFuzzer (clang), ASan and
# UBSan.  The first word of the name is the layer whose libraries are linked; mp is part of base.
# What was found to be interesting is kept in build/fuzz/corpus.

FUZZ_SECONDS ?= 30
FUZZERS	:= $(sort $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*_fuzz.c)))
FUZZ_LAYER_mp := base
fuzz_layer = $(or $(FUZZ_LAYER_$(call layer,$(1))),$(call layer,$(1)))

define FUZZRULE
$(BUILD)/bin/$(1): $(BUILD)/obj/tests/fuzz/$(1).o $(call LIBS,$(call fuzz_layer,$(1)))
	@mkdir -p $$(@D)
	$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $$@ $$^ $(LDLIBS)
.PHONY: run-$(1)
run-$(1): $(BUILD)/bin/$(1)
	@mkdir -p $(BUILD)/corpus/$(1)
	$(BUILD)/bin/$(1) -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -rss_limit_mb=1024 \
		-print_final_stats=1 -artifact_prefix=$(BUILD)/$(1)- $(BUILD)/corpus/$(1)
endef
$(foreach f,$(FUZZERS),$(eval $(call FUZZRULE,$(f))))

.PHONY: fuzz fuzzers
fuzzers: $(addprefix $(BUILD)/bin/,$(FUZZERS))
fuzz:
	$(MAKE) BUILD=build/fuzz CC=clang SAN=asan EXTRA_CFLAGS=-fsanitize=fuzzer-no-link \
		$(addprefix run-,$(if $(T),$(foreach f,$(FUZZERS),$(if $(findstring $(T),$(f)),$(f))),$(FUZZERS)))
