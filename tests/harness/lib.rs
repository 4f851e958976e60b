//! Harness for the suites: real binaries, real clients, real files.
