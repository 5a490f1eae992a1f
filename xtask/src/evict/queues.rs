//! Reference policies made of queues: FIFO, LRU, SIEVE, 2Q, ARC and S3-FIFO. Our own code, after the
//! papers named.

use super::cache::{Cache, Setup};

const NONE: u32 = u32::MAX;

/// Links of all objects; each is in one queue at most.
struct Links {
    older: Vec<u32>,
    newer: Vec<u32>,
    /// Number of the queue that an object is in; 0: none.
    home: Vec<u8>,
}

impl Links {
    fn new(objects: usize) -> Self {
        Links { older: vec![NONE; objects], newer: vec![NONE; objects], home: vec![0; objects] }
    }

    fn home(&self, id: u32) -> u8 {
        self.home[id as usize]
    }
}

/// A queue of objects, the newest first.
struct Queue {
    number: u8,
    oldest: u32,
    newest: u32,
    bytes: u64,
}

impl Queue {
    fn new(number: u8) -> Self {
        Queue { number, oldest: NONE, newest: NONE, bytes: 0 }
    }

    fn push(&mut self, links: &mut Links, id: u32, bytes: u64) {
        let at = id as usize;
        (links.older[at], links.newer[at], links.home[at]) = (self.newest, NONE, self.number);
        match self.newest {
            NONE => self.oldest = id,
            newest => links.newer[newest as usize] = id,
        }
        self.newest = id;
        self.bytes += bytes;
    }

    fn remove(&mut self, links: &mut Links, id: u32, bytes: u64) {
        let (older, newer) = (links.older[id as usize], links.newer[id as usize]);
        match older {
            NONE => self.oldest = newer,
            older => links.newer[older as usize] = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => links.older[newer as usize] = older,
        }
        links.home[id as usize] = 0;
        self.bytes -= bytes;
    }

    fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }
}

/// First in, first out; or, where a use makes an object the newest, least recently used.
pub(super) struct Recency {
    setup: Setup,
    links: Links,
    queue: Queue,
    is_lru: bool,
}

impl Recency {
    pub(super) fn new(setup: Setup, is_lru: bool) -> Self {
        Recency { links: Links::new(setup.objects()), queue: Queue::new(1), setup, is_lru }
    }
}

impl Cache for Recency {
    fn request(&mut self, id: u32, _at: usize) -> bool {
        let (Recency { setup, links, queue, is_lru }, bytes) = (self, 0);
        let bytes = setup.bytes(id) + bytes;
        let is_hit = links.home(id) != 0;
        if is_hit && *is_lru {
            queue.remove(links, id, bytes);
            queue.push(links, id, bytes);
        }
        if is_hit || bytes > setup.capacity {
            return is_hit;
        }
        while queue.bytes + bytes > setup.capacity {
            let victim = queue.oldest;
            queue.remove(links, victim, setup.bytes(victim));
        }
        queue.push(links, id, bytes);
        false
    }
}

/// Zhang et al., "SIEVE is simpler than LRU", NSDI 2024.
pub(super) struct Sieve {
    setup: Setup,
    links: Links,
    queue: Queue,
    visited: Vec<bool>,
    hand: u32,
}

impl Sieve {
    pub(super) fn new(setup: Setup) -> Self {
        let objects = setup.objects();
        let (links, queue) = (Links::new(objects), Queue::new(1));
        Sieve { setup, links, queue, visited: vec![false; objects], hand: NONE }
    }

    fn evict(&mut self) {
        let mut at = if self.hand == NONE { self.queue.oldest } else { self.hand };
        while self.visited[at as usize] {
            self.visited[at as usize] = false;
            at = self.links.newer[at as usize];
            if at == NONE {
                at = self.queue.oldest;
            }
        }
        self.hand = self.links.newer[at as usize];
        self.queue.remove(&mut self.links, at, self.setup.bytes(at));
    }
}

