#!/bin/bash
# kcat, the command-line client over librdkafka, from Debian.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kcat kcat
