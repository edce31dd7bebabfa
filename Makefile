# Every task of this repository. CI calls the same targets: .ci/run is `make test`.
# An older Go on the machine fetches this toolchain by itself (Go 1.21 and later).
export GOTOOLCHAIN := go1.27.4

FUZZTIME ?= 60s
BENCHARGS ?=
PKGS ?= ./...

TOOL := go tool -modfile=tools/go.mod
LINT_VERSION := $(shell awk '$$1 == "github.com/golangci/golangci-lint/v2" {print $$2}' tools/go.mod)
CADDY_VERSION := $(shell awk '$$1 == "github.com/caddyserver/caddy/v2" {print $$2}' bench/caddy/go.mod)
CADDY := bin/tools/caddy-$(CADDY_VERSION)-$(GOTOOLCHAIN)
CFSSL_VERSION := $(shell awk '$$1 == "github.com/cloudflare/cfssl" {print $$2}' bench/cfssl/go.mod)
CFSSL := bin/tools/cfssl-$(CFSSL_VERSION)-$(GOTOOLCHAIN)
LINT := bin/tools/golangci-lint-$(LINT_VERSION)-$(GOTOOLCHAIN)
MODULES := . bench test

.DEFAULT_GOAL := help
.PHONY: help run build test test-long test-tools race lint layers fuzz bench vuln docs fmt clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

run: build ## the checkpoint in development mode: state in ./sekisho-data, curl lines to paste
	bin/sekisho serve --dev

build: ## bin/sekisho
	go build -trimpath -o bin/sekisho ./cmd/sekisho

# -count=1: tests that build and start the program depend on files that go's test cache does not see.
test: test-tools ## every test of every module; installs what the tests need from Debian
	@scripts/each-module "go test -count=1" $(MODULES)

test-long: export SEKISHO_LONG = 1
test-long: test-tools ## the same with the long scenarios (SEKISHO_LONG=1)
	@scripts/each-module "go test -count=1 -timeout 90m" $(MODULES)

test-tools: ## the Debian packages that the tests call (openssl, curl, nginx, ...)
	@scripts/install-test-tools

race: test-tools ## every test of the product under the race detector
	go test -race -timeout 30m $(PKGS)

lint: $(LINT) ## golangci-lint in every module, as .golangci.yml says
	$(LINT) run $(PKGS)
	cd test && ../$(LINT) run ./...
	cd bench && ../$(LINT) run ./...

# A bit over a minute on two cores, once a version; so is Caddy below.
$(LINT): tools/go.mod
	@mkdir -p $(@D)
	cd tools && go build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

layers: ## who may import whom (layers_test.go), and the size budget (size_test.go)
	go test -count=1 -v -run 'TestLayers|TestIdentity|TestInvariants|TestSizeBudget' .

fuzz: ## each fuzz target for FUZZTIME (default 60s)
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

bench: test-tools build $(CADDY) $(CFSSL) ## beside nginx, Caddy, a bare Go proxy, openssl and cfssl; BENCHARGS='-only http1 -runs 1' keeps nothing
	cd bench && go run ./cmd/bench -caddy ../$(CADDY) -cfssl ../$(CFSSL) $(if $(BENCHARGS),$(BENCHARGS),-out .)

$(CADDY): bench/caddy/go.mod
	@mkdir -p $(@D)
	cd bench/caddy && go build -o ../../$@ github.com/caddyserver/caddy/v2/cmd/caddy

$(CFSSL): bench/cfssl/go.mod
	@mkdir -p $(@D)
	cd bench/cfssl && CGO_ENABLED=0 go build -o ../../$@ github.com/cloudflare/cfssl/cmd/cfssl

vuln: ## known vulnerabilities in what the product reaches
	@scripts/vuln

docs: ## the tests that execute README.md and docs/
	go test -count=1 -run 'README|Docs|Walkthrough' $(PKGS)
	cd test && go test -count=1 -run 'README|Docs|Walkthrough' ./...

fmt: ## gofumpt over every module
	$(TOOL) gofumpt -w .

clean: ## removes bin/; ./sekisho-data is yours and stays
	rm -rf bin