impl Cache for Sieve {
    fn request(&mut self, id: u32, _at: usize) -> bool {
        if self.links.home(id) != 0 {
            self.visited[id as usize] = true;
            return true;
        }
        let bytes = self.setup.bytes(id);
        if bytes > self.setup.capacity {
            return false;
        }
        while self.queue.bytes + bytes > self.setup.capacity {
            self.evict();
        }
        self.visited[id as usize] = false;
        self.queue.push(&mut self.links, id, bytes);
        false
    }
}

/// Johnson and Shasha, "2Q: a low overhead high performance buffer management replacement algorithm",
/// VLDB 1994: a quarter for newcomers, half as much remembered of those that left it.
pub(super) struct TwoQueues {
    setup: Setup,
    links: Links,
    new: Queue,
    gone: Queue,
    main: Queue,
}

impl TwoQueues {
    pub(super) fn new(setup: Setup) -> Self {
        let links = Links::new(setup.objects());
        TwoQueues { setup, links, new: Queue::new(1), gone: Queue::new(2), main: Queue::new(3) }
    }

    fn make_room(&mut self, bytes: u64) {
        let TwoQueues { setup, links, new, gone, main } = self;
        while new.bytes + main.bytes + bytes > setup.capacity {
            if new.bytes > setup.capacity / 4 || main.oldest().is_none() {
                let victim = new.oldest;
                new.remove(links, victim, setup.bytes(victim));
                gone.push(links, victim, setup.bytes(victim));
                while gone.bytes > setup.capacity / 2 {
                    let oldest = gone.oldest;
                    gone.remove(links, oldest, setup.bytes(oldest));
                }
            } else {
                let victim = main.oldest;
                main.remove(links, victim, setup.bytes(victim));
            }
        }
    }
}

impl Cache for TwoQueues {
    fn request(&mut self, id: u32, _at: usize) -> bool {
        let bytes = self.setup.bytes(id);
        match self.links.home(id) {
            1 => return true,
            3 => {
                self.main.remove(&mut self.links, id, bytes);
                self.main.push(&mut self.links, id, bytes);
                return true;
            }
            _ if bytes > self.setup.capacity => return false,
            2 => {
                self.gone.remove(&mut self.links, id, bytes);
                self.make_room(bytes);
                self.main.push(&mut self.links, id, bytes);
            }
            _ => {
                self.make_room(bytes);
                self.new.push(&mut self.links, id, bytes);
            }
        }
        false
    }
}

/// Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003; in bytes.
pub(super) struct Arc {
    setup: Setup,
    links: Links,
    /// Used once and more than once; then what is remembered of either.
    queues: [Queue; 4],
    /// Bytes that those that were used once are to have.
    target: u64,
}

impl Arc {
    pub(super) fn new(setup: Setup) -> Self {
        let links = Links::new(setup.objects());
        Arc { setup, links, queues: [1, 2, 3, 4].map(Queue::new), target: 0 }
    }

    fn remove(&mut self, queue: usize, id: u32) {
        self.queues[queue].remove(&mut self.links, id, self.setup.bytes(id));
    }

    fn push(&mut self, queue: usize, id: u32) {
        self.queues[queue].push(&mut self.links, id, self.setup.bytes(id));
    }

    fn make_room(&mut self, bytes: u64, is_of_second: bool) {
        while self.queues[0].bytes + self.queues[1].bytes + bytes > self.setup.capacity {
            let once = self.queues[0].bytes;
            let takes_once = once > 0
                && (once > self.target
                    || (is_of_second && once == self.target)
                    || self.queues[1].oldest().is_none());
            let from = usize::from(!takes_once);
            let victim = self.queues[from].oldest;
            self.remove(from, victim);
            self.push(from + 2, victim);
        }
        let capacity = self.setup.capacity;
        while self.queues[0].bytes + self.queues[2].bytes > capacity
            && let Some(oldest) = self.queues[2].oldest()
        {
            self.remove(2, oldest);
        }
        while self.queues.iter().map(|queue| queue.bytes).sum::<u64>() > 2 * capacity
            && let Some(oldest) = self.queues[3].oldest()
        {
            self.remove(3, oldest);
        }
    }
}

