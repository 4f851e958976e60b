//! The `klamm` binary: the broker and its command-line tools.

use std::process::ExitCode;

fn main() -> ExitCode {
    klamm::cli::main()
}
