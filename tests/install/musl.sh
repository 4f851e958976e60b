#!/bin/bash
# What the static binaries are linked with: needed before anything is built.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need musl-gcc musl-tools
# Where rustup does not fetch by itself what rust-toolchain.toml names.
if command -v rustup >/dev/null; then rustup target add "$(uname -m)-unknown-linux-musl" || exit 1; fi
