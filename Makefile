# make demo   from nothing to a trained and scored model, about ten minutes on two cores after the installation
# make test   style, types and the whole test-suite
# make env    .venv alone
# make upstream, make figures, make bench   timm's own tests with our modules joined; the README's pictures; benchmarks
# Each makes what it needs first, and nothing twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENV := $(VENV)/.made
SAMPLE := fashion-product-images/images/.made
DEMO := output/demo

.PHONY: env sample demo test lint bench upstream figures clean
.DELETE_ON_ERROR:

env: $(ENV)

$(ENV): requirements.txt requirements-dev.txt requirements-lock.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt -r requirements-dev.txt -c requirements-lock.txt
	@touch $@

sample: $(ENV)
	$(BIN)/python fashion-product-images/make_sample.py

demo: $(DEMO)/test.json
	@echo
	@echo "Trained:      $(DEMO)/model_best.pth.tar, with its summary.csv and args.yaml"
	@echo "Test scores:  $(DEMO)/test.json, by class in $(DEMO)/test-per-class/"
	@echo "Curves:       $(DEMO)/accuracy.png, $(DEMO)/losses.png and $(DEMO)/representation.png"
	@echo "Label images: $(BIN)/python inference.py fashion-product-images/images --checkpoint $(DEMO)/model_best.pth.tar"

$(DEMO)/test.json: $(DEMO)/model_best.pth.tar
	$(BIN)/python validate.py ./fashion-product-images/ --split test --checkpoint $< --results-file $@ --per-class $(DEMO)/test-per-class

$(DEMO)/model_best.pth.tar: | $(ENV) sample
	rm -rf $(DEMO)
	PYTHON=$(CURDIR)/$(BIN)/python ./distributed_train.sh 1 ./fashion-product-images/ -c recipes/demo.yaml --output output --experiment demo || { rm -rf $(DEMO); exit 1; }

test: $(ENV) lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(ENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

# The pictures of the README: the sample's products, the views that the demo trains on, and its curves.
figures: demo
	@mkdir -p imgs
	$(BIN)/python fashion-product-images/make_sample.py --sheet imgs/sample.jpg
	cp $(DEMO)/accuracy.png $(DEMO)/losses.png $(DEMO)/representation.png imgs/

# The benchmarks, small and without writing anything; benchmarks/README.md tells how to run them in full.
bench: $(ENV)
	$(BIN)/pip install -q --disable-pip-version-check -r benchmarks/requirements.txt -c requirements-lock.txt
	$(BIN)/python benchmarks/run.py --small --dry

# timm's own tests, with our modules joined to it.
upstream: $(ENV)
	$(BIN)/python tests/upstream.py

clean:
	rm -rf output .pytest_cache .mypy_cache .ruff_cache .hypothesis .upstream
