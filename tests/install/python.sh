#!/bin/bash
# A virtual environment with the Python clients: $KLAMM_CACHE/python.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need python3 python3 python3-venv
mark=$(fingerprint "$HERE/python/requirements.txt")

install_python() {
  local new=$KLAMM_CACHE/python
  python3 -c 'import ensurepip' || { apt-get update -qq && apt-get install -y -qq python3-venv; }
  rm -rf "$new"
  python3 -m venv "$new"
  retry "$new/bin/pip" install -q --only-binary=:all: -r "$HERE/python/requirements.txt"
  "$new/bin/python" -c 'import confluent_kafka, kafka, lz4.frame, snappy, zstandard'
  finished python "$mark"
}
once python "$mark" install_python
