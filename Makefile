# `make help` lists what there is. Everything runs in .venv, which `make venv` fills; nothing outside this folder is changed.

VENV = .venv
RUN = $(VENV)/bin/python
DEMO = runs/demo/digits

.PHONY: help venv demo cifar test test-pythons lint fuzz kill-test kill-cluster check-gpu check-cu112 clean

help:
	@echo 'make demo             train ResNet-20 on real handwritten digits and watch it choose its structure (minutes)'
	@echo 'make cifar EPOCHS=3   the same on CIFAR-10, which is fetched (without EPOCHS: the whole schedule)'
	@echo 'make test             run the tests'
	@echo 'make test-pythons     run the tests on every Python from 3.8 to 3.11 that is found, each in an environment of its own'
	@echo 'make lint             check the style and the types'
	@echo 'make fuzz             feed the file readers 100,000 damaged files'
	@echo 'make venv             only make .venv, which all of the above do first'
	@echo '     PYTHON=/path/to/python3.11   with this Python instead of the first of 3.11, 3.10, 3.9, 3.8 that runs'
	@echo '     MXNET=cpu|cu112|auto         with this build of MXNet instead of the one that fits the machine'
	@echo '     EXTRAS=torch                 with PyTorch too'
	@echo 'make kill-test        kill -9 training 24 times, and 20 times while its network shrinks; resume it, and compare the ends byte for byte (minutes)'
	@echo 'make kill-cluster     break runs of two workers and a server in five ways, ten times each, and resume them (half an hour)'
	@echo 'make check-gpu        compare every card with the CPU, check by check, and say what passed, failed and was skipped (minutes)'
	@echo 'make check-cu112      try the CUDA build of MXNet in a scratch environment, on any machine (5 GB, needs gcc)'
	@echo 'make clean            remove .venv and what tools left; runs, results and data stay'

venv:
	@python=$$(sh bootstrap/find_python.sh '$(PYTHON)') && VENV='$(VENV)' "$$python" -m bootstrap.venv --mxnet '$(MXNET)' --extras $(EXTRAS)

demo: venv
	@rm -rf $(dir $(DEMO))
	$(RUN) train/train_cifar.py @train/recipes/digits/resnet20-demo.args --model-prefix $(DEMO)
	$(RUN) tools/plot.py $(DEMO)
	$(RUN) tools/strip_params.py $(DEMO):24 --out $(DEMO)-folded --fold-bn --data digits --time

cifar: venv
	$(RUN) train/train_cifar.py --network resnet --num-layers 20 --dataset cifar10 --model-prefix runs/cifar10/resnet20 \
		$(if $(EPOCHS),--num-epochs $(EPOCHS)) $(if $(wildcard runs/cifar10/resnet20-*.json),--resume)

# Small networks gain nothing from a second thread: one process a core, with one thread each, needs half the time.
test: venv
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q --numprocesses auto --maxprocesses 8 --dist worksteal

# Each in an environment of its own, .venv-3.8 and so on. All are tried, also after one has failed.
test-pythons:
	@sh bootstrap/every_python.sh | { failed=; found=; \
	while read -r version python; do \
		found="$$found $$version"; echo "Python $$version: $$python"; \
		$(MAKE) test VENV=.venv-$$version PYTHON="$$python" < /dev/null || failed="$$failed $$version"; \
	done; \
	if [ -z "$$found" ]; then echo 'error: no Python 3.8 to 3.11 runs here' >&2; exit 2; fi; \
	if [ -n "$$failed" ]; then echo "error: tests failed on Python$$failed" >&2; exit 1; fi; \
	echo "The tests pass on Python$$found"; }

lint: venv
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check --quiet .
	$(RUN) -m mypy

fuzz: venv
	$(RUN) tests/fuzz_files.py

kill-test: venv
	OMP_NUM_THREADS=1 $(RUN) tests/kill_and_resume.py --times 24
	OMP_NUM_THREADS=1 $(RUN) tests/kill_and_resume.py --times 20 --shrink
	if $(RUN) -c 'import torch' 2>/dev/null; then OMP_NUM_THREADS=1 $(RUN) tests/kill_and_resume.py --times 20 --shrink --engine torch; fi

kill-cluster: venv
	OMP_NUM_THREADS=1 $(RUN) tests/kill_cluster.py --times 10

check-gpu: venv
	$(RUN) tests/check_gpu.py

check-cu112:
	@PYTHON='$(PYTHON)' bash tests/check_cu112.sh

clean:
	rm -rf .venv .venv-3.* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
