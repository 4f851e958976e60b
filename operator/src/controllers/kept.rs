//! What of an object stays in memory: all resources of a kind are held there, whoever made them, and however many there are.

use std::io::Write;
use std::mem::take;

use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;

use super::Watched;
use super::malformed::WHY;
use crate::crd::is_ours;
use crate::words::cut;

/// How large the description of a resource may be, with its labels and annotations; in bytes, as JSON. Nobody who means it
/// needs so much: the largest that the API server takes are ten times as large.
const LARGEST: usize = 128 << 10;

/// What an annotation may take that is somebody else's: whoever sets one, whatever it says, asks for a look by that. What is
/// larger is a copy of something.
const NOTE: usize = 256;

/// Takes away what is of no interest here. What is too large cannot be read, as far as the operator is concerned.
pub fn trim<K: Watched>(object: &mut DeserializeGuard<K>) {
    // Who wrote what is often the larger part.
    object.meta_mut().managed_fields = None;
    let size = size(object.meta()) + object.0.as_ref().map_or(0, |object| size(object.spec()));
    object.annotations_mut().retain(|key, value| is_ours(key) || key.len() + value.len() <= NOTE);
    if size > LARGEST {
        object.labels_mut().clear();
        object.annotations_mut().retain(|key, _| is_ours(key));
        let error = format!("it takes {size} bytes with its labels and annotations, of {LARGEST} at most");
        object.0 = Err(InvalidObject { error, metadata: object.meta().clone() });
    }
    if let Err(unread) = &mut object.0 {
        unread.error = cut(take(&mut unread.error), WHY);
    }
}

/// What something takes as JSON.
fn size(of: &impl Serialize) -> usize {
    let mut count = Count(0);
    // It is written to nowhere.
    let _ = serde_json::to_writer(&mut count, of);
    count.0
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::Topic;

    fn kept(metadata: Value, spec: Value) -> DeserializeGuard<Topic> {
        let mut object = json!({ "metadata": { "name": "t", "namespace": "a", "uid": "u" }, "spec": spec });
        metadata.as_object().unwrap().iter().for_each(|(key, value)| object["metadata"][key] = value.clone());
        let mut object = serde_json::from_value(object).unwrap();
        trim(&mut object);
        object
    }

    fn spec(bytes: usize) -> Value {
        json!({ "bootstrapServers": "b:9092", "config": { "k": "x".repeat(bytes) } })
    }

    #[test]
    fn copies_are_not_kept_among_annotations() {
        let copy = "x".repeat(300);
        let notes = json!({ "klamm.dev/paused": copy, "klamm.dev.x/paused": copy, "klamm.dev": copy, "look": "now" });
        let object = kept(json!({ "annotations": notes, "managedFields": [{}] }), spec(100_000));
        let meta = object.0.expect("a Topic").metadata;
        assert!(meta.annotations.expect("two").into_keys().eq(["klamm.dev/paused", "look"]));
        assert_eq!(meta.managed_fields, None);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let much = "x".repeat(140_000);
        let large = [
            kept(json!({ "finalizers": ["klamm.dev/topic"] }), spec(140_000)),
            kept(json!({ "annotations": { "a/b": much } }), spec(1)),
            kept(json!({ "labels": { "a": much } }), spec(1)),
            kept(json!({ "labels": { "a": much } }), json!({ "bootstrapServers": 7 })),
        ];
        for object in large {
            let unread = object.0.expect_err("it is too large");
            assert!(unread.error.starts_with("it takes 140") && unread.error.len() < 100, "{}", unread.error);
            assert!(size(&unread.metadata) < 200, "{:?}", unread.metadata);
            assert_eq!(unread.metadata.uid.as_deref(), Some("u"));
        }
        let unread = kept(json!({}), json!({ "bootstrapServers": "b:1", "partitions": much })).0.unwrap_err();
        assert!(unread.error.len() < 1100, "what is wrong quotes what was found: {}", unread.error.len());
        let finalizers = kept(json!({ "finalizers": ["klamm.dev/topic"] }), spec(140_000)).meta().finalizers.clone();
        assert_eq!(finalizers, Some(vec!["klamm.dev/topic".into()]));
    }
}
