//! What a seed decides before anything happens: the cluster, how durable it is, what goes wrong and how often.

use crate::random::Random;

/// One run's circumstances.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: i32,
    pub partitions: i32,
    pub min_isr: i32,
    /// `flush.messages=1`: what is acknowledged is on the disks that acknowledged it.
    pub synced: bool,
    pub segment_bytes: u32,
    /// Microseconds until the healing begins.
    pub length_us: i64,
    /// One message in so many is lost; 0 for none.
    pub drop_one_in: u64,
    /// One in so many is held up for long; 0 for none.
    pub hold_one_in: u64,
    /// Mean time between two faults, microseconds.
    pub fault_every_us: i64,
    /// How likely each kind of fault is, by [`Fault`]'s order.
    pub weights: [u64; Fault::ALL.len()],
    pub producers: usize,
    pub reassigns: bool,
    /// Members of a group that is balanced.
    pub members: usize,
    /// Records are deleted now and then.
    pub trims: bool,
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill,
    PowerLoss,
    CleanStop,
    Pause,
    /// Nothing goes from one node to another.
    OneWay,
    /// A node is cut off both ways.
    Isolate,
    Heal,
    /// Another node decides from now on.
    Failover,
    /// A node hears of no metadata for long.
    Deaf,
    /// The wall clock of a node jumps.
    ClockJump,
    /// The preferred replicas get their leaderships back.
    Balance,
    /// A partition moves.
    Reassign,
    /// A disk is replaced by an empty one.
    Wipe,
    /// A bit of a file that can be made again has flipped while nobody looked.
    Flip,
}

impl Fault {
    pub const ALL: [Fault; 14] = [
        Fault::Kill,
        Fault::PowerLoss,
        Fault::CleanStop,
        Fault::Pause,
        Fault::OneWay,
        Fault::Isolate,
        Fault::Heal,
        Fault::Failover,
        Fault::Deaf,
        Fault::ClockJump,
        Fault::Balance,
        Fault::Reassign,
        Fault::Wipe,
        Fault::Flip,
    ];
}

impl Plan {
    /// The plan of a seed.
    pub fn of(random: &mut Random) -> Self {
        let mut weights = [0; Fault::ALL.len()];
        for weight in &mut weights {
            // Some kinds stay away for a whole run, so that others are seen at length.
            *weight = if random.one_in(3) { 0 } else { 1 + random.below(8) };
        }
        weights[Fault::Heal as usize] += 4;
        let reassigns = random.one_in(3);
        Self {
            nodes: if reassigns { 4 + random.below(2) as i32 } else { 3 + i32::from(random.one_in(4)) },
            partitions: 1 + i32::from(random.one_in(3)),
            min_isr: 2 - i32::from(random.one_in(4)),
            synced: random.one_in(2),
            segment_bytes: random.pick(&[300, 700, 2_000, 1 << 20]).unwrap_or(700),
            length_us: random.between(250_000, 1_200_000),
            drop_one_in: random.pick(&[0, 10, 40, 200]).unwrap_or(0),
            hold_one_in: random.pick(&[0, 15, 60]).unwrap_or(0),
            fault_every_us: random.pick(&[40_000, 100_000, 250_000]).unwrap_or(100_000),
            weights,
            producers: 1 + random.below(3) as usize,
            reassigns,
            members: if random.one_in(2) { 2 + random.below(2) as usize } else { 0 },
            trims: random.one_in(4),
        }
    }

    /// Draws a fault.
    pub fn fault(&self, random: &mut Random) -> Fault {
        let mut at = random.below(self.weights.iter().sum());
        for (fault, weight) in Fault::ALL.into_iter().zip(self.weights) {
            if at < weight {
                return fault;
            }
            at -= weight;
        }
        Fault::Heal
    }
}
