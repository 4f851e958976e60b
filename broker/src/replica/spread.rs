//! Work on many partitions, spread over a few threads, and how far it has got.
//!
//! Opening and closing logs waits for the disk most of the time. Each thread takes the next item when it is done with
//! one, so that a partition that takes long holds up nobody but itself. Results keep the items' order.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How far work has got; anybody may look.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicUsize,
    total: AtomicUsize,
}

impl Progress {
    /// How many items are done, of how many; `None` when no work is under way.
    pub fn get(&self) -> Option<(usize, usize)> {
        let total = self.total.load(Ordering::Acquire);
        (total > 0).then(|| (self.done.load(Ordering::Acquire).min(total), total))
    }

    /// Does `work` on each item, on `threads` threads; returns when all is done.
    ///
    /// # Panics
    /// When `work` does.
    pub fn spread<T: Sync, R: Send>(&self, threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        self.done.store(0, Ordering::Release);
        self.total.store(items.len(), Ordering::Release);
        let next = AtomicUsize::new(0);
        let run = || {
            let mut results = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return results };
                results.push((at, work(item)));
                self.done.fetch_add(1, Ordering::AcqRel);
            }
        };
        let mut all = Vec::with_capacity(items.len());
        std::thread::scope(|scope| {
            let others = threads.max(1).min(items.len()).saturating_sub(1);
            let others: Vec<_> = (0..others).map(|_| scope.spawn(run)).collect();
            all.extend(run());
            for other in others {
                match other.join() {
                    Ok(results) => all.extend(results),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        self.total.store(0, Ordering::Release);
        all.sort_unstable_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_whatever_the_number_of_threads() {
        for threads in [0, 1, 2, 7, 200] {
            for count in [0usize, 1, 5, 100] {
                let items: Vec<usize> = (0..count).collect();
                let progress = Progress::default();
                let doubled = progress.spread(threads, &items, |n| {
                    let (done, total) = progress.get().unwrap();
                    assert!(done < total && total == count);
                    n * 2
                });
                assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
                assert_eq!(progress.get(), None);
            }
        }
    }

    #[test]
    fn one_that_takes_long_does_not_hold_up_the_others() {
        let (tell, told) = std::sync::mpsc::channel();
        let told = std::sync::Mutex::new(told);
        // The first item waits until the last one is done, which only another thread can do.
        Progress::default().spread(2, &[0, 1, 2, 3], |n| match n {
            0 => told.lock().unwrap().recv().unwrap(),
            3 => tell.send(()).unwrap(),
            _ => {}
        });
    }
}
