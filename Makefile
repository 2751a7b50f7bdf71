# Thin: each line is one that a person could type.
.PHONY: demo test faults soak bench bench-crash bench-farm bench-search fuzz check setup dist toolchains deploy-test

# Finds a planted commit in real Linux source. Another bug elsewhere: make demo SEED=7; a bug that
# shows in three runs of ten: make demo WORLD=rare; another crash all over: make demo WORLD=noisy
SEED ?= 1
WORLD ?= plain
demo:
	scripts/demo $(SEED) $(WORLD)

test:
	scripts/test

# Breaks farms of real processes in every way there is a promise about; writes docs/faults.md.
faults:
	scripts/faults

# Against `git bisect run`, then a farm of a thousand agents, then the figures of the search, which
# take an hour or two.
bench:
	scripts/bench
	scripts/bench-farm
	scripts/bench-search

# What one coordinator bears, with 1,000 agents over mTLS; ten minutes. Writes docs/scale.md.
bench-farm:
	scripts/bench-farm

# The quick half of bench: how fast consoles are read.
bench-crash:
	scripts/bench-crash

# How good the search is. Shorter: scripts/bench-search --trials 20
bench-search:
	scripts/bench-search

# Half an hour a target; shorter: make fuzz FUZZ_SECONDS=60
fuzz:
	scripts/fuzz

# An hour of bisections under random kills and pauses; shorter: scripts/soak 10
soak:
	scripts/soak

# The release that ansible/ installs, into dist/. Quicker, for tests: make dist PROFILE=dev
PROFILE ?= release
dist:
	PROFILE=$(PROFILE) scripts/dist

# What kernels are built in, for a farm's machines to load. Another: make toolchains NAME=gcc-12
NAME ?= gcc-10
toolchains:
	scripts/toolchain save $(NAME) dist/toolchains

# The playbooks on four hosts of their own: site twice, a bisection, an upgrade amid a job, a removal, a
# second coordinator that takes over.
deploy-test:
	scripts/deploy-test

setup:
	scripts/setup

check:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
