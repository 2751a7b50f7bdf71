# Thin: each line is one that a person could type.
.PHONY: demo test bench bench-crash check setup

# Finds a planted commit in real Linux source. Another bug elsewhere: make demo SEED=7
SEED ?= 1
demo:
	scripts/demo $(SEED)

test:
	scripts/test

bench:
	scripts/bench

# The quick half of bench: how fast consoles are read.
bench-crash:
	scripts/bench-crash

setup:
	scripts/setup

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
