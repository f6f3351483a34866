# Dynactor: `make run` starts a cluster of three nodes, `make test` tests all.

GO      ?= go
SEEDS   ?= 2000
SEED    ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
# Tools live in modules of their own, so that their dependencies are not ours.
PROTO    = tools/proto
LINT     = tools/lint
WEB      = tools/web

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: build
build: ## build bin/node
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/node ./cmd/node

.PHONY: run
run: build ## start three nodes on loopback and show what to try
	./bin/node dev

.PHONY: test
test: ## all tests that need nothing but Go: units, properties, simulation, real nodes
	$(GO) test -timeout 15m ./...
	$(MAKE) --no-print-directory sim

.PHONY: race
race: ## the same under the race detector, without the simulation's many seeds
	$(GO) test -race -timeout 20m ./...

.PHONY: sim
sim: ## seeded simulation of a cluster: SEEDS=10000, or SEED=n to replay one
	$(GO) run ./dynamo/sim/cmd/sim $(if $(SEED),-seed $(SEED),-seeds $(SEEDS))

.PHONY: mutants
mutants: ## plant bugs in the simulated cluster, each must be found: by which check, after how many seeds
	$(GO) run -tags mutants ./dynamo/sim/cmd/mutants

.PHONY: test-consul
test-consul: ## discovery against a real Consul agent, built on first use
	CONSUL_REQUIRED=1 $(GO) test -count=1 -timeout 20m -run Consul ./bootstrap/...

.PHONY: test-long
test-long: ## what takes longer: many seeds, crash tests at every point, fuzzing, a million records, growth with a million keys, ten minutes of chaos
	$(MAKE) --no-print-directory sim SEEDS=100000
	$(MAKE) --no-print-directory mutants
	$(MAKE) --no-print-directory fuzz
	DYNACTOR_CRASH_SEEDS=250 $(GO) test -count=1 -timeout 60m ./storage/...
	$(MAKE) --no-print-directory import-million
	$(MAKE) --no-print-directory grow
	$(MAKE) --no-print-directory heal
	$(MAKE) --no-print-directory forget
	$(MAKE) --no-print-directory chaos

CHAOS ?= 10m
.PHONY: chaos
chaos: ## harm a cluster under load in every way this machine allows, CHAOS=10m; root for networks and disks
	DYNACTOR_CHAOS=$(CHAOS) $(GO) test -count=1 -timeout 60m -v -run TestChaos ./test/blackbox

GROW ?= 1000000
EVERY ?=
.PHONY: grow
grow: ## from three nodes to five and back under load with GROW=1000000 keys, EVERY=10ms a request of each client
	DYNACTOR_GROW_KEYS=$(GROW) DYNACTOR_GROW_EVERY=$(EVERY) $(GO) test -count=1 -timeout 60m -v -run TestGrowAndShrink ./test/blackbox

.PHONY: heal
heal: ## what healing costs: a lost disk under load, with the controller and without; exchanges by keys and difference
	DYNACTOR_LOST_KEYS=300000 $(GO) test -count=1 -timeout 60m -v -run TestLostDisk ./test/blackbox
	for keys in 10000 100000 1000000; do DYNACTOR_AAE_KEYS=$$keys $(GO) test -count=1 -timeout 60m -v -run TestExchangeCost ./test/blackbox || exit; done
	$(GO) test -run '^$$' -bench TreeUpkeep -benchtime 60x ./actors

.PHONY: forget
forget: ## delete 100,000 keys while a node is down, and wait until the nodes have forgotten them, some 15 minutes
	DYNACTOR_FORGET_KEYS=100000 $(GO) test -count=1 -timeout 60m -v -run TestForgetsAll ./test/blackbox

.PHONY: import-million
import-million: build ## import and export a million records, state the nodes' peak memory
	./scripts/import-million.sh

# A number of inputs: with a time, the fuzzer of Go before 1.27 fails now and then when it is over (go.dev/issue/75804).
FUZZTIME ?= 1000000x
.PHONY: fuzz
fuzz: ## fuzz every decoder, FUZZTIME=1000000x (inputs) each
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
	  done; done

.PHONY: bench
bench: ## benchmarks of the packages
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-peers
bench-peers: build ## three nodes against a three-member etcd, side by side
	./scripts/bench-peers.sh

.PHONY: lint
lint: ## formatting, vet, staticcheck, generated code and modules up to date
	@test -z "$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'))" || { gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'); exit 1; }
	@! git grep -nE '^(<<<<<<<|>>>>>>>)( |$$)' -- . || { echo 'a merge was not finished'; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags mutants,wrongclock ./dynamo/... ./cmd/...
	$(GO) vet -tags web ./bootstrap/page
	GOWORK=off $(GO) -C $(LINT) build -o ../../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	./bin/staticcheck ./...
	$(GO) mod tidy -diff

.PHONY: proto
proto: ## generate messages/*.pb.go
	GOWORK=off $(GO) -C $(PROTO) build -o ../../bin/ github.com/bufbuild/buf/cmd/buf google.golang.org/protobuf/cmd/protoc-gen-go
	PATH="$(CURDIR)/bin:$$PATH" buf lint
	PATH="$(CURDIR)/bin:$$PATH" buf generate

.PHONY: proto-check
proto-check: proto ## fail when the generated code is not what the .proto files give
	git diff --exit-code -- messages

.PHONY: web
web: ## bring what the dashboard page embeds, from the package registry
	cd $(WEB) && npm ci --no-audit --no-fund --ignore-scripts
	cp $(WEB)/node_modules/uplot/dist/uPlot.iife.min.js $(WEB)/node_modules/uplot/dist/uPlot.min.css $(WEB)/node_modules/uplot/LICENSE bootstrap/page/assets/vendor/

.PHONY: web-check
web-check: web ## fail when what is embedded is not what the package has
	git diff --exit-code -- bootstrap/page/assets/vendor

.PHONY: test-web
test-web: ## the dashboard page in a real browser; needs Chromium
	$(GO) test -count=1 -timeout 10m -tags web -v ./bootstrap/page/...

.PHONY: rewrite
rewrite: ## rewrite the expected output of script tests; read the diff
	$(GO) test ./dynamo/request ./dynamo/sim -rewrite
	$(GO) test -run ConsoleScripts ./cmd/node -rewrite

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
