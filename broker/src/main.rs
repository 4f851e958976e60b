//! The `klamm` binary: the broker and its command-line tools.

fn main() {
    println!("klamm {}", env!("CARGO_PKG_VERSION"));
}
