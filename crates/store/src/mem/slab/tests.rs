//! Slabs beside a model of them: no two slots overlap, no byte is lost, what is emptied is free.

use super::*;
use crate::mem::classes::{SLOT_MAX, class_of};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Slots that are handed out, by address, with their classes.
#[derive(Default)]
struct Model {
    slots: BTreeMap<usize, usize>,
}

impl Model {
    fn take(&mut self, slabs: &mut Slabs, class: usize, wanted: usize) {
        let mut chain = slabs.take(class, wanted);
        assert!((1..=wanted).contains(&chain.len));
        while let Some(slot) = chain.pop() {
            self.insert(slot, class);
        }
    }

    fn insert(&mut self, slot: usize, class: usize) {
        let bytes = |class: usize| CLASS[class].bytes as usize;
        if let Some((below, other)) = self.slots.range(..=slot).next_back() {
            assert!(below + bytes(*other) <= slot, "overlaps with one below");
        }
        if let Some((above, _)) = self.slots.range(slot..).next() {
            assert!(slot + bytes(class) <= *above, "overlaps with one above");
        }
        guard::allow(slot, bytes(class));
        fill(slot, bytes(class));
        self.slots.insert(slot, class);
    }

    /// Gives the slot back that is so far among all.
    fn give(&mut self, slabs: &mut Slabs, nth: usize) {
        let Some((&slot, &class)) = self.slots.iter().nth(nth % self.slots.len().max(1)) else {
            return;
        };
        self.give_slot(slabs, slot, class);
    }

    fn give_slot(&mut self, slabs: &mut Slabs, slot: usize, class: usize) {
        self.slots.remove(&slot);
        guard::forbid(slot, CLASS[class].bytes as usize);
        let mut chain = Chain::EMPTY;
        chain.push(slot);
        slabs.give(class, chain);
    }

    /// Moves all slots out of closed slabs.
    fn empty(&mut self, slabs: &mut Slabs, order: usize) -> bool {
        let Some((closed, _)) = slabs.close(order) else { return false };
        for Closed { start, class, slots } in closed {
            let end = start + slots * CLASS[class].bytes as usize;
            let there: Vec<usize> = self.slots.range(start..end).map(|(slot, _)| *slot).collect();
            for slot in there {
                self.take(slabs, class, 1);
                self.give_slot(slabs, slot, class);
            }
        }
        assert!(slabs.reopen() > 0, "what was emptied is free");
        true
    }

    fn check(&self, slabs: &Slabs) {
        let used: usize = self.slots.values().map(|class| CLASS[*class].bytes as usize).sum();
        assert_eq!(slabs.used_bytes, used);
        let mut pages = 0;
        let mut free = [0; CLASSES];
        for slab in slabs.regions.iter().flat_map(|region| region.iter()) {
            if slab.part == Part::First {
                let class = &CLASS[slab.class as usize];
                pages += 1 << class.order;
                free[slab.class as usize] += (class.slots - slab.used) as usize;
                assert!(slab.used > 0 && slab.used <= slab.carved);
            }
        }
        assert_eq!(slabs.bins.map(|bin| bin.free), free);
        let prepared = slabs.pages.held_regions() * REGION_PAGES - slabs.pages.free_pages() - pages;
        assert!(prepared == 0 || prepared == REGION_PAGES, "{prepared} pages are lost");
    }
}

/// Writes all of a slot: a process that overlaps slots does not get far.
fn fill(slot: usize, bytes: usize) {
    for word in (slot..slot + bytes).step_by(8) {
        link_of(word).store(usize::MAX, Relaxed);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize, usize),
    Give(usize, usize),
    Empty(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![16..200_usize, 16..4200_usize, 16..=SLOT_MAX];
    prop_oneof![
        4 => (bytes, 1..200_usize).prop_map(|(bytes, n)| Step::Take(class_of(bytes), n)),
        3 => (any::<usize>(), 1..300_usize).prop_map(|(nth, n)| Step::Give(nth, n)),
        1 => prop_oneof![0..=3_usize, Just(ORDER_REGION)].prop_map(Step::Empty),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn slots_never_overlap_and_all_bytes_are_accounted_for(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let (mut slabs, mut model) = (Slabs::new(), Model::default());
        for step in steps {
            match step {
                Step::Take(class, wanted) => model.take(&mut slabs, class, wanted),
                Step::Give(nth, count) => (0..count).for_each(|i| {
                    model.give(&mut slabs, nth.wrapping_add(i * 7919));
                }),
                Step::Empty(order) => _ = model.empty(&mut slabs, order),
            }
            model.check(&slabs);
        }
    }
}

#[test]
fn what_is_sparse_is_emptied_until_little_is_lost() {
    let (mut slabs, mut model) = (Slabs::new(), Model::default());
    let class = class_of(88);
    (0..3000).for_each(|_| model.take(&mut slabs, class, 30));
    let held = slabs.pages.held_regions();
    // Nine of ten go.
    let gone: Vec<usize> = model.slots.keys().copied().collect();
    for slot in gone.into_iter().enumerate().filter(|(i, _)| i % 10 != 0).map(|(_, slot)| slot) {
        model.slots.remove(&slot);
        let mut chain = Chain::EMPTY;
        chain.push(slot);
        slabs.give(class, chain);
    }
    assert_eq!(slabs.pages.held_regions(), held);
    let mut emptied = 0;
    while model.empty(&mut slabs, ORDER_REGION) {
        emptied += 1;
        assert!(emptied < 100, "there is an end");
    }
    model.check(&slabs);
    let needed = slabs.used_bytes.div_ceil(REGION_BYTES);
    let free = slabs.pages.free_pages() / REGION_PAGES;
    assert!(free >= held - needed - 3, "{free} of {held} regions are free, {needed} are needed");
}

#[test]
fn a_full_slab_is_left_alone() {
    let (mut slabs, mut model) = (Slabs::new(), Model::default());
    let class = class_of(16 << 10);
    (0..8).for_each(|_| model.take(&mut slabs, class, 16));
    assert!(!model.empty(&mut slabs, 0) && !model.empty(&mut slabs, ORDER_REGION));
}
