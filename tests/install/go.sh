#!/bin/bash
# The Go client programs, built into $KLAMM_CACHE/bin: kafka-go-client (tests/clients/go), kgo-bench (tests/bench/go).
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need go golang-go
build() { # NAME DIR
  local name=$1 dir=$2 mark
  mark=$(fingerprint "$dir"/go.mod "$dir"/go.sum "$dir"/*.go)
  build_now() {
    mkdir -p "$KLAMM_CACHE/bin"
    cd "$dir"
    retry env GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -o "$KLAMM_CACHE/bin/$name.new" .
    mv "$KLAMM_CACHE/bin/$name.new" "$KLAMM_CACHE/bin/$name"
    finished "$name" "$mark"
  }
  once "$name" "$mark" build_now
}
case "${1:-all}" in
clients) build kafka-go-client "$TESTS/clients/go" ;;
bench) build kgo-bench "$TESTS/bench/go" ;;
*) build kafka-go-client "$TESTS/clients/go"; build kgo-bench "$TESTS/bench/go" ;;
esac
