#!/bin/bash
# Everything the suites use, fetched through the ordinary package clients. Idempotent; safe to run twice at once.
# usage: all.sh [PART...]
dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
failed=0
pids=()
for part in ${*:-java kafka-44 python kcat node go prometheus kubernetes}; do
  bash "$dir/$part.sh" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit $failed
