//! Invariants that are looked at while a run goes on. Their numbers are those of the design.
//!
//! They see what no client sees, so they notice a broken rule before it has done harm: a record that is
//! shown must be with everybody who may ever answer for it, now and not only after the next crash.

use crate::env::{Env, Shown};
use crate::node::{Node, index_of};
use hypercache_cluster::ids::{Member, PartitionId};
use hypercache_cluster::meta::{Command, MetaState, PartitionConfig};

/// Whether the very process that is meant runs.
fn runs(nodes: &[Node], member: Member, env: &Env) -> bool {
    let node = &nodes[index_of(member.node)];
    node.is_up(env) && node.member == Some(member)
}

/// I4, I13, I14: what was shown is with every member in sync, and with everybody who may answer reads.
pub fn check_shown(shown: &Shown, nodes: &[Node], truth: &MetaState, env: &mut Env) {
    let Some(config) = truth.partitions.get(&shown.partition) else { return };
    let p = usize::from(shown.partition.0);
    for node in nodes {
        let Some(slot) = node.slots.get(p).filter(|_| node.is_up(env)) else { continue };
        let is_in_sync = node.member.is_some_and(|m| config.is_in_sync(m));
        let now_us = node.local_us(env);
        let is_primary = slot.partition.serving_term(&env.settings).is_some();
        let answers =
            is_primary && node.has_lease(env) || slot.partition.has_leave(now_us, &env.settings);
        if (is_in_sync || answers) && !slot.partition.contains(shown.id) {
            let (what, id) = (if answers { "answers" } else { "is in sync" }, shown.id);
            let text = format!(
                "I4: {id} of {p} was shown, node {} {what} without it (tail {}, epoch {})",
                node.index,
                slot.partition.tail(),
                config.epoch.0
            );
            env.violate(text);
        }
    }
}

/// I1, I3, I5, I6, I11, I21: what a committed command may do.
pub fn check_command(
    command: &Command,
    before: &MetaState,
    after: &MetaState,
    nodes: &[Node],
    env: &mut Env,
) {
    let Some((partition, _)) = command.subject() else { return };
    let configs = (before.partitions.get(&partition), after.partitions.get(&partition));
    let (Some(old), Some(new)) = configs else { return };
    if old == new {
        return;
    }
    if new.epoch.0 != old.epoch.0 + 1 || command.subject().map(|s| s.1) != Some(old.epoch) {
        env.violate(format!("I1: epoch {} of {partition:?} became {}", old.epoch.0, new.epoch.0));
    }
    check_removed(partition, (old, new), after, env);
    let has_moved = old.primary != new.primary;
    if has_moved && new.losses == old.losses && !old.is_in_sync(new.primary) {
        env.violate(format!("I5: {} was not in sync and is primary", new.primary));
    }
    if new.losses > old.losses && old.isr.iter().any(|m| runs(nodes, *m, env)) {
        env.violate(format!("I21: loss of {partition:?} declared while a member in sync runs"));
    }
    if new.isr.iter().any(|m| !old.is_in_sync(*m) && !after.is_alive(*m)) {
        env.violate(format!("I3: a dead member joined {partition:?}"));
    }
    if matches!(command, Command::Failover { .. }) && has_moved {
        check_lease(old.primary, partition, nodes, env);
    }
}

/// I6: the living leave only while enough are left.
fn check_removed(
    partition: PartitionId,
    (old, new): (&PartitionConfig, &PartitionConfig),
    after: &MetaState,
    env: &mut Env,
) {
    let removed = old.isr.iter().filter(|m| !new.is_in_sync(**m));
    let lives = removed.filter(|m| after.is_alive(**m)).count() > 0;
    if lives && new.isr.len() < usize::from(new.min_sync) && new.losses == old.losses {
        env.violate(format!(
            "I6: {partition:?} has {} in sync, one that lives left",
            new.isr.len()
        ));
    }
}

/// I11: whoever loses a partition does not hold a lease, by its own clock.
fn check_lease(old: Member, partition: PartitionId, nodes: &[Node], env: &mut Env) {
    let node = &nodes[index_of(old.node)];
    let p = usize::from(partition.0);
    let serves = node.slots.get(p).and_then(|s| s.partition.serving_term(&env.settings));
    if runs(nodes, old, env) && node.has_lease(env) && serves.is_some() {
        env.violate(format!("I11: {old} lost {partition:?} while it holds its lease"));
    }
}

/// The end of a run that was calm for long enough: everything is whole again (I22), copies are equal (I8).
pub fn check_end(nodes: &[Node], truth: &MetaState, last_write_us: &[u64], env: &mut Env) {
    for (id, config) in &truth.partitions {
        let p = usize::from(id.0);
        let wanted = usize::from(config.copies).min(nodes.len());
        let in_sync = config.isr.iter().filter(|m| runs(nodes, **m, env)).count();
        if in_sync < wanted || config.isr.len() != in_sync {
            env.violate(format!("I22: {p} has {in_sync} of {wanted} copies: {config:?}"));
            continue;
        }
        if last_write_us[p] < env.plan.faulty_us {
            env.violate(format!("I22: no write to {p} since everything is calm: {config:?}"));
        }
        let slots: Vec<_> =
            config.isr.iter().filter_map(|m| nodes[index_of(m.node)].slots.get(p)).collect();
        let digests: Vec<u32> = slots.iter().map(|slot| slot.data.digest()).collect();
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            env.violate(format!("I8: copies of {p} differ: {digests:?}"));
        }
    }
}
