# Thin: each line is one that a person could type.
.PHONY: demo test bench check setup

# Finds a planted commit in real Linux source. Another bug elsewhere: make demo SEED=7
SEED ?= 1
demo:
	scripts/demo $(SEED)

test:
	scripts/test

bench:
	scripts/bench

setup:
	scripts/setup

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
