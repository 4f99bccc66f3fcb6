# Two commands matter: `make demo` shows the whole bench at work, `make test` proves it.
.PHONY: help demo demo-claude demo-clients gateway test check fuzz fuzz-ops fuzz-causality crash soak soak-standin lock docs report images engine browser clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

demo:  ## fresh clone to five real experiments in containers, on CPU, without a key
	@scripts/demo.sh

demo-claude:  ## ten experiments by the model-driven agent through compose; without a key, a stand-in model
	@scripts/demo-claude.sh

demo-clients:  ## three experiments each by Claude Code, opencode and mini-swe-agent; builds their images (npm, pip)
	@scripts/demo-clients.sh

test: engine images gateway browser  ## everything, with the real engine (needs root or the docker group)
	@scripts/venv.sh test
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports --no-cache
	@scripts/pytest.sh

check:  ## ruff, mypy --strict, import contracts, the tests that need no engine, and how much of the code they run
	@scripts/venv.sh test
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports --no-cache
	@rm -f .coverage
	@scripts/pytest.sh check --cov --cov-append --cov-report=
	@echo "lines of code that ran, without the engine: $$(.venv/bin/coverage report --format=total) %"

fuzz:  ## a million hostile telemetry files through the filter, on every processor
	@.venv/bin/python -m tests.fuzz_filter --inputs 1000000

CALLS ?= 1000000
fuzz-ops:  ## CALLS=1000000 calls of the allowed operations: does the dry run see the shapes that the kernels make?
	@.venv/bin/python -m tests.fuzz_ops --calls $(CALLS)

SECONDS ?= 3600
fuzz-causality:  ## SECONDS=3600 of random graphs on every processor: what the proof claims of them against real runs
	@.venv/bin/python -m tests.fuzz_causality --seconds $(SECONDS)

crash:  ## SECONDS=3600 of runners killed at random over tags of 500 stand-in experiments: do all records agree?
	@.venv/bin/python -m tests.faults.campaign --seconds $(SECONDS)

N ?= 300
soak: engine images  ## N=300 tiny real experiments in a row: does memory, open files or cost grow?
	@scripts/venv.sh test
	@.venv/bin/python -m bench.soak --experiments $(N)

soak-standin:  ## N=1000 of them with stand-ins for the containers, in minutes
	@scripts/venv.sh test
	@.venv/bin/python -m bench.soak --standin --experiments $(N)

engine:  ## a container engine, if none answers
	@scripts/engine-up.sh

browser:  ## Chromium for the tests of the report, if there is none
	@scripts/browser-up.sh

images:  ## base, trainer, agent and runner images
	@scripts/images.sh all

gateway: engine  ## the translator's image (LiteLLM, from pip) for servers that speak OpenAI's API: compose.gateway.yaml
	@scripts/images.sh gateway

lock:  ## pin the packages of runner, agent and gateway again, by hash (needs uv)
	@scripts/lock.sh

docs:  ## the documentation as a site without a network: build/site
	@scripts/docs.sh

report:  ## write the newest run's report again and print its path
	@.venv/bin/glovebox report

clean:  ## remove the virtual environment and caches (never the bench)
	@rm -rf .venv .coverage build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
