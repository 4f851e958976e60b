//! Rules of idempotent producers, one story a test: order, duplicates, epochs, the window of five batches.

use super::*;

fn batch(id: i64, epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
    BatchHeader {
        base_offset: offset,
        last_offset_delta: count - 1,
        records_count: count,
        max_timestamp: offset,
        producer_id: id,
        producer_epoch: epoch,
        base_sequence: sequence,
        ..BatchHeader::default()
    }
}

fn check(p: &Producers, b: &BatchHeader) -> Result<Verdict, LogError> {
    p.check(b, Origin::Client)
}

#[test]
fn the_last_five_batches_are_recognised_wherever_they_come() {
    let mut p = Producers::default();
    for i in 0..7 {
        let b = batch(1, 0, i * 10, 10, i64::from(i) * 10);
        assert_eq!(check(&p, &b).unwrap(), Verdict::Fresh);
        p.note(&b);
    }
    for i in 2..7 {
        let again = batch(1, 0, i * 10, 10, 500);
        let Verdict::Duplicate(found) = check(&p, &again).unwrap() else {
            panic!("batch {i} was taken for new");
        };
        assert_eq!(found.first_offset(), i64::from(i) * 10);
    }
    assert!(matches!(check(&p, &batch(1, 0, 10, 10, 500)), Err(LogError::OutOfOrderSequence { expected: 70, .. })));
    assert!(matches!(check(&p, &batch(1, 0, 60, 9, 500)), Err(LogError::OutOfOrderSequence { .. })));
}

#[test]
fn sequences_wrap_to_zero() {
    let mut p = Producers::default();
    let b = batch(1, 0, i32::MAX - 1, 4, 0);
    assert_eq!(b.last_sequence(), 1);
    p.note(&b);
    assert_eq!(p.get(1).unwrap().batches()[0].first_sequence(), i32::MAX - 1);
    assert!(matches!(check(&p, &b).unwrap(), Verdict::Duplicate(_)));
    assert_eq!(check(&p, &batch(1, 0, 2, 1, 4)).unwrap(), Verdict::Fresh);
    p.note(&batch(2, 0, i32::MAX, 1, 9));
    assert_eq!(check(&p, &batch(2, 0, 0, 1, 4)).unwrap(), Verdict::Fresh);
}

#[test]
fn epochs_only_rise_and_begin_at_sequence_zero() {
    let mut p = Producers::default();
    p.note(&batch(1, 3, 5, 1, 0));
    assert!(matches!(check(&p, &batch(1, 2, 6, 1, 1)), Err(LogError::InvalidProducerEpoch { current: 3, .. })));
    assert!(matches!(check(&p, &batch(1, 4, 6, 1, 1)), Err(LogError::OutOfOrderSequence { expected: 0, .. })));
    let next = batch(1, 4, 0, 1, 1);
    assert_eq!(check(&p, &next).unwrap(), Verdict::Fresh);
    p.note(&next);
    assert_eq!(p.get(1).unwrap().batches().len(), 1);
    // An unknown producer may begin anywhere: its records may have been deleted.
    assert_eq!(check(&p, &batch(9, 4, 77, 1, 1)).unwrap(), Verdict::Fresh);
}

#[test]
fn replication_takes_what_the_leader_took() {
    let mut p = Producers::default();
    p.note(&batch(1, 3, 5, 1, 0));
    for b in [batch(1, 3, 900, 1, 1), batch(1, 3, 5, 1, 1)] {
        assert_eq!(p.check(&b, Origin::Replication).unwrap(), Verdict::Fresh);
    }
}

fn marker_batch(id: i64, epoch: i16, offset: i64) -> BatchHeader {
    BatchHeader { attributes: 0x30, ..batch(id, epoch, -1, 1, offset) }
}

fn txn_batch(id: i64, sequence: i32, offset: i64) -> BatchHeader {
    BatchHeader { attributes: 0x10, ..batch(id, 0, sequence, 10, offset) }
}

#[test]
fn transactions_hold_the_stable_offset_until_their_marker_is_replicated() {
    let mut p = Producers::default();
    p.note(&txn_batch(1, 0, 0));
    p.note(&txn_batch(2, 0, 10));
    p.note(&txn_batch(1, 10, 20));
    assert_eq!(p.first_unstable_offset(), Some(0));
    let abort = EndTxnMarker { commit: false, coordinator_epoch: 4 };
    assert_eq!(
        p.note_marker(&marker_batch(1, 0, 30), &abort),
        Some((CompletedTxn { producer_id: 1, first_offset: 0, last_offset: 30, aborted: true }, 10))
    );
    assert_eq!(p.first_unstable_offset(), Some(0));
    p.on_high_watermark(30);
    assert_eq!(p.first_unstable_offset(), Some(0));
    p.on_high_watermark(31);
    assert_eq!(p.first_unstable_offset(), Some(10));
    let commit = EndTxnMarker { commit: true, coordinator_epoch: 4 };
    let done = p.note_marker(&marker_batch(2, 0, 31), &commit).unwrap();
    assert_eq!((done.0.aborted, done.1), (false, 32));
    // A marker with nothing to end changes no stable offset.
    assert_eq!(p.note_marker(&marker_batch(2, 0, 32), &commit), None);
    assert!(p.check_marker(2, &commit).is_ok());
    let old = EndTxnMarker { coordinator_epoch: 3, ..commit };
    assert!(matches!(p.check_marker(2, &old), Err(LogError::CoordinatorFenced { .. })));
}

#[test]
fn a_plain_batch_inside_a_transaction_is_refused() {
    let mut p = Producers::default();
    p.note(&txn_batch(1, 0, 0));
    assert!(matches!(check(&p, &batch(1, 0, 10, 1, 10)), Err(LogError::InvalidTxnState { producer_id: 1 })));
}

#[test]
fn silent_producers_expire_unless_in_a_transaction() {
    let mut p = Producers::default();
    p.note(&batch(1, 0, 0, 1, 100));
    p.note(&txn_batch(2, 0, 100));
    p.expire(50, 100, 1_000);
    p.expire(50 + 999, 100 + 999, 1_000);
    assert_eq!(p.len(), 2);
    p.expire(50 + 1_000, 100 + 1_000, 1_000);
    assert_eq!(p.len(), 1);
    assert!(p.get(2).is_some());
}

#[test]
fn a_wall_clock_that_jumps_ahead_makes_no_producer_silent() {
    let mut p = Producers::default();
    p.note(&batch(1, 0, 0, 1, 100));
    for now_ms in [10, 20, 30] {
        p.expire(now_ms, 100 + 1_999, 1_000);
    }
    assert_eq!(p.len(), 1);
    // One that speaks now and then is not silent, however old it says its records are.
    for (now_ms, sequence) in [(40, 1), (1_030, 2), (2_020, 3)] {
        p.note(&batch(1, 0, sequence, 1, 100));
        p.expire(now_ms, 1_000_000, 1_000);
        assert_eq!(p.len(), 1);
    }
    p.expire(2_030, 1_000_000, 1_000);
    assert_eq!(p.len(), 0);
}

#[test]
fn markers_are_read_from_control_batches_only() {
    let marker = EndTxnMarker { commit: true, coordinator_epoch: 9 };
    let batch = klamm_protocol::batch::end_txn_marker(5, 1, 100, (7, 2), marker).unwrap();
    assert_eq!(marker_of(&batch), Some(marker));
    for cut in 0..batch.len() {
        assert_eq!(marker_of(&batch[..cut]), None);
    }
}
