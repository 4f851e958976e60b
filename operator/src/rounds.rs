//! Questions of many callers, put together: while one round is under way, the next one collects.
//!
//! No timer: a caller who is alone is answered at once, and the more callers there are, the larger the rounds become.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

/// How many callers may wait before further ones wait for them.
const QUEUE: usize = 1024;

/// See the module's head. The rounds end when this is dropped.
#[derive(Debug)]
pub struct Rounds<Q, A>(mpsc::Sender<(Q, oneshot::Sender<A>)>);

impl<Q: Send + 'static, A: Send + 'static> Rounds<Q, A> {
    /// `round` answers at most `most` questions at once, in their order.
    pub fn new<F, Fut>(most: usize, round: F) -> Self
    where
        F: Fn(Vec<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<A>> + Send,
    {
        let (sender, mut queue) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while queue.recv_many(&mut waiting, most).await > 0 {
                let (questions, replies): (Vec<Q>, Vec<oneshot::Sender<A>>) = waiting.drain(..).unzip();
                for (reply, answer) in replies.into_iter().zip(round(questions).await) {
                    // Whoever asked may have gone.
                    let _ = reply.send(answer);
                }
            }
        });
        Self(sender)
    }

    /// The answer; `None` when a round had none for this question.
    pub async fn ask(&self, question: Q) -> Option<A> {
        let (reply, answer) = oneshot::channel();
        self.0.send((question, reply)).await.ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_comes_while_a_round_is_under_way_is_in_the_next() {
        let (rounds, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (seen, passed) = (Arc::clone(&rounds), Arc::clone(&gate));
        let asked = Rounds::new(3, move |questions: Vec<u32>| {
            seen.lock().push(questions.len());
            let passed = Arc::clone(&passed);
            async move {
                passed.acquire().await.unwrap().forget();
                // The last question of a round of three has no answer.
                questions.into_iter().take(2).map(|question| question * 2).collect()
            }
        });
        let asked = Arc::new(asked);
        let callers: Vec<_> = (0..5)
            .map(|n| {
                let asked = Arc::clone(&asked);
                tokio::spawn(async move { asked.ask(n).await })
            })
            .collect();
        while rounds.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        gate.add_permits(100);
        let mut answers = Vec::new();
        for caller in callers {
            answers.push(caller.await.unwrap());
        }
        let sizes = rounds.lock().clone();
        assert_eq!(sizes.iter().sum::<usize>(), 5, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 3) && sizes.len() < 5, "{sizes:?}");
        for (n, answer) in (0..).zip(answers) {
            assert!(answer.is_none_or(|answer| answer == n * 2), "{n}: {answer:?}");
        }
    }
}
