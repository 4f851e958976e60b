//! Writes the Prometheus text format for metrics that are computed when somebody asks.

use std::fmt::{Display, Write as _};

use super::table::{Def, Kind};

/// A text under construction. Series of one metric must come one after the other: the head is written when the metric
/// changes.
#[derive(Default)]
pub(super) struct Text {
    out: String,
    current: &'static str,
}

impl Text {
    /// The text.
    pub(super) fn finish(self) -> String {
        self.out
    }

    fn head(&mut self, def: &Def) {
        if self.current != def.name {
            self.current = def.name;
            // Writing to a String cannot fail.
            let _ = writeln!(self.out, "# HELP {} {}\n# TYPE {} {}", def.name, def.help, def.name, def.kind.name());
        }
    }

    fn labels(&mut self, names: &[&str], values: &[&str], extra: Option<(&str, &str)>) {
        let pairs = names.iter().copied().zip(values.iter().copied()).chain(extra);
        // A series with an empty label and one without it are the same to Prometheus; the shorter form is JMX's.
        let mut open = '{';
        for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
            let _ = write!(self.out, "{open}{name}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
            open = ',';
        }
        if open == ',' {
            self.out.push('}');
        }
    }

    /// One series of a counter or gauge.
    pub(super) fn value(&mut self, def: &Def, labels: &[&str], value: impl Display) {
        debug_assert_eq!(labels.len(), def.labels.len(), "{}", def.name);
        self.head(def);
        self.out.push_str(def.name);
        self.labels(def.labels, labels, None);
        let _ = writeln!(self.out, " {value}");
    }

    /// One series with a suffix and a further label: what summaries and histograms are made of.
    pub(super) fn part(
        &mut self,
        def: &Def,
        suffix: &str,
        labels: &[&str],
        extra: Option<(&str, &str)>,
        value: impl Display,
    ) {
        debug_assert!(matches!(def.kind, Kind::Summary | Kind::Histogram), "{}", def.name);
        self.head(def);
        let _ = write!(self.out, "{}{suffix}", def.name);
        self.labels(def.labels, labels, extra);
        let _ = writeln!(self.out, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn heads_come_once_and_labels_are_escaped() {
        let mut text = Text::default();
        text.value(&table::X_PARTITIONS, &["a\"\\\n"], 3);
        text.value(&table::X_PARTITIONS, &[""], 4.5);
        text.value(&table::X_BROKERS, &[], 1);
        let expected = "# HELP kafka_topic_partitions Partitions of a topic.\n# TYPE kafka_topic_partitions gauge\n\
                        kafka_topic_partitions{topic=\"a\\\"\\\\\\n\"} 3\nkafka_topic_partitions 4.5\n\
                        # HELP kafka_brokers Brokers of the cluster.\n# TYPE kafka_brokers gauge\nkafka_brokers 1\n";
        assert_eq!(text.finish(), expected);
    }
}
