# make demo: from nothing to the notes and names of pieces.
# make test: the unit tests, then the notebook.
# make notebook: run it again from top to bottom, where it lies.
# make report: report/main.pdf, from the results in report/results/.
# make submission NAMES="A B C": all of it in one archive, to be handed in.
# Each makes its own .venv and installs what is missing; with LOCK=lock.txt, as CI has
# it, of the versions in that file. A new range or requirement asks for `make lock`.
# make lock: lock.txt and licences.csv, of the versions that are newest today.
# make oldest: the unit tests with the oldest versions that requirements.txt allows.
# make faults: kills, full disks, damaged and hostile files, by the thousand; hours.
# make clean: remove .venv and the toy sets, all of which is made again when it is
# needed; logs/, where hours of training may lie, stays.

PYTHON ?= python3
LOCK ?=
VENV := .venv
PY := $(VENV)/bin/python
NOTEBOOK := notebooks/JTM progress report.ipynb

.PHONY: demo test notebook report lint faults submission lock oldest clean

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
	$(PY) -m pip install --quiet ruff numpydoc $(if $(LOCK),--constraint $(LOCK))
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) code/jtm/tests/docstrings.py

faults: $(VENV)/ready
	OMP_NUM_THREADS=1 $(PY) code/faults/suite.py

submission: $(VENV)/ready
	@$(PY) report/pack.py "$(NAMES)"

lock:
	rm -rf $(VENV)-lock
	PYTHON="$(PYTHON)" sh setup.sh $(VENV)-lock $(LOCK)
	$(VENV)-lock/bin/pip install --quiet ruff numpydoc
	$(VENV)-lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > lock.txt
	$(VENV)-lock/bin/pip install --quiet pip-licenses
	$(VENV)-lock/bin/pip-licenses --with-system --format csv \
		--packages $$(sed 's/==.*//' lock.txt) --output-file licences.csv
	rm -rf $(VENV)-lock

oldest:
	sed -n 's/^\([a-z0-9_-]*\)>=\([0-9.]*\).*/\1==\2/p' requirements.txt > oldest.part
	PYTHON="$(PYTHON)" sh setup.sh $(VENV)-oldest oldest.part
	$(VENV)-oldest/bin/python -m unittest discover code

$(VENV)/ready: requirements.txt pyproject.toml setup.sh
	PYTHON="$(PYTHON)" sh setup.sh $(VENV) $(LOCK)
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest toy/data
