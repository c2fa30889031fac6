# make demo       train and score a model on drawn images: 6 to 18 minutes on two cores, at most 60 MB on disk
# make app        serve a page to try the demo's model, on this machine alone
# make test       check style and types, run the whole test suite
# make env        create .venv
# make soak       run 10,000 hostile inputs and kill 100 runs: hours on one core, Linux only
# make upstream   run timm's own tests with our modules joined
# make figures    draw the pictures of README and docs
# make flags      write docs/flags.md
# make bench      run the benchmarks at small sizes, without writing results
# make clean      delete the demo's run and the tools' caches; keep other runs, .venv and the sample
# Each target first makes what it needs, unless that exists already.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENV := $(VENV)/.made
SAMPLE := fashion-product-images/images/.made
DEMO := output/demo

.PHONY: env sample demo app test lint bench soak upstream figures flags clean
.DELETE_ON_ERROR:

env: $(ENV)

# pip would compile all 16,000 modules, which takes two minutes; importing compiles those that a training needs.
$(ENV): requirements.txt requirements-dev.txt requirements-lock.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: name one with make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile --disable-pip-version-check -r requirements.txt -r requirements-dev.txt -c requirements-lock.txt
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import commands.leave_report, matplotlib.figure, train, validate'
	@touch $@

sample: $(ENV)
	$(BIN)/python fashion-product-images/make_sample.py

demo: $(DEMO)/test.json
	@echo
	@echo "Trained:      $(DEMO)/model_best.pth.tar, with its summary.csv and args.yaml"
	@echo "Test scores:  $(DEMO)/test.json, by class in $(DEMO)/test-per-class/"
	@echo "Curves:       $(DEMO)/accuracy.png, $(DEMO)/losses.png and $(DEMO)/representation.png"
	@echo "Label images: $(BIN)/python inference.py fashion-product-images/images --checkpoint $(DEMO)/model_best.pth.tar"
	@du -ck $(DEMO) fashion-product-images/images fashion-product-images/*.csv | \
		awk 'END { printf "On disk:      %.0f MB beside the environment; make clean deletes $(DEMO)\n", $$1 * 1.024 / 1000 }'
	@echo "Look at it:   $(CURDIR)/$(DEMO)/report.html (one file, without network: open it in a browser)"

$(DEMO)/test.json: $(DEMO)/model_best.pth.tar
	$(BIN)/python validate.py ./fashion-product-images/ --split test --checkpoint $< --results-file $@ --per-class $(DEMO)/test-per-class
	@rm -f $(DEMO)/checkpoint-*.pth.tar $(DEMO)/last.pth.tar  # 43 MB each if the last epoch is not the best

$(DEMO)/model_best.pth.tar: | $(ENV) sample
	rm -rf $(DEMO)
	PYTHON=$(CURDIR)/$(BIN)/python ./distributed_train.sh 1 ./fashion-product-images/ -c recipes/demo.yaml --output output --experiment demo || { rm -rf $(DEMO); exit 1; }

app: $(DEMO)/index/.made
	$(BIN)/python app.py --checkpoint $(DEMO)/model_best.pth.tar --index $(DEMO)/index

$(DEMO)/index/.made: $(DEMO)/test.json
	$(BIN)/python embed.py fashion-product-images/train.csv --checkpoint $(DEMO)/model_best.pth.tar -o $(DEMO)/index --overwrite
	@touch $@

test: $(ENV) lint
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadgroup

lint: $(ENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

# The pictures of docs: the sample's products and the demo's curves. imgs/report.jpg is a screenshot of a report.
figures: demo
	@mkdir -p imgs
	$(BIN)/python fashion-product-images/make_sample.py --sheet imgs/sample.jpg
	cp $(DEMO)/accuracy.png $(DEMO)/losses.png $(DEMO)/representation.png imgs/

# The benchmarks at small sizes, without writing results; benchmarks/README.md has the full commands.
bench: $(ENV)
	$(BIN)/pip install -q --disable-pip-version-check -r benchmarks/requirements.txt -c requirements-lock.txt
	$(BIN)/python benchmarks/run.py --small --dry

# Hostile inputs and kills; SOAK="--kinds images --cases 500 --kills 0" chooses some.
soak: $(ENV)
	$(BIN)/python tests/soak.py $(SOAK)

# The reference of every flag.
flags: $(ENV)
	$(BIN)/python -m options > docs/flags.md

# timm's own tests, with our modules joined to the installed timm.
upstream: $(ENV)
	$(BIN)/python tests/upstream.py

clean:
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis .upstream
