# A target's own words stand behind its ##; make help prints them.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
.PHONY: help build generate lint test e2e e2e-vm fuzz bench demo soak clean clean-kernel

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The race detector needs a C compiler, the rest of this file does not.
RACE := $(if $(shell command -v gcc || command -v cc),-race)
GOTEST = go test -json -count=1 -timeout 30m $(RACE) $(if $(RUN),-run '$(RUN)')
SUM = go run ./internal/testsum
UNIT = $$(go list ./... | grep -v /e2e)
OUR_C = find . \( -name '*.c' -o -name '*.h' \) ! -name 'vmlinux*'
SOAK ?= 10
KERNEL ?= 6.12
KERNELS = 6.12 6.1
FUZZ = ./internal/tetragon:FuzzParsePolicy ./internal/sensor:FuzzCompile ./store:FuzzDecode
FUZZTIME ?= 20s

help: ## print this
	@awk -F ' *:.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/profile, one static file
	CGO_ENABLED=0 go build -trimpath -tags urfave_cli_no_docs,grpcnotrace -ldflags '-s -w' -o bin/profile ./cmd/profile

generate: ## rebuild the BPF objects and the canary from their C (needs clang-19, lld-19, llvm-19)
	go generate ./...

lint: ## gofmt, go vet, staticcheck, clang-format (needs clang-format-19)
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "not formatted, run gofmt -w:" $$bad; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	@command -v clang-format-19 >/dev/null || { echo "lint needs clang-format-19: apt-get install clang-format-19"; exit 1; }
	$(OUR_C) -exec clang-format-19 --dry-run --Werror {} +

# e2e compares what is loaded in the kernel before and after, so nothing else
# may load programs meanwhile: it runs by itself, behind the rest.
test: build ## every test, e2e on this kernel included (as root; says what did not run); RUN=PATTERN for some
	$(if $(RACE),,@echo "no C compiler: the tests run without the race detector")
	@{ $(GOTEST) $(UNIT) && unit=0 || unit=1; $(GOTEST) ./e2e/... && [ $$unit = 0 ]; } | $(SUM)

# Against an agent the scripts take turns: it watches the whole machine.
e2e: build ## only the end-to-end tests; RUN=PATTERN for some; AGENT=ADDRESS for the scripts, against the agent there
	@$(if $(AGENT),PROFILE_E2E_AGENT='$(AGENT)' $(GOTEST) -parallel 1 $(if $(RUN),,-run '^TestScripts') ./e2e,$(GOTEST) ./e2e/...) | $(SUM)

# An hour and more under emulation: CI runs what e2e/vm/quick.txt names.
e2e-vm: ## the end-to-end tests on another kernel, in an emulated machine: KERNEL=6.12 (or 6.1); RUN=PATTERN or RUN=@FILE for some; PREEMPT=full for a kernel that preempts everywhere; TETRAGON_DIR=DIR for the scripts, against that release
	@TETRAGON_DIR='$(TETRAGON_DIR)' PREEMPT='$(PREEMPT)' e2e/vm/run.sh $(KERNEL) '$(RUN)' | $(SUM)

# Without its limit the fuzzer spends the time on making what it found smaller.
# An interrupt ends it, not -fuzztime: that fails now and then with "context
# deadline exceeded" and no input to blame, up to Go 1.27 (go.dev/issue/75804).
fuzz: ## feed odd input to what reads policies and rows, FUZZTIME (20s) each
	@bin=$$(mktemp -d); trap 'rm -rf "$$bin"' EXIT; \
	for target in $(FUZZ); do package=$${target%:*} name=$${target#*:}; \
		go test -c -fuzz "^$$name$$" -o "$$bin/$$name" "$$package"; \
		echo "$$name, for $(FUZZTIME)"; \
		(cd "$$package" && timeout --preserve-status -s INT -k 30 $(FUZZTIME) "$$bin/$$name" -test.run '^$$' \
			-test.fuzz "^$$name$$" -test.fuzzminimizetime 100x -test.fuzzcachedir "$$(go env GOCACHE)/fuzz/profile/$${package#./}"); done

# Ratios mean something on a quiet machine only.
bench: ## measure what must be fast against the least that could be done (as root, with gcc; 8 minutes); writes bench.json
	@go run ./e2e/bench

demo: build ## learn, report, enforce, attack and release, in a cgroup of its own (as root)
	@examples/demo/demo.sh

soak: build ## every test SOAK times over (10), the long forms of some, and the end-to-end tests on both other kernels, for flaws that show once in a while
	@go test -json -count=$(SOAK) -timeout 8h -p 1 $(RACE) ./... | $(SUM)
	@PROFILE_SEEDS=10 PROFILE_SWAPS=200 PROFILE_KILLS=200 PROFILE_STORM=500 $(GOTEST) -run 'TestRandomWorkload|TestNothingGetsThroughWhileGenerationsSwap|TestNothingIsMissedInAStormOfSockets|TestKilledLearnerLosesASecondAtMost' ./e2e | $(SUM)
	@$(MAKE) fuzz FUZZTIME=10m
	@for kernel in $(KERNELS); do $(MAKE) e2e-vm KERNEL=$$kernel; $(MAKE) e2e-vm KERNEL=$$kernel PREEMPT=full RUN=TestNothing; done

clean: ## delete what build made
	rm -rf bin

# Unpinning detaches. A bpffs of our own is there only where the machine's is not.
clean-kernel: ## detach and unpin whatever of ours is in the kernel, and remove cgroups of tests (as root)
	@[ "$$(id -u)" = 0 ] || { echo "clean-kernel needs root"; exit 1; }
	@if [ "$$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" = bpf_fs ]; then rm -rfv /sys/fs/bpf/profile; fi
	@if [ "$$(stat -f -c %T /run/profile/bpf 2>/dev/null)" = bpf_fs ]; then \
		rm -rfv /run/profile/bpf/profile; \
		umount -v /run/profile/bpf; fi
	@awk '$$3 == "cgroup2" {print $$2}' /proc/mounts | while read -r tree; do \
		for group in "$$tree"/profile-test-* "$$tree"/profile-demo-*; do \
			[ -d "$$group" ] || continue; \
			echo 0 >"$$group/cgroup.freeze"; echo 1 >"$$group/cgroup.kill"; sleep 0.1; \
			find "$$group" -depth -type d -print -exec rmdir {} \; ; \
		done; done
	@for pid in $$(pgrep -x profile); do \
		echo "still running, and attached until it ends: $$(tr '\0' ' ' </proc/$$pid/cmdline) (pid $$pid)"; done
