//! What is near a place: one search with many names.
//!
//! The area is covered by at most nine cells of the grid, each a range of scores; what these hold is
//! looked at one by one.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::geo::{BASE, parse_place, parse_unit, reply_distance, reply_place};
use crate::geohash::{Place, Shape, covering};
use crate::table::{Command, Flags, KeyFlags, Keys};
use crate::zset::READ;
use crate::zset_range::{SOURCE, STORED, store};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::types::{Collection, Edge, SortedSet, SortedSetOp};

const STORE_WORDS: &[&str] = &["STORE", "STOREDIST"];
const BEHIND_PLACE: Keys = stored_behind(6);
const BEHIND_MEMBER: Keys = stored_behind(5);
const STORES: Flags = Flags::WRITE.or(Flags::DENY_OOM);
const COST: &str = "O(N+log(M)): N members in the cells around, M in the set";

const fn stored_behind(from: usize) -> Keys {
    Keys::Behind { words: STORE_WORDS, from, flags: KeyFlags::OW.or(KeyFlags::UPDATE) }
}

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "GEOSEARCH",
        since: "6.2.0",
        arity: -7,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| search(cx, args, &Form { has_words: true, ..Form::NAMED }),
        summary: "Members within a circle or a box around a place or a member.",
        complexity: COST,
        syntax: "key <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius <M | KM | FT | MI> | BYBOX width height <M | KM | FT | MI>> [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania\n(integer) 2\n> GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST\n1) 1) \"Catania\"\n   2) \"56.4413\"\n2) 1) \"Palermo\"\n   2) \"190.4424\"",
        ..BASE
    },
    Command {
        name: "GEOSEARCHSTORE",
        since: "6.2.0",
        arity: -8,
        keys: Keys::Two(&STORED, &SOURCE),
        flags: STORES,
        run: |cx, args| search(cx, args, &Form { has_words: true, source: 2, ..Form::NAMED }),
        summary: "Stores what GEOSEARCH finds, with scores or distances; answers how many.",
        complexity: COST,
        syntax: "destination source <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius <M | KM | FT | MI> | BYBOX width height <M | KM | FT | MI>> [ASC | DESC] [COUNT count [ANY]] [STOREDIST]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania\n(integer) 2\n> GEOSEARCHSTORE d g FROMMEMBER Palermo BYBOX 20 20 km\n(integer) 1\n> ZRANGE d 0 -1\n1) \"Palermo\"",
        ..BASE
    },
    Command {
        name: "GEORADIUS",
        arity: -6,
        keys: Keys::Two(&READ, &BEHIND_PLACE),
        flags: STORES.or(Flags::MOVABLE_KEYS),
        run: |cx, args| search(cx, args, &Form { may_store: true, ..Form::NAMED }),
        summary: "Members within a circle around a place: use GEOSEARCH.",
        complexity: COST,
        syntax: "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE key] [STOREDIST key]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania\n(integer) 2\n> GEORADIUS g 15 37 100 km\n1) \"Catania\"\n> GEORADIUS g 15 37 100 km STOREDIST d\n(integer) 1",
        ..BASE
    },
    Command {
        name: "GEORADIUS_RO",
        since: "3.2.10",
        arity: -6,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| search(cx, args, &Form::NAMED),
        summary: "GEORADIUS that never writes.",
        complexity: COST,
        syntax: "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo\n(integer) 1\n> GEORADIUS_RO g 15 37 200 km WITHHASH\n1) 1) \"Palermo\"\n   2) (integer) 3479099956230698",
        ..BASE
    },
    Command {
        name: "GEORADIUSBYMEMBER",
        arity: -5,
        keys: Keys::Two(&READ, &BEHIND_MEMBER),
        flags: STORES.or(Flags::MOVABLE_KEYS),
        run: |cx, args| {
            search(cx, args, &Form { is_by_member: true, may_store: true, ..Form::NAMED })
        },
        summary: "Members within a circle around a member: use GEOSEARCH.",
        complexity: COST,
        syntax: "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE key] [STOREDIST key]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania\n(integer) 2\n> GEORADIUSBYMEMBER g Palermo 200 km\n1) \"Palermo\"\n2) \"Catania\"",
        ..BASE
    },
    Command {
        name: "GEORADIUSBYMEMBER_RO",
        since: "3.2.10",
        arity: -5,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| search(cx, args, &Form { is_by_member: true, ..Form::NAMED }),
        summary: "GEORADIUSBYMEMBER that never writes.",
        complexity: COST,
        syntax: "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo\n(integer) 1\n> GEORADIUSBYMEMBER_RO g Palermo 1 m\n1) \"Palermo\"",
        ..BASE
    },
];

/// What a command's name says of the search.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// Number of the argument that is the key; 2 if the first is where the result goes.
    source: usize,
    /// Whether words say what is searched, as GEOSEARCH has it; else it is said by the order.
    has_words: bool,
    /// Whether the place is a member's.
    is_by_member: bool,
    /// Whether there may be STORE and STOREDIST with a key.
    may_store: bool,
}

impl Form {
    const NAMED: Form = Form { source: 1, has_words: false, is_by_member: false, may_store: false };
}

