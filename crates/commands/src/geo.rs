//! Places: sorted sets whose scores are cells of a grid on the earth. What is near a place is found
//! in [`crate::geo_search`].

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::geohash::Place;
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use crate::zset::{self, AddOptions, READ};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number;
use hypercache_store::types::SortedSet;
use smallvec::SmallVec;

pub(crate) const BASE: Command =
    Command { group: Group::Geo, since: "3.2.0", acl: Acl::GEO, ..Command::DEFAULT };

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "GEOADD",
        arity: -5,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: geoadd,
        summary: "Notes where members are; answers how many are new, with CH how many changed.",
        complexity: "O(log(N)) for each member",
        syntax: "key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania\n(integer) 2\n> GEODIST g Palermo Catania km\n\"166.2742\"",
        ..BASE
    },
    Command {
        name: "GEODIST",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: geodist,
        summary: "The distance between two members, in meters or another unit.",
        syntax: "key member1 member2 [M | KM | FT | MI]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania\n(integer) 2\n> GEODIST g Palermo Catania\n\"166274.1516\"\n> GEODIST g Palermo Rome\n(nil)",
        ..BASE
    },
    Command {
        name: "GEOHASH",
        arity: -2,
        keys: READ,
        flags: Flags::READONLY,
        run: geohash,
        summary: "Where members are, in the letters of geohash.org.",
        complexity: "O(1) for each member",
        syntax: "key [member [member ...]]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo\n(integer) 1\n> GEOHASH g Palermo Rome\n1) \"sqc8b49rny0\"\n2) (nil)",
        ..BASE
    },
    Command {
        name: "GEOPOS",
        arity: -2,
        keys: READ,
        flags: Flags::READONLY,
        run: geopos,
        summary: "Longitudes and latitudes of members.",
        complexity: "O(1) for each member",
        syntax: "key [member [member ...]]",
        examples: "> GEOADD g 13.361389 38.115556 Palermo\n(integer) 1\n> GEOPOS g Palermo Rome\n1) 1) \"13.36138933897018433\"\n   2) \"38.11555639549629859\"\n2) (nil)",
        ..BASE
    },
];

/// Reads a longitude and a latitude, which are arguments `at` and the one behind it.
pub(crate) fn parse_place(cx: &mut Cx<'_>, args: Args<'_>, at: usize) -> Result<Place, ReplyError> {
    let degrees = |i| number::parse_f64(args.get(i)).ok_or(ReplyError::NotAFloat);
    let (longitude, latitude) = (degrees(at)?, degrees(at + 1)?);
    if let Some(place) = Place::new(longitude, latitude) {
        return Ok(place);
    }
    let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
    cx.reply.error(text.as_bytes());
    Err(ReplyError::Written)
}

/// Meters of a unit.
pub(crate) fn parse_unit(text: &[u8]) -> Result<f64, ReplyError> {
    match &text.to_ascii_lowercase()[..] {
        b"m" => Ok(1.0),
        b"km" => Ok(1000.0),
        b"ft" => Ok(0.3048),
        b"mi" => Ok(1609.34),
        _ => Err(ReplyError::Text("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

/// Writes a distance, to a tenth of a millimeter if it is in meters.
pub(crate) fn reply_distance(reply: &mut Reply<'_>, distance: f64) {
    reply.bulk(format!("{distance:.4}").as_bytes());
}

/// Writes a longitude and a latitude.
pub(crate) fn reply_place(reply: &mut Reply<'_>, place: Place) {
    reply.array(2);
    for degrees in [place.longitude, place.latitude] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        reply.double_text(if text == "-0" { b"0" } else { text.as_bytes() });
    }
}

fn geoadd(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut options = AddOptions::default();
    let mut first = 2;
    while first < args.len() {
        match &args.get(first).to_ascii_uppercase()[..] {
            b"NX" => options.only_new = true,
            b"XX" => options.only_there = true,
            b"CH" => options.tells_changes = true,
            _ => break,
        }
        first += 1;
    }
    let values = args.len() - first;
    if values == 0 || !values.is_multiple_of(3) || options.only_new && options.only_there {
        return Err(ReplyError::Syntax);
    }
    let mut members = SmallVec::<[(f64, &[u8]); 4]>::new();
    for i in (first..args.len()).step_by(3) {
        members.push((parse_place(cx, args, i)?.score(), args.get(i + 2)));
    }
    zset::add(cx, args.get(1), options, &members)
}

fn geodist(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let unit = match args.len() {
        4 => 1.0,
        5 => parse_unit(args.get(4))?,
        _ => return Err(ReplyError::Syntax),
    };
    let set = cx.keys.read::<SortedSet>(args.get(1))?;
    let place = |i| set.and_then(|set| set.score(args.get(i))).map(Place::of_score);
    match place(2).zip(place(3)) {
        Some((a, b)) => reply_distance(&mut cx.reply, a.distance(b) / unit),
        None => cx.reply.null(),
    }
    Ok(())
}

/// Writes something of where each member is that is named.
fn each_place(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    write: impl Fn(&mut Reply<'_>, Option<Place>),
) -> Outcome {
    let set = cx.keys.read::<SortedSet>(args.get(1))?;
    cx.reply.array(args.len() - 2);
    for member in args.iter_from(2) {
        let score = set.and_then(|set| set.score(member));
        write(&mut cx.reply, score.map(Place::of_score));
    }
    Ok(())
}

fn geohash(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    each_place(cx, args, |reply, place| match place {
        Some(place) => reply.bulk(&place.geohash()),
        None => reply.null(),
    })
}

fn geopos(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    each_place(cx, args, |reply, place| match place {
        Some(place) => reply_place(reply, place),
        None => reply.null_array(),
    })
}
