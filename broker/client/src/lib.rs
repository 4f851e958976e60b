//! A small Kafka client: inter-broker, CLI, operator, tests.