/// The place that is searched around.
#[derive(Clone, Copy, Debug)]
enum Centre {
    At(Place),
    /// A member's of a set that does not exist.
    Nowhere,
}

/// A search, read.
#[derive(Clone, Copy, Debug, Default)]
struct Query<'a> {
    centre: Option<Centre>,
    /// Whether the centre was given as a member; the last word counts, but not one of each kind.
    is_at_member: bool,
    shape: Option<Shape>,
    /// Meters of the unit.
    unit: f64,
    with_distance: bool,
    with_score: bool,
    with_place: bool,
    /// Whether the nearest comes first, or last.
    is_ascending: Option<bool>,
    count: Option<usize>,
    takes_any: bool,
    target: Option<&'a [u8]>,
    stores_distances: bool,
}

/// A member that was found.
#[derive(Debug)]
struct Found {
    member: Vec<u8>,
    score: f64,
    distance: f64,
    place: Place,
}

fn member_place(cx: &mut Cx<'_>, key: &[u8], member: &[u8]) -> Result<Centre, ReplyError> {
    let Some(set) = cx.keys.read_uncounted::<SortedSet>(key)? else { return Ok(Centre::Nowhere) };
    let score = set.score(member);
    let place = score.map(|score| Centre::At(Place::of_score(score)));
    place.ok_or(ReplyError::Text("ERR could not decode requested zset member"))
}

/// Reads a length; what is none has an error of its own.
fn parse_length(text: &[u8], none: &'static str) -> Result<f64, ReplyError> {
    number::parse_f64(text).ok_or(ReplyError::Text(none))
}

fn refuse(cx: &mut Cx<'_>, text: &[&[u8]]) -> ReplyError {
    cx.reply.error(&text.concat());
    ReplyError::Written
}

impl<'a> Query<'a> {
    /// Reads radius and unit.
    fn set_circle(&mut self, args: Args<'_>, at: usize) -> Outcome {
        let radius = parse_length(args.get(at), "ERR need numeric radius")?;
        if radius < 0.0 {
            return Err(ReplyError::Text("ERR radius cannot be negative"));
        }
        self.unit = parse_unit(args.get(at + 1))?;
        self.shape = Some(Shape::Circle(radius * self.unit));
        Ok(())
    }

    /// Reads width, height and unit.
    fn set_box(&mut self, args: Args<'_>, at: usize) -> Outcome {
        let width = parse_length(args.get(at), "ERR need numeric width")?;
        let height = parse_length(args.get(at + 1), "ERR need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err(ReplyError::Text("ERR height or width cannot be negative"));
        }
        self.unit = parse_unit(args.get(at + 2))?;
        self.shape = Some(Shape::Box(width * self.unit, height * self.unit));
        Ok(())
    }

    fn parse(cx: &mut Cx<'_>, args: Args<'a>, form: &Form) -> Result<Self, ReplyError> {
        let mut query = Query::default();
        let mut at = form.source + 1;
        if form.source == 2 {
            query.target = Some(args.get(1));
        }
        if !form.has_words {
            at = if form.is_by_member { 3 } else { 4 };
            query.centre = Some(match form.is_by_member {
                true => member_place(cx, args.get(1), args.get(2))?,
                false => Centre::At(parse_place(cx, args, 2)?),
            });
            // Redis does not look at the radius around a member of a set that does not exist.
            match query.centre {
                Some(Centre::Nowhere) => query.shape = Some(Shape::Circle(0.0)),
                _ => query.set_circle(args, at)?,
            }
            at += 2;
        }
        while at < args.len() {
            at += query.parse_option(cx, args, at, form)?;
        }
        query.check(cx, args, form)?;
        Ok(query)
    }

    /// Reads the option at `at`; returns how many arguments it is.
    fn parse_option(
        &mut self,
        cx: &mut Cx<'_>,
        args: Args<'a>,
        at: usize,
        form: &Form,
    ) -> Result<usize, ReplyError> {
        let left = args.len() - at - 1;
        match &args.get(at).to_ascii_uppercase()[..] {
            b"WITHDIST" => self.with_distance = true,
            b"WITHHASH" => self.with_score = true,
            b"WITHCOORD" => self.with_place = true,
            b"ANY" => self.takes_any = true,
            b"ASC" => self.is_ascending = Some(true),
            b"DESC" => self.is_ascending = Some(false),
            b"COUNT" if left >= 1 => {
                let count = number::parse_i64(args.get(at + 1)).ok_or(ReplyError::NotAnInteger)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                self.count = Some(count.ok_or(ReplyError::Text("ERR COUNT must be > 0"))?);
                return Ok(2);
            }
            word @ (b"STORE" | b"STOREDIST") if form.may_store && left >= 1 => {
                self.target = Some(args.get(at + 1));
                self.stores_distances = word == b"STOREDIST";
                return Ok(2);
            }
            b"STOREDIST" if form.source == 2 => self.stores_distances = true,
            word if form.has_words => return self.parse_words(cx, args, (at, word), form),
            _ => return Err(ReplyError::Syntax),
        }
        Ok(1)
    }

