#!/bin/bash
# KafkaJS into $KLAMM_CACHE/node.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need node nodejs
need npm npm
mark=$(fingerprint "$HERE/node/package.json" "$HERE/node/package-lock.json")

install_node() {
  mkdir -p "$KLAMM_CACHE/node"
  cp "$HERE/node/package.json" "$HERE/node/package-lock.json" "$KLAMM_CACHE/node/"
  cd "$KLAMM_CACHE/node"
  retry npm ci --silent --ignore-scripts --no-audit --no-fund
  node -e 'require("kafkajs")'
  finished node "$mark"
}
once node "$mark" install_node
