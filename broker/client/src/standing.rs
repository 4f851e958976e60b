//! Which broker is asked first.
//!
//! A host that hangs still accepts connections, and one that is gone swallows them: each would cost the whole time
//! limit, again and again. So who did not answer is asked last for a while. A leader that is doubted is another matter:
//! it answers, but what it says of the cluster may be old. While a follower is missing, all leaders that wait for it are
//! doubted, and are still to be asked before the one that is gone.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

/// For how long it is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What has been noticed of addresses.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    failed: HashMap<String, Instant>,
    doubted: HashMap<String, Instant>,
}

impl Standing {
    /// It did not answer.
    pub(crate) fn failed(&mut self, address: &str) {
        self.failed.insert(address.to_owned(), Instant::now());
    }

    /// What it answers may be old.
    pub(crate) fn doubted(&mut self, address: &str) {
        self.doubted.insert(address.to_owned(), Instant::now());
    }

    /// Puts addresses into the order in which they are to be asked: brokers before the bootstrap list, which may lead to any
    /// of them; among brokers those that nobody doubts first; those that failed last, the latest at the very end.
    /// Otherwise the order stays as it is.
    pub(crate) fn sort(&mut self, addresses: &mut [String], is_broker: impl Fn(&str) -> bool) {
        self.failed.retain(|_, at| at.elapsed() < REMEMBERED);
        self.doubted.retain(|_, at| at.elapsed() < REMEMBERED);
        addresses.sort_by_key(|address| {
            (self.failed.get(address).copied(), !is_broker(address), self.doubted.get(address).copied())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(standing: &mut Standing) -> String {
        let mut addresses: Vec<String> = ["any", "a", "b", "c"].map(str::to_owned).into();
        standing.sort(&mut addresses, |address| address != "any");
        addresses.join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_doubted_is_asked_before_who_is_gone() {
        let mut standing = Standing::default();
        assert_eq!(sorted(&mut standing), "a b c any");
        // The first is gone; the others lead, and wait for it.
        standing.doubted("b");
        tokio::time::advance(Duration::from_millis(1)).await;
        standing.doubted("c");
        assert_eq!(sorted(&mut standing), "a b c any");
        standing.failed("a");
        assert_eq!(sorted(&mut standing), "b c any a");
        tokio::time::advance(Duration::from_millis(1)).await;
        standing.doubted("b");
        assert_eq!(sorted(&mut standing), "c b any a", "each in turn");
        standing.doubted("a");
        assert_eq!(sorted(&mut standing), "c b any a");
        tokio::time::advance(Duration::from_millis(1)).await;
        standing.failed("any");
        assert_eq!(sorted(&mut standing), "c b a any");
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(sorted(&mut standing), "a b c any");
    }
}