impl Cache for Arc {
    fn request(&mut self, id: u32, _at: usize) -> bool {
        let bytes = self.setup.bytes(id);
        let home = self.links.home(id) as usize;
        let (once, twice) = (self.queues[2].bytes, self.queues[3].bytes);
        match home {
            1 | 2 => {
                self.remove(home - 1, id);
                self.push(1, id);
                return true;
            }
            _ if bytes > self.setup.capacity => return false,
            3 => {
                let by = bytes * (twice / once.max(1)).max(1);
                self.target = (self.target + by).min(self.setup.capacity);
            }
            4 => {
                let by = bytes * (once / twice.max(1)).max(1);
                self.target = self.target.saturating_sub(by);
            }
            _ => {}
        }
        if home != 0 {
            self.remove(home - 1, id);
        }
        self.make_room(bytes, home == 4);
        self.push(usize::from(home != 0), id);
        false
    }
}

/// Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023: a tenth for newcomers,
/// as much remembered as the main queue holds.
pub(super) struct S3Fifo {
    setup: Setup,
    links: Links,
    small: Queue,
    main: Queue,
    gone: Queue,
    uses: Vec<u8>,
}

impl S3Fifo {
    pub(super) fn new(setup: Setup) -> Self {
        let objects = setup.objects();
        let [small, main, gone] = [1, 2, 3].map(Queue::new);
        S3Fifo { links: Links::new(objects), setup, small, main, gone, uses: vec![0; objects] }
    }

    fn evict(&mut self) {
        let S3Fifo { setup, links, small, main, gone, uses } = self;
        let small_max = setup.capacity / 10;
        if small.bytes > small_max || main.oldest().is_none() {
            let victim = small.oldest;
            let bytes = setup.bytes(victim);
            small.remove(links, victim, bytes);
            if std::mem::take(&mut uses[victim as usize]) > 1 {
                main.push(links, victim, bytes);
                return;
            }
            gone.push(links, victim, bytes);
            while gone.bytes > setup.capacity - small_max {
                let oldest = gone.oldest;
                gone.remove(links, oldest, setup.bytes(oldest));
            }
            return;
        }
        let victim = main.oldest;
        let bytes = setup.bytes(victim);
        main.remove(links, victim, bytes);
        if uses[victim as usize] > 0 {
            uses[victim as usize] -= 1;
            main.push(links, victim, bytes);
        }
    }
}

impl Cache for S3Fifo {
    fn request(&mut self, id: u32, _at: usize) -> bool {
        let bytes = self.setup.bytes(id);
        let home = self.links.home(id);
        if matches!(home, 1 | 2) {
            let uses = &mut self.uses[id as usize];
            *uses = (*uses + 1).min(3);
            return true;
        }
        if bytes > self.setup.capacity {
            return false;
        }
        if home == 3 {
            self.gone.remove(&mut self.links, id, bytes);
        }
        while self.small.bytes + self.main.bytes + bytes > self.setup.capacity {
            self.evict();
        }
        self.uses[id as usize] = 0;
        let queue = if home == 3 { &mut self.main } else { &mut self.small };
        queue.push(&mut self.links, id, bytes);
        false
    }
}

/// Einziger, Manes et al., "Adaptive software cache management", Middleware 2018: a window before a
/// segmented LRU that admits by frequency, the window's share found by hill climbing. The frequencies
/// are exact where the original has a sketch, and halved as often.
pub(super) struct TinyLfu {
    setup: Setup,
    links: Links,
    window: Queue,
    probation: Queue,
    protected: Queue,
    frequency: Vec<u8>,
    /// Requests since frequencies were halved.
    counted: u64,
    window_max: f64,
    step: f64,
    /// Of the present and the last period.
    hits: u64,
    requests: u64,
    last_rate: f64,
}

