# make demo: from nothing to a table of what pretraining is worth.
# make test: the unit tests, then the notebook.
# make notebook: run it again from top to bottom, where it lies.
# make report: report/main.pdf, from the results in report/results/.
# make submission NAMES="A B C": all of it in one archive, to be handed in.
# Each makes its own .venv and installs what is missing.
# make clean: remove .venv and the toy sets, all of which is made again when it is
# needed; logs/, where hours of training may lie, stays.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
NOTEBOOK := notebooks/JTM progress report.ipynb

.PHONY: demo test notebook report lint submission clean

demo: $(VENV)/ready
	$(PY) -m jtm demo

test: $(VENV)/ready
	sh setup.sh --browser
	$(PY) -m unittest discover code
	$(PY) -m pytest --nbval-lax --nbval-current-env -p no:cacheprovider "$(NOTEBOOK)"

notebook: $(VENV)/ready
	$(PY) -m jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False "$(NOTEBOOK)"

report: $(VENV)/ready
	$(PY) -m jtm report
	sh report/build.sh

lint: $(VENV)/ready
	$(PY) -m pip install --quiet ruff numpydoc
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) code/jtm/tests/docstrings.py

submission: $(VENV)/ready
	@$(PY) report/pack.py "$(NAMES)"

$(VENV)/ready: requirements.txt pyproject.toml setup.sh
	PYTHON="$(PYTHON)" sh setup.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) toy/data
