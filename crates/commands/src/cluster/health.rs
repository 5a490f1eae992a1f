//! Whether a cluster is well, in numbers and in words.

use super::face::{Face, node_name};
use hypercache_cluster::ids::{NodeId, PARTITIONS, SLOTS_PER_PARTITION};
use hypercache_cluster::meta::{NodeState, PartitionConfig};

/// Digits of a node's name that are shown to people.
const SHORT_DIGITS: usize = 8;
/// Ranges of slots that a sentence names; of more it says that there are more.
const RANGES_MAX: usize = 4;

/// See the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Nodes that were not removed.
    pub(crate) nodes: usize,
    /// Those of them that do not answer.
    pub(crate) nodes_down: usize,
    /// Partitions that have a configuration.
    pub(crate) partitions: usize,
    /// Partitions whose primary does not answer, or that have none.
    pub(crate) without_primary: usize,
    /// Partitions with fewer copies in sync than are wanted.
    pub(crate) below_copies: usize,
    /// Partitions with fewer copies in sync than a write needs.
    pub(crate) below_min_sync: usize,
    /// Copies that are being made.
    pub(crate) copies_joining: usize,
    /// How often all copies of a partition were lost.
    pub(crate) losses: u64,
    /// What is wrong, the worst first, a sentence each.
    pub(crate) problems: Vec<String>,
    /// What is worth knowing and not wrong.
    pub(crate) notes: Vec<String>,
}

impl Health {
    /// What a node sees.
    pub(crate) fn of(face: &Face<'_>) -> Health {
        let in_sync = |config: &PartitionConfig| {
            config.isr.iter().filter(|member| face.serves(**member)).count()
        };
        let count = |is: &dyn Fn(&PartitionConfig) -> bool| {
            face.partitions().filter(|(_, config)| is(config)).count()
        };
        let partitions = face.partitions().count();
        let missing = usize::from(PARTITIONS) - partitions;
        let mut health = Health {
            nodes: face.nodes().count(),
            nodes_down: face.nodes().filter(|(node, _)| face.is_down(*node)).count(),
            partitions,
            without_primary: missing + count(&|config| !face.serves(config.primary)),
            below_copies: missing + count(&|config| in_sync(config) < usize::from(config.copies)),
            below_min_sync: missing
                + count(&|config| in_sync(config) < usize::from(config.min_sync)),
            copies_joining: face.partitions().map(|(_, config)| config.learners.len()).sum(),
            losses: face.partitions().map(|(_, config)| u64::from(config.losses)).sum(),
            ..Health::default()
        };
        health.say(face);
        health
    }

    /// `ok`, `degraded` (all is served, and something is missing) or `down` (some is not served).
    pub(crate) fn state(&self) -> &'static str {
        match self {
            _ if self.without_primary > 0 || self.below_min_sync > 0 => "down",
            _ if self.problems.is_empty() => "ok",
            _ => "degraded",
        }
    }

    fn say(&mut self, face: &Face<'_>) {
        if self.partitions == 0 {
            return self.problems.push("The cluster has no partitions yet".into());
        }
        if self.without_primary > 0 {
            let (count, slots) = (self.without_primary, slots_without_primary(face));
            self.problems.push(format!("{} no primary that answers: slots {slots}", have(count)));
        }
        if self.below_min_sync > 0 {
            let have = have(self.below_min_sync);
            self.problems.push(format!("{have} fewer copies in sync than a write needs"));
        }
        if self.below_copies > 0 {
            let (have, joining) = (have(self.below_copies), self.copies_joining);
            let making = match joining {
                0 => "none is being made".to_owned(),
                1 => "1 copy is being made".to_owned(),
                _ => format!("{joining} copies are being made"),
            };
            self.problems.push(format!("{have} fewer copies in sync than wanted; {making}"));
        }
        for (node, _) in face.nodes().filter(|(node, _)| face.is_down(*node)) {
            self.problems.push(format!("{} does not answer", told(face, node)));
        }
        let seen = face.seen();
        if !seen.voters.is_empty() && seen.leader.is_none() {
            let text =
                "The metadata log has no leader: nothing fails over until most voters answer";
            self.problems.push(text.into());
        }
        self.note(face);
    }

    fn note(&mut self, face: &Face<'_>) {
        for (node, entry) in face.nodes() {
            let what = match entry.state {
                NodeState::Joining => "is joining",
                NodeState::Draining => "is being emptied",
                NodeState::Up | NodeState::Removed => continue,
            };
            self.notes.push(format!("{} {what}", told(face, node)));
        }
        let (lost, losses) =
            (face.partitions().filter(|(_, config)| config.losses > 0).count(), self.losses);
        if losses > 0 {
            let were = if lost == 1 { "partition was" } else { "partitions were" };
            let often =
                if losses > lost as u64 { format!(" ({losses} times)") } else { String::new() };
            self.notes.push(format!("{lost} {were} lost with all copies and began anew{often}"));
        }
    }
}