impl TinyLfu {
    pub(super) fn new(setup: Setup) -> Self {
        let (links, frequency) = (Links::new(setup.objects()), vec![0; setup.objects()]);
        let [window, probation, protected] = [1, 2, 3].map(Queue::new);
        let capacity = setup.capacity as f64;
        TinyLfu {
            setup,
            links,
            window,
            probation,
            protected,
            frequency,
            counted: 0,
            window_max: capacity * 0.01,
            step: capacity * 0.0625,
            hits: 0,
            requests: 0,
            last_rate: 0.0,
        }
    }

    /// About how many objects fit.
    fn slots(&self) -> u64 {
        (self.setup.capacity / self.setup.bytes_mean().max(1)).max(1)
    }

    fn count(&mut self, id: u32) {
        let frequency = &mut self.frequency[id as usize];
        *frequency = (*frequency + 1).min(15);
        self.counted += 1;
        if self.counted >= 10 * self.slots() {
            self.frequency.iter_mut().for_each(|frequency| *frequency /= 2);
            self.counted /= 2;
        }
    }

    fn climb(&mut self) {
        self.requests += 1;
        if self.requests < 10 * self.slots() {
            return;
        }
        let rate = self.hits as f64 / self.requests as f64;
        let capacity = self.setup.capacity as f64;
        let is_worse = rate < self.last_rate;
        let direction = if is_worse { -1.0 } else { 1.0 };
        let is_new_ground = (rate - self.last_rate).abs() >= 0.05;
        let size = if is_new_ground { capacity * 0.0625 } else { self.step.abs() * 0.98 };
        self.step = size * self.step.signum() * direction;
        self.window_max = (self.window_max + self.step).clamp(capacity * 0.001, capacity * 0.8);
        (self.last_rate, self.hits, self.requests) = (rate, 0, 0);
    }

    fn hit(&mut self, id: u32) {
        let bytes = self.setup.bytes(id);
        let TinyLfu { setup, links, window, probation, protected, .. } = self;
        match links.home(id) {
            1 => {
                window.remove(links, id, bytes);
                window.push(links, id, bytes);
            }
            2 => {
                probation.remove(links, id, bytes);
                protected.push(links, id, bytes);
                let main = setup.capacity as f64 - self.window_max;
                while protected.bytes as f64 > main * 0.8 {
                    let demoted = protected.oldest;
                    protected.remove(links, demoted, setup.bytes(demoted));
                    probation.push(links, demoted, setup.bytes(demoted));
                }
            }
            _ => {
                protected.remove(links, id, bytes);
                protected.push(links, id, bytes);
            }
        }
    }

    fn used(&self) -> u64 {
        self.window.bytes + self.probation.bytes + self.protected.bytes
    }

    /// Gives up what is least worth: of the window's and the main part's oldest the rarer.
    fn evict(&mut self) {
        let TinyLfu { setup, links, window, probation, protected, frequency, .. } = self;
        let main_max = setup.capacity as f64 - self.window_max;
        while window.bytes as f64 > self.window_max
            && let Some(candidate) = window.oldest()
        {
            let bytes = setup.bytes(candidate);
            window.remove(links, candidate, bytes);
            probation.push(links, candidate, bytes);
            let main = (probation.bytes + protected.bytes) as f64;
            if main > main_max {
                let victim = probation.oldest;
                let of = |id: u32| frequency[id as usize];
                let loser = if of(candidate) > of(victim) { victim } else { candidate };
                probation.remove(links, loser, setup.bytes(loser));
                return;
            }
        }
        for queue in [probation, protected, window] {
            if let Some(victim) = queue.oldest() {
                return queue.remove(links, victim, setup.bytes(victim));
            }
        }
    }
}

impl Cache for TinyLfu {
    fn request(&mut self, id: u32, _at: usize) -> bool {
        self.count(id);
        self.climb();
        if self.links.home(id) != 0 {
            self.hits += 1;
            self.hit(id);
            return true;
        }
        let bytes = self.setup.bytes(id);
        if bytes > self.setup.capacity {
            return false;
        }
        self.window.push(&mut self.links, id, bytes);
        while self.used() > self.setup.capacity {
            self.evict();
        }
        false
    }
}
