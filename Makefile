# Verbs of this repository. Each takes ARGS, for example: make test ARGS="-k ring"
PYTHON := .venv/bin/python
FAST := tests/conf tests/ringbuf tests/brokers/allocation tests/brokers/kis/test_decode.py tests/brokers/kiwoom/test_decode.py \
  tests/brokers/us/test_decode.py tests/brokers/test_golden_frames.py tests/brokers/test_sessions.py tests/brokers/test_subscription.py \
  tests/brokers/transport/test_frame_parser.py tests/writer/volume/test_coverage.py tests/writer/ingest/test_ring_reader.py \
  tests/writer/ingest/test_book_arbiter.py tests/writer/publish/test_schedule.py tests/writer/feeds \
  tests/collectorctl/recover/certificate tests/collectorctl/recover/matching tests/collectorctl/supervision/test_watchdog_policy.py \
  tests/collectorctl/demo/test_oracle.py tests/collectorctl/demo/test_reconcile.py tests/test_layers.py

.PHONY: setup fast test long bench lint types format

setup:  ## a virtual environment with everything that the other verbs need
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e '.[test]'

fast:  ## under a minute: what needs no process tree
	$(PYTHON) -m pytest -q -n 2 --dist loadfile $(FAST) $(ARGS)

test:  ## everything but what takes minutes for a single test
	$(PYTHON) -m pytest -n 4 --dist loadfile $(ARGS)

long:  ## the kill runs, the heavy days, every demo scenario
	$(PYTHON) -m pytest -m long $(ARGS)

bench:  ## CPU of the hot paths, in minutes; ARGS="ring receive --against ../other-checkout"
	$(PYTHON) -m benchmarks $(ARGS)

lint:
	.venv/bin/ruff check . $(ARGS)
	.venv/bin/ruff format --check .

types:
	.venv/bin/mypy $(ARGS)

format:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
