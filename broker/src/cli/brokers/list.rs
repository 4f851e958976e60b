//! What brokers there are, what state each is in, how much it holds and leads.

use std::collections::BTreeMap;
use std::io::{self, Write};

use klamm_client::Client;
use klamm_client::admin::cluster::ClusterDescription;
use serde::Serialize;

use crate::cli::Result;
use crate::cli::output::{Show, Table};
use crate::cli::time::now_ms;

/// A broker.
#[derive(Debug, Serialize)]
pub struct BrokerRow {
    id: i32,
    /// HOST:PORT.
    address: String,
    rack: Option<String>,
    /// `active` or `fenced`.
    state: &'static str,
    /// Whether it gets no new replicas.
    cordoned: bool,
    /// Until when it leads nothing that others can lead, in milliseconds since 1970.
    maintenance_until_ms: Option<i64>,
    replicas: usize,
    leaders: usize,
    /// Replicas that are not in sync.
    out_of_sync: usize,
}

/// The cluster, and all its brokers by id.
pub async fn list(client: &Client) -> Result<(ClusterDescription, Vec<BrokerRow>)> {
    let cluster = client.describe_cluster().await?;
    let topics = client.refresh(None).await?;
    let mut counts: BTreeMap<i32, (usize, usize, usize)> = BTreeMap::new();
    for partition in topics.topics.values().flat_map(|topic| &topic.partitions) {
        for replica in &partition.replicas {
            let count = counts.entry(*replica).or_default();
            count.0 += 1;
            count.1 += usize::from(partition.leader == *replica);
            count.2 += usize::from(!partition.isr.contains(replica));
        }
    }
    let rows = cluster.brokers.iter().map(|b| {
        let (replicas, leaders, out_of_sync) = counts.get(&b.broker.id).copied().unwrap_or_default();
        BrokerRow {
            id: b.broker.id,
            address: b.broker.address(),
            rack: b.broker.rack.clone(),
            state: if b.fenced { "fenced" } else { "active" },
            cordoned: b.cordoned,
            maintenance_until_ms: b.maintenance_until,
            replicas,
            leaders,
            out_of_sync,
        }
    });
    let rows = rows.collect();
    Ok((cluster, rows))
}

impl BrokerRow {
    /// A row for each.
    pub fn table(brokers: &[Self]) -> Table {
        Self::table_at(brokers, now_ms())
    }

    fn table_at(brokers: &[Self], now_ms: i64) -> Table {
        let mut table = Table::new(&["BROKER", "ADDRESS", "RACK", "STATE", "REPLICAS", "LEADERS", "OUT-OF-SYNC"]);
        for b in brokers {
            let cordoned = b.cordoned.then(|| "cordoned".to_owned());
            let maintenance = b.maintenance_until_ms.map(|until| maintenance(until - now_ms));
            let state: Vec<String> = [Some(b.state.to_owned()), cordoned, maintenance].into_iter().flatten().collect();
            table.row([
                b.id.to_string(),
                b.address.clone(),
                b.rack.clone().unwrap_or_default(),
                state.join(", "),
                b.replicas.to_string(),
                b.leaders.to_string(),
                b.out_of_sync.to_string(),
            ]);
        }
        table
    }
}

/// `maintenance for 12 min`. What is over is ended by the controller at once, unless the clocks differ.
fn maintenance(left_ms: i64) -> String {
    match left_ms.max(0).unsigned_abs().div_ceil(1000) {
        seconds @ 0..=120 => format!("maintenance for {seconds} s"),
        seconds @ 121..=7200 => format!("maintenance for {} min", seconds.div_ceil(60)),
        seconds => format!("maintenance for {} h", seconds.div_ceil(3600)),
    }
}

impl Show for Vec<BrokerRow> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        BrokerRow::table(self).write(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_says_all_there_is_to_say() -> io::Result<()> {
        let row = |id: i32, cordoned: bool, until: Option<i64>| BrokerRow {
            id,
            address: "h:9092".to_owned(),
            rack: None,
            state: if id == 0 { "fenced" } else { "active" },
            cordoned,
            maintenance_until_ms: until,
            replicas: 4,
            leaders: 2,
            out_of_sync: 0,
        };
        let rows =
            [row(0, false, Some(91_000)), row(1, true, Some(1_801_000)), row(2, true, None), row(3, false, None)];
        let mut out = Vec::new();
        BrokerRow::table_at(&rows, 1_000).write(&mut out)?;
        let expected = "\
BROKER   ADDRESS   RACK   STATE                                  REPLICAS   LEADERS   OUT-OF-SYNC
0        h:9092    -      fenced, maintenance for 90 s           4          2         0
1        h:9092    -      active, cordoned, maintenance for 30 min   4          2         0
2        h:9092    -      active, cordoned                       4          2         0
3        h:9092    -      active                                 4          2         0
";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&String::from_utf8_lossy(&out)), squeezed(expected));
        assert_eq!(
            (maintenance(-5), maintenance(7_200_000)),
            ("maintenance for 0 s".into(), "maintenance for 120 min".into())
        );
        Ok(())
    }
}
