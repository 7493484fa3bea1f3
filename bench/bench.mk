# SPDX-License-Identifier: ISC
# Included by the Makefile.  `make bench` runs the runtime beside the peers that are
# installed, the bus, and the control endpoint beside bare ZeroMQ.

BENCH_RUNTIME	  := $(BUILD)/bench/runtime_bench
BENCH_RUNTIME_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard bench/runtime/*.c))

$(BENCH_RUNTIME): $(BENCH_RUNTIME_OBJ) $(call LIBS,runtime)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

BENCH_RUN := $(BENCH_RUNTIME) $(BUILD)/bench/hop_bench $(BUILD)/bench/control_echo $(BUILD)/omertad
bench: $(BENCH_RUN)
	BUILD=$(BUILD) bench/run.py
bench-quick: $(BENCH_RUN)
	BUILD=$(BUILD) bench/run.py --quick

.PHONY: bench-runtime
bench-runtime: $(BENCH_RUNTIME)
	$(BENCH_RUNTIME) -w 2
	$(BENCH_RUNTIME) -w 1

# The bus and the pipeline: a program a file; `make benches` builds them all.
BENCH_SMALL := $(patsubst bench/%.c,%,$(wildcard bench/bus/*.c bench/pipeline/*.c))
define BENCHRULE
$(BUILD)/bench/$(notdir $(1)): $(BUILD)/obj/bench/$(1).o $(call LIBS,actors)
	@mkdir -p $$(@D)
	$(CC) $(LDFLAGS) -o $$@ $$^ $(LDLIBS)
endef
$(foreach b,$(BENCH_SMALL),$(eval $(call BENCHRULE,$(b))))

.PHONY: benches bench-pipeline
benches: $(BENCH_RUNTIME) $(addprefix $(BUILD)/bench/,$(notdir $(BENCH_SMALL)))

# Jobs through the daemon, beside beanstalkd, Redis and PostgreSQL where they are installed; and what a
# queued job and a decision cost.
bench-pipeline: $(BUILD)/omertad $(patsubst %,$(BUILD)/bench/%_bench,submit schedule queue filter)
	bench/pipeline.py

# Jobs in real VMs, timed from outside: needs root.
.PHONY: bench-vm
bench-vm: all image
	BUILD=$(BUILD) bench/vm.py