    /// Reads what only GEOSEARCH has: where, and what shape.
    fn parse_words(
        &mut self,
        cx: &mut Cx<'_>,
        args: Args<'a>,
        (at, word): (usize, &[u8]),
        form: &Form,
    ) -> Result<usize, ReplyError> {
        let left = args.len() - at - 1;
        let is_circle_or_none = !matches!(self.shape, Some(Shape::Box(..)));
        let is_box_or_none = !matches!(self.shape, Some(Shape::Circle(_)));
        match word {
            b"FROMMEMBER" if left >= 1 && (self.centre.is_none() || self.is_at_member) => {
                self.centre = Some(member_place(cx, args.get(form.source), args.get(at + 1))?);
                self.is_at_member = true;
                Ok(2)
            }
            b"FROMLONLAT" if left >= 2 && !self.is_at_member => {
                self.centre = Some(Centre::At(parse_place(cx, args, at + 1)?));
                Ok(3)
            }
            b"BYRADIUS" if left >= 2 && is_circle_or_none => {
                self.set_circle(args, at + 1).map(|()| 3)
            }
            b"BYBOX" if left >= 3 && is_box_or_none => self.set_box(args, at + 1).map(|()| 4),
            _ => Err(ReplyError::Syntax),
        }
    }

    /// Checks what only all options together show.
    fn check(&self, cx: &mut Cx<'_>, args: Args<'_>, form: &Form) -> Outcome {
        if self.target.is_some() && (self.with_distance || self.with_score || self.with_place) {
            let name: &[u8] =
                if form.has_words { b"GEOSEARCHSTORE" } else { b"STORE option in GEORADIUS" };
            let rest = b" is not compatible with WITHDIST, WITHHASH and WITHCOORD options";
            return Err(refuse(cx, &[b"ERR ", name, rest]));
        }
        let missing: Option<&[u8]> = match (self.centre, self.shape) {
            (None, _) => Some(b"FROMMEMBER or FROMLONLAT"),
            (_, None) => Some(b"BYRADIUS and BYBOX"),
            _ => None,
        };
        if let Some(words) = missing {
            let (one, of) = (b"ERR exactly one of ", b" can be specified for ");
            return Err(refuse(cx, &[one, words, of, args.get(0)]));
        }
        if self.takes_any && self.count.is_none() {
            return Err(ReplyError::Text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// The members that are meant, in the order asked for, as many as are wanted.
    fn find(&self, set: &SortedSet) -> Vec<Found> {
        let (Some(Centre::At(centre)), Some(shape)) = (self.centre, self.shape) else {
            return Vec::new();
        };
        let enough = self.count.filter(|_| self.takes_any).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        for (min, max) in covering(centre, shape) {
            let start = set.count_before(Edge::Score { limit: min, is_behind: false });
            let cell = set.range(start, usize::MAX, false).take_while(|(_, score)| *score < max);
            for (member, score) in cell {
                if found.len() >= enough {
                    break;
                }
                let place = Place::of_score(score);
                let distance = centre.distance_within(shape, place);
                found.extend(distance.map(|meters| {
                    let (member, distance) = (member.to_vec(), meters / self.unit);
                    Found { member, score, distance, place }
                }));
            }
        }
        let is_nearest_wanted = self.count.is_some() && !self.takes_any;
        match self.is_ascending {
            Some(true) => found.sort_by(|a, b| a.distance.total_cmp(&b.distance)),
            Some(false) => found.sort_by(|a, b| b.distance.total_cmp(&a.distance)),
            None if is_nearest_wanted => found.sort_by(|a, b| a.distance.total_cmp(&b.distance)),
            None => {}
        }
        found.truncate(self.count.unwrap_or(usize::MAX));
        found
    }
}

fn search(cx: &mut Cx<'_>, args: Args<'_>, form: &Form) -> Outcome {
    let key = args.get(form.source);
    cx.keys.read::<SortedSet>(key)?;
    let query = Query::parse(cx, args, form)?;
    let set = cx.keys.read_uncounted::<SortedSet>(key)?;
    let found = set.map_or_else(Vec::new, |set| query.find(set));
    if let Some(target) = query.target {
        let mut result = SortedSet::default();
        for one in &found {
            let score = if query.stores_distances { one.distance } else { one.score };
            result.apply(SortedSetOp::Put(score, &one.member));
        }
        let event = if form.has_words { Event::GeoSearchStore } else { Event::GeoRadiusStore };
        store(cx, target, result, event);
    } else {
        answer(cx, &query, &found);
    }
    Ok(())
}

fn answer(cx: &mut Cx<'_>, query: &Query<'_>, found: &[Found]) {
    let reply = &mut cx.reply;
    let extras = [query.with_distance, query.with_score, query.with_place];
    let extras = extras.iter().filter(|is_wanted| **is_wanted).count();
    reply.array(found.len());
    for one in found {
        if extras > 0 {
            reply.array(1 + extras);
        }
        reply.bulk(&one.member);
        if query.with_distance {
            reply_distance(reply, one.distance);
        }
        if query.with_score {
            reply.int(one.score as i64);
        }
        if query.with_place {
            reply_place(reply, one.place);
        }
    }
}
