//! Every message, generated from the tables in `schema/`: one module for each, named after it.
//!
//! `messages::produce_request::{ProduceRequest, TopicProduceData, ..}`; the messages themselves are also here by name.
//! Struct and field names are Kafka's, fields in snake case; defaults are Kafka's too.
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
