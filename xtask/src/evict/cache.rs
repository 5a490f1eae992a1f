//! What all simulated caches have in common.

use super::trace::Trace;
use std::rc::Rc;

/// A cache that a trace is run through.
pub(super) trait Cache {
    /// Requests an object, at this index of the trace, and keeps it if it was not there. Returns whether
    /// it was.
    fn request(&mut self, id: u32, at: usize) -> bool;
}

/// What a cache is made for.
#[derive(Clone)]
pub(super) struct Setup {
    /// Bytes that objects and what the policy keeps of them may take.
    pub(super) capacity: u64,
    pub(super) trace: Rc<Trace>,
    /// Bytes that the policy keeps per object.
    pub(super) overhead: u64,
}

impl Setup {
    /// Bytes that an object in the cache takes.
    pub(super) fn bytes(&self, id: u32) -> u64 {
        u64::from(self.trace.sizes[id as usize]) + self.overhead
    }

    pub(super) fn bytes_mean(&self) -> u64 {
        self.trace.footprint() / self.objects() as u64 + self.overhead
    }

    pub(super) fn objects(&self) -> usize {
        self.trace.sizes.len()
    }
}

/// The objects in a cache, to draw from at random.
pub(super) struct Residents {
    ids: Vec<u32>,
    /// One more than where an object is in `ids`; 0: it is not.
    places: Vec<u32>,
    pub(super) bytes: u64,
}

impl Residents {
    pub(super) fn new(objects: usize) -> Self {
        Residents { ids: Vec::new(), places: vec![0; objects], bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.places[id as usize] != 0
    }

    pub(super) fn get(&self, place: usize) -> u32 {
        self.ids[place % self.ids.len()]
    }

    pub(super) fn insert(&mut self, id: u32, bytes: u64) {
        self.ids.push(id);
        self.places[id as usize] = self.ids.len() as u32;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, id: u32, bytes: u64) {
        let place = std::mem::take(&mut self.places[id as usize]) as usize - 1;
        self.ids.swap_remove(place);
        if let Some(&moved) = self.ids.get(place) {
            self.places[moved as usize] = place as u32 + 1;
        }
        self.bytes -= bytes;
    }
}
