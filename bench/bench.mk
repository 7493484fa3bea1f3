# SPDX-License-Identifier: ISC
# Included by the Makefile.  `make bench` runs the runtime beside the peers that are installed.

BENCH_RUNTIME	  := $(BUILD)/bench/runtime_bench
BENCH_RUNTIME_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard bench/runtime/*.c))

$(BENCH_RUNTIME): $(BENCH_RUNTIME_OBJ) $(call LIBS,runtime)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

bench: $(BENCH_RUNTIME)
	bench/run.py
bench-quick: $(BENCH_RUNTIME)
	bench/run.py --quick

.PHONY: bench-runtime
bench-runtime: $(BENCH_RUNTIME)
	$(BENCH_RUNTIME) -w 2
	$(BENCH_RUNTIME) -w 1
