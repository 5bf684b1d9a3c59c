# Every target says what it does: `make` or `make help`. None of them asks a question.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
AFTERWRITE := $(TARGET_DIR)/debug/afterwrite
# A Rust installed by rustup need not be in PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo STAY=1         leave the demo running until Ctrl-C"
	@echo "  make demo ARGS='…'       pass further arguments to \`afterwrite demo\`"
	@echo "  make demo ARGS=--database-url   use the server of DATABASE_URL, in a database of the demo's own"

.PHONY: demo
demo: ## From nothing to the first mails, with nothing but Postgres: install, build, start, sign people up
	infra/native/setup --without-kafka $(if $(findstring --database-url,$(ARGS)),--without-postgres)
	cargo build --locked
	$(AFTERWRITE) demo $(if $(filter-out 0 no false,$(STAY)),--stay) $(ARGS)

.PHONY: demo-kafka
demo-kafka: setup build ## The same with the full pipeline: Debezium in Kafka Connect, Kafka, a schema registry
	$(AFTERWRITE) demo --kafka $(if $(filter-out 0 no false,$(STAY)),--stay) $(ARGS)

.PHONY: test
test: ## Everything continuous integration checks: format, lints, unit, simulation, the real stack
	@tests/run

.PHONY: setup
setup: ## Install what this machine lacks (root on Debian), or print the command that does
	infra/native/setup

.PHONY: build
build: ## Build target/debug/afterwrite
	cargo build --locked

.PHONY: fmt
fmt: ## Format the code
	cargo fmt

.PHONY: lint
lint: ## Check format and lints
	tests/run format lint

.PHONY: changelog
changelog: ## Print the section that the fragments of docs/changes make; WRITE=1 writes it, and deletes them
	infra/release/changes $(if $(WRITE),--write)

.PHONY: release
release: ## Make the archive of a release in target/package: one static program, manual, licences, SBOM (minutes)
	infra/release/build

.PHONY: deny
deny: ## Check licences and sources of what is linked, and known vulnerabilities (needs the network)
	infra/release/deny advisories bans licenses sources

.PHONY: unit
unit: ## Tests that need no service: unit, property, golden, simulation, tidy
	tests/run unit

.PHONY: fuzz
fuzz: ## Coverage-guided fuzzing of every parser; FUZZ_SECONDS=600 for longer, FUZZ_JOBS=2 for two at a time
	fuzz/run

.PHONY: damage
damage: ## Damaged records against the decoder by a seed; FUZZ_SECONDS=600 for longer, FUZZ_SEED=7 to repeat
	tests/run fuzz

.PHONY: sim
sim: ## The simulation of the engine alone; SIM_SEED=7 shows one world, SIM_WORLDS=500 runs so many
	cargo test --locked --features testkit --test simulation $(if $(SIM_SEED)$(SIM_WORLDS),-- --nocapture worlds_keep)

.PHONY: sim-long
sim-long: ## A hundred thousand worlds of it (10 minutes on two cores)
	$(MAKE) sim SIM_WORLDS=100000

.PHONY: it
it: ## Tests against the real stack, on ports of their own
	tests/run setup build it

.PHONY: chaos
chaos: ## Members, Postgres and broker killed, 10 minutes for each group protocol and the log; CHAOS_SEED=7 to repeat, CHAOS_PROTOCOL=consumer or CHAOS_SOURCE=wal to choose
	tests/run setup build chaos

.PHONY: fixtures
fixtures: ## Capture tests/fixtures/debezium-3.7.0 anew from a stack of its own, and what it decodes to
	tests/run setup build fixtures
	UPDATE_GOLDEN=1 cargo test --locked --features testkit --test decode_golden

# Runs these actions of `afterwrite bench` with the services they need. What ran before goes on running; what
# was started for this does not.
define bench
cargo build --locked --release
@status="$$(infra/native/stack status || true)"; started=(); \
trap 'for service in "$${started[@]}"; do infra/native/stack stop "$$service"; done' EXIT; \
for service in $(2); do \
if ! grep -q "^$$service .* pid [0-9]" <<<"$$status"; then started+=("$$service"); fi; \
infra/native/stack start "$$service"; done; \
export $$(infra/native/stack env); \
if [[ "$(2)" == *postgres* ]]; then $(TARGET_DIR)/release/afterwrite migrate; fi; \
brokers=(); if [[ "$(2)" == *kafka* ]]; then brokers=(--brokers "$$KAFKA_BROKERS"); fi; \
for action in $(1); do $(TARGET_DIR)/release/afterwrite bench $$action "$${brokers[@]}" $(ARGS); done
endef

.PHONY: bench
bench: setup ## Measure the worker against a raw poll loop on this machine (a release build: minutes)
	$(call bench,compare,kafka)

.PHONY: bench-isolation
bench-isolation: setup ## Measure what others notice of events that fail and of a key that is retried (15 minutes)
	$(call bench,poison retrying,kafka)

.PHONY: bench-peers
bench-peers: setup ## Measure the worker beside a raw loop and Confluent's parallel-consumer, which it builds (20 minutes)
	mvn --batch-mode --quiet --no-transfer-progress --file benches/peers/pom.xml compile dependency:copy-dependencies
	$(call bench,peers,kafka)

.PHONY: bench-ledger
bench-ledger: setup ## Measure the ledger's transaction for each job beside the commits of pgbench (minutes)
	$(call bench,ledger,kafka postgres)

.PHONY: bench-wal
bench-wal: setup ## Measure the source wal beside pg_recvlogical, which only receives, and beside Kafka (minutes)
	$(call bench,wal,postgres kafka connect)

.PHONY: bench-backlog
bench-backlog: setup ## Measure that a backlog of 2 million changes takes no more memory than one of 200,000 (minutes, 5 GB)
	$(call bench,backlog,kafka)

.PHONY: bench-ranking
bench-ranking: setup ## Measure rankings of a campaign of a million users beside a bare UPDATE of all places (minutes)
	$(call bench,ranking,postgres)

.PHONY: bench-decode
bench-decode: ## Measure decoding alone beside serde_json and apache-avro (a release build: minutes)
	cargo bench --locked --bench decode -- $(ARGS)

.PHONY: stack-up
stack-up: setup build ## Start Postgres, Kafka, Connect, registry and mail catcher
	infra/native/stack up

.PHONY: stack-down
stack-down: ## Stop them; their data stays
	infra/native/stack down

.PHONY: stack-wipe
stack-wipe: ## Stop them and delete their data
	infra/native/stack down --wipe

.PHONY: stack-status
stack-status: ## Say which of them answer
	infra/native/stack status

.PHONY: clean
clean: ## Delete what builds and downloads left in this clone; a stack is deleted by stack-wipe
	rm -rf target benches/peers/target infra/native/.cache infra/monitoring/.cache infra/release/.cache

.PHONY: doc
doc: ## Build the API documentation
	cargo doc --locked --no-deps