fn have(partitions: usize) -> String {
    let noun = if partitions == 1 { "partition has" } else { "partitions have" };
    format!("{partitions} {noun}")
}

/// A node, as people know it.
fn told(face: &Face<'_>, node: NodeId) -> String {
    let address = face.address(node);
    let name = node_name(node);
    format!("Node {} ({}:{})", &name[..SHORT_DIGITS], address.host, address.port)
}

fn slots_without_primary(face: &Face<'_>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    let served: Vec<bool> = {
        let mut served = vec![false; usize::from(PARTITIONS)];
        for (id, config) in face.partitions() {
            served[usize::from(id.0)] = face.serves(config.primary);
        }
        served
    };
    for (number, _) in served.iter().enumerate().filter(|(_, is_served)| !**is_served) {
        let first = number as u16 * SLOTS_PER_PARTITION;
        let last = first + SLOTS_PER_PARTITION - 1;
        match ranges.last_mut() {
            Some(range) if range.1 + 1 == first => range.1 = last,
            _ => ranges.push((first, last)),
        }
    }
    let shown = ranges.iter().take(RANGES_MAX).map(|(first, last)| format!("{first}-{last}"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let rest = ranges.len().saturating_sub(RANGES_MAX);
    if rest > 0 { format!("{shown} and {rest} more ranges") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{cluster, face, member, partition, view};

    #[test]
    fn a_whole_cluster_is_well() {
        let view = view(cluster(3));
        let health = Health::of(&face(&view, &[]));
        assert_eq!((health.state(), health.problems.len()), ("ok", 0));
        assert_eq!((health.nodes, health.partitions), (3, 1024));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let view = view(cluster(3));
        let health = Health::of(&face(&view, &[3]));
        assert_eq!(health.state(), "down");
        let expected = [
            "341 partitions have no primary that answers: slots 10928-16383",
            "1024 partitions have fewer copies in sync than wanted; none is being made",
            "Node 00000000 (10.0.0.1:7003) does not answer",
        ];
        assert_eq!(health.problems, expected);
    }

    #[test]
    fn missing_copies_are_not_down() {
        let mut meta = cluster(3);
        partition(&mut meta, 7).isr = vec![member(1), member(2)];
        partition(&mut meta, 7).learners = vec![NodeId(3)];
        let view = view(meta);
        let health = Health::of(&face(&view, &[]));
        assert_eq!(health.state(), "degraded");
        let text = "1 partition has fewer copies in sync than wanted; 1 copy is being made";
        assert_eq!(health.problems, [text]);
    }

    #[test]
    fn too_few_copies_for_a_write_are_down() {
        let mut meta = cluster(3);
        partition(&mut meta, 7).isr = vec![member(1)];
        partition(&mut meta, 7).losses = 2;
        let view = view(meta);
        let health = Health::of(&face(&view, &[]));
        assert_eq!((health.state(), health.below_min_sync), ("down", 1));
        assert_eq!(health.notes, ["1 partition was lost with all copies and began anew (2 times)"]);
    }
}
