//! `--throttle`: how fast the cluster may copy, by the configurations that kafka-reassign-partitions sets (KIP-73).
//!
//! When the watching ends early it stays, because the moves go on; who watches them later takes it off, and so does who
//! takes them back.

use std::collections::BTreeSet;
use std::io::{self, Write};

use klamm_client::Client;
use klamm_client::admin::throttle::{self, Throttled};
use serde::Serialize;

use super::before;
use super::carry::Step;
use crate::cli::output::{Format, Show, list, print};
use crate::cli::{CliError, Result};

/// How a throttle that stays is got rid of.
pub(super) const OFF: &str = "the same command again watches on and takes it off in the end, \
                              `klamm reassign throttle off` takes all throttles off now";

/// The brokers and replicas that these steps make work.
pub(super) fn of(steps: &[Step]) -> Throttled {
    let mut throttled = Throttled::default();
    steps.iter().for_each(|step| throttled.add(&step.at, &step.from, &step.to));
    throttled
}

/// Sets the throttle, in bytes a second: before anything moves.
pub(super) async fn apply(client: &Client, throttled: &Throttled, rate: u64) -> Result {
    for (id, was) in throttled.apply(client, rate).await? {
        eprintln!("broker {id} was throttled to {was} bytes a second, to {rate} from now on");
    }
    Ok(())
}

/// Takes the throttle off, as far as nobody else needs it; where somebody does, it says so.
pub(super) async fn remove(client: &Client, throttled: &Throttled) -> Result {
    let needed = throttled.remove(client).await?;
    if !needed.is_empty() {
        let brokers: Vec<i32> = needed.keys().copied().collect();
        let topics: BTreeSet<&str> = needed.values().flatten().map(String::as_str).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        eprintln!(
            "warning: the throttle stays on brokers {}: topics {} have replicas there that others throttle, or move. \
             Where nothing moves any more, `klamm reassign throttle off` takes it off",
            list(&brokers),
            topics.join(", ")
        );
    }
    Ok(())
}

/// Warns of names that no move needs, as a command leaves them that was killed.
pub(super) async fn tell_of_leftovers(client: &Client) -> Result {
    let left = throttle::leftovers(client).await?;
    if !left.is_empty() {
        let topics = left.join(", ");
        eprintln!(
            "warning: throttles of earlier moves are left on topics {topics}: `klamm reassign throttle off` takes them off"
        );
    }
    Ok(())
}

/// What `klamm reassign throttle` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Rate {
    Bytes(u64),
    Off,
}

/// `50000000` or `off`.
pub(super) fn rate(text: &str) -> std::result::Result<Rate, String> {
    match (text, text.parse()) {
        ("off", _) => Ok(Rate::Off),
        (_, Ok(bytes)) if bytes > 0 => Ok(Rate::Bytes(bytes)),
        _ => Err("not a number of bytes a second above 0, nor `off`".to_owned()),
    }
}

/// `klamm reassign throttle`: throttles all that moves to a rate, or takes all throttles off, whatever moves.
pub(super) async fn change(client: &Client, output: Format, rate: Rate) -> Result {
    let Rate::Bytes(bytes) = rate else {
        let (topics, brokers) = throttle::off(client).await?;
        return print(output, &Changed { throttle: None, topics, brokers: brokers.into_iter().collect() });
    };
    let moving = client.reassignments(None).await?;
    let steps: Vec<Step> = moving.into_iter().map(|(at, moving)| before::step(at, &moving, 0)).collect();
    if steps.is_empty() {
        let hint = "--throttle of `klamm reassign execute` is for moves that are to begin";
        return Err(CliError::new("nothing is being moved").hint(hint));
    }
    let throttled = of(&steps);
    apply(client, &throttled, bytes).await?;
    let topics = throttled.topics().map(str::to_owned).collect();
    let brokers = throttled.brokers().iter().copied().collect();
    print(output, &Changed { throttle: Some(bytes), topics, brokers })
}

/// What is throttled from now on, or is not any more.
#[derive(Debug, Serialize)]
struct Changed {
    /// Bytes a second; null for none.
    throttle: Option<u64>,
    topics: Vec<String>,
    brokers: Vec<i32>,
}

impl Show for Changed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let named =
            |what, names: String| if names.is_empty() { format!("no {what}") } else { format!("{what} {names}") };
        let (topics, brokers) = (named("topics", self.topics.join(", ")), named("brokers", list(&self.brokers)));
        match self.throttle {
            Some(rate) => writeln!(out, "moves of {topics} are throttled to {rate} bytes a second on {brokers}"),
            None if self.topics.is_empty() && self.brokers.is_empty() => writeln!(out, "nothing was throttled"),
            None => writeln!(out, "throttles are taken off {topics} and {brokers}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_bytes_a_second_or_off() {
        assert_eq!((rate("off"), rate("5000")), (Ok(Rate::Off), Ok(Rate::Bytes(5000))));
        assert!(["0", "-1", "on", "5k", ""].into_iter().all(|text| rate(text).is_err()));
    }
}
