# Everything goes through .venv, which `make` builds from the hash-pinned lock files when it is missing or stale: what the
# demo needs first, and the tools of tests and checks, which are much larger, only for those.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed

.PHONY: help demo test chaos e2e bench bench-plugin bench-webhook bench-packing check lock proto clean

help: ## Show what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(RUNNABLE): requirements/demo.lock pyproject.toml scripts/bootstrap
	@rm -rf $(VENV)
	@scripts/bootstrap $(PYTHON) $(VENV) $<
	@touch $@

$(INSTALLED): requirements/dev.lock $(RUNNABLE)
	@scripts/bootstrap $(PYTHON) $(VENV) $<
	@touch $@

demo: $(RUNNABLE) ## Run the main job: four simulated GPU nodes, the three services, the pods in examples/
	@$(BIN)/fracgpu demo $(ARGS)

test: $(INSTALLED) ## Run all checks and tests
	@scripts/check
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

chaos: $(INSTALLED) ## Let anything go wrong for minutes, at random: ARGS="--steps N --seed S"; the last line is JSON
	@$(BIN)/python -m tests.chaos $(ARGS)

e2e: $(INSTALLED) ## Run the same scenario on real etcd, kube-apiserver, kube-scheduler and kubelet
	@scripts/e2e $(ARGS)

bench: $(INSTALLED) ## Measure the extender: latency beside the floor, memory, start, binds, kube-scheduler (some minutes)
	@$(BIN)/python -m bench $(ARGS)

bench-plugin: $(INSTALLED) ## Measure the device plugin: start, answers beside a floor, memory, writes (five minutes)
	@GRPC_VERBOSITY=ERROR $(BIN)/python -W ignore::FutureWarning -m bench.plugin $(ARGS)

bench-webhook: $(INSTALLED) ## Measure the webhook: answers beside a floor, large bodies, memory, 2000 pods at once (three minutes)
	@$(BIN)/python -m bench.webhook $(ARGS)

bench-packing: $(INSTALLED) ## Measure how full traces fill a cluster, by each policy: ARGS="--traces DIR [--jobs N]" (half an hour)
	@$(BIN)/python -m benchmarks.packing $(ARGS)

check: $(INSTALLED) ## Lint, types and import rules only
	@scripts/check

lock: $(INSTALLED) ## Re-resolve the lock files after a change of pyproject.toml
	@scripts/lock

proto: $(INSTALLED) ## Regenerate the checked-in gRPC stubs
	@scripts/proto

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build
