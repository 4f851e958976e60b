//! A Kafka broker as one static binary.
