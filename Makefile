# make demo   run notebooks/01_quickstart.ipynb in a real kernel, and render it as a page
# make test   run every check: ruff, mypy, import-linter, pytest with real kernels and a real browser
# make test-all   run the tests that need no IPython, and CPython's asyncio tests, on every CPython of this
#                 machine; run the tests in real kernels on older versions of ipykernel, with the packages of the
#                 hosts in tests/reach (PARTS=colab for one of them), and those with other people's packages; show
#                 the widget in the classic Notebook; run JupyterLite's kernel in Node; a minute of the stress, and
#                 all its signal handlers
# make stress put kernels under load, for minutes, and count what is lost or left; STRESS=--seed=N repeats it,
#             STRESS='--quick interrupts' runs a sample of one part
# make bench  compare it with stock asyncio and with nest_asyncio and its kin; BENCH=--quick, --markdown, --profile;
#             BENCH=--widget measures the widget at 10,000 tasks, in JupyterLab
# make shots  draw the pictures of the README and the notebooks, in JupyterLab
# make lab    open 01_quickstart.ipynb in JupyterLab
# make clean  remove everything that the others have made, including .venv
#
# This works with GNU make 3.81, which macOS has. To choose another Python: make demo PYTHON=python3.13

PYTHON ?=
PARTS ?=
BENCH ?=
STRESS ?=
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all stress bench shots lab clean
.NOTPARALLEL:

demo: .venv/.has-demo
	.venv/bin/python notebooks/run.py notebooks/01_quickstart.ipynb

test: .venv/.has-test
	.venv/bin/python .ci/check.py

test-all: .venv/.has-test
	PARTS='$(PARTS)' .venv/bin/python .ci/test_all.py

stress: .venv/.has-engine
	@.venv/bin/python -m tests.stress $(STRESS)

bench: .venv/.has-bench $(if $(findstring --widget,$(BENCH)),.venv/.has-test)
	@.venv/bin/python -m tests.benchmarks $(BENCH)

shots: .venv/.has-test
	.venv/bin/python .ci/shots.py

lab: .venv/.has-lab
	.venv/bin/jupyter lab notebooks/01_quickstart.ipynb

.venv/.has-bench .venv/.has-demo .venv/.has-engine .venv/.has-lab .venv/.has-test: pyproject.toml
	@PYTHON='$(PYTHON)' sh .ci/venv.sh
	@echo "Installing loopnb and what '$(@:.venv/.has-%=%)' needs into .venv; this takes a minute the first time"
	@$(PIP) -e '.[kernel]' --group '$(@:.venv/.has-%=%)'
	@touch $@

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find loopnb tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
