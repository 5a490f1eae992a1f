//! Requests, built once and then only patched.
//!
//! Every key has the same length, so with values of one size a request is a fixed run of bytes in
//! which only the digits of the key change: making one is a copy and a few divisions. Only with
//! values of varying size are the lengths written anew each time.

use super::keys::KeyChooser;
use super::random::Random;
use std::io::Write;
use std::sync::Arc;

/// The word in a custom command that stands for a key.
const KEY_WORD: &str = "__key__";
/// The word in a custom command that stands for a value.
const VALUE_WORD: &str = "__value__";

/// The word in a custom command that stands for a number at random, another at each place.
const MEMBER_WORD: &str = "__member__";

/// The sizes of values, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueSize {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

impl std::str::FromStr for ValueSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ValueSize, String> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let (Ok(min), Ok(max)) = (min.parse(), max.parse()) else {
            return Err("write a number of bytes or a range such as 100-2000".into());
        };
        if min > max || max > 512 << 20 {
            return Err("a range goes up, and to 512 MB at most".into());
        }
        Ok(ValueSize { min, max })
    }
}

/// How keys are written: a prefix and a number with leading zeros; and how many members there are,
/// which are numbers without a prefix.
#[derive(Clone, Debug)]
pub(crate) struct KeyFormat {
    pub(crate) prefix: String,
    pub(crate) digits: usize,
    pub(crate) members: u64,
}

impl KeyFormat {
    /// The format in which all of `keys` keys have the same length.
    pub(crate) fn new(prefix: &str, keys: u64) -> KeyFormat {
        KeyFormat { prefix: prefix.to_owned(), digits: digits_below(keys), members: 1 }
    }
}

/// Digits of the largest number below `end`.
fn digits_below(end: u64) -> usize {
    end.saturating_sub(1).to_string().len()
}

/// Where in a request a number belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    at: usize,
    is_member: bool,
}

/// A part of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Key,
    Value,
    Member,
}

/// A request with places for keys and values.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    arguments: Vec<Vec<Part>>,
    key: KeyFormat,
    /// The bytes of the request and the places of the digits, if its length never varies.
    prebuilt: Option<(Vec<u8>, Vec<Place>)>,
}

impl Template {
    /// A template of `command`, in which `__key__`, `__value__` and `__member__` are places.
    pub(crate) fn new(
        command: &[&str],
        key: &KeyFormat,
        size: ValueSize,
        filler: &[u8],
    ) -> Template {
        let arguments = command.iter().map(|argument| split_parts(argument)).collect();
        let mut template = Template { arguments, key: key.clone(), prebuilt: None };
        let has_value = template.arguments.iter().flatten().any(|part| *part == Part::Value);
        if size.min == size.max || !has_value {
            let mut bytes = Vec::new();
            let mut places = Vec::new();
            template.build(&filler[..size.min], &mut bytes, &mut places);
            template.prebuilt = Some((bytes, places));
        }
        template
    }

    /// Appends the request with zeros for digits, and notes where in `out` the digits are.
    fn build(&self, value: &[u8], out: &mut Vec<u8>, places: &mut Vec<Place>) {
        let key_len = self.key.prefix.len() + self.key.digits;
        let member_len = digits_below(self.key.members);
        // Writing to a vector cannot fail.
        let _ = write!(out, "*{}\r\n", self.arguments.len());
        for parts in &self.arguments {
            let lengths = parts.iter().map(|part| match part {
                Part::Text(text) => text.len(),
                Part::Key => key_len,
                Part::Value => value.len(),
                Part::Member => member_len,
            });
            let _ = write!(out, "${}\r\n", lengths.sum::<usize>());
            for part in parts {
                match part {
                    Part::Text(text) => out.extend_from_slice(text),
                    Part::Value => out.extend_from_slice(value),
                    Part::Key => {
                        out.extend_from_slice(self.key.prefix.as_bytes());
                        places.push(Place { at: out.len(), is_member: false });
                        out.resize(out.len() + self.key.digits, b'0');
                    }
                    Part::Member => {
                        places.push(Place { at: out.len(), is_member: true });
                        out.resize(out.len() + member_len, b'0');
                    }
                }
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Splits an argument at the words that stand for something.
fn split_parts(argument: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = argument;
    loop {
        let words = [(KEY_WORD, Part::Key), (VALUE_WORD, Part::Value), (MEMBER_WORD, Part::Member)];
        let found = words
            .into_iter()
            .filter_map(|(word, part)| Some((rest.find(word)?, word, part)))
            .min_by_key(|(at, ..)| *at);
        let text = found.as_ref().map_or(rest, |(at, ..)| &rest[..*at]);
        if !text.is_empty() {
            parts.push(Part::Text(text.as_bytes().to_vec()));
        }
        let Some((at, word, part)) = found else { return parts };
        parts.push(part);
        rest = &rest[at + word.len()..];
    }
}

/// Writes `number` with leading zeros over all of `digits`.
fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// An endless supply of requests.
#[derive(Clone, Debug)]
pub(crate) struct RequestSource {
    /// Templates and how often each is used in proportion to the others.
    pub(crate) templates: Vec<(Template, u64)>,
    pub(crate) keys: KeyChooser,
    pub(crate) random: Random,
    pub(crate) value_size: ValueSize,
    /// Bytes that values are taken from.
    pub(crate) filler: Arc<[u8]>,
    /// Scratch space for the places of digits.
    pub(crate) places: Vec<Place>,
}

impl RequestSource {
    /// Appends the next request.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>) {
        let template = choose(&self.templates, &mut self.random);
        let start = out.len();
        let places = match &template.prebuilt {
            Some((bytes, places)) => {
                out.extend_from_slice(bytes);
                places
            }
            None => {
                let ValueSize { min, max } = self.value_size;
                let size = min + self.random.below((max - min + 1) as u64) as usize;
                self.places.clear();
                template.build(&self.filler[..size], out, &mut self.places);
                self.places.iter_mut().for_each(|place| place.at -= start);
                &self.places
            }
        };
        if places.is_empty() {
            return;
        }
        let key = self.keys.next(&mut self.random);
        for place in places {
            let out = &mut out[start + place.at..];
            if place.is_member {
                let members = template.key.members;
                write_digits(self.random.below(members), &mut out[..digits_below(members)]);
            } else {
                write_digits(key, &mut out[..template.key.digits]);
            }
        }
    }
}

fn choose<'a>(templates: &'a [(Template, u64)], random: &mut Random) -> &'a Template {
    let (first, _) = &templates[0];
    if templates.len() == 1 {
        return first;
    }
    let total = templates.iter().map(|(_, weight)| weight).sum();
    let mut ticket = random.below(total);
    for (template, weight) in templates {
        if ticket < *weight {
            return template;
        }
        ticket -= weight;
    }
    first
}

/// Letters and digits for values, the same for the same seed.
pub(crate) fn filler(len: usize, random: &mut Random) -> Arc<[u8]> {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    (0..len).map(|_| LETTERS[random.below(64) as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_client::Decoder;

    fn source(command: &[&str], size: ValueSize, keys: u64) -> RequestSource {
        let mut random = Random::new(1);
        let filler = filler(size.max, &mut random);
        let template = Template::new(command, &KeyFormat::new("key:", keys), size, &filler);
        RequestSource {
            templates: vec![(template, 1)],
            keys: KeyChooser::Sequential { next: 0 },
            random,
            value_size: size,
            filler,
            places: Vec::new(),
        }
    }

    /// The arguments of the requests in `bytes`, which are RESP like replies are.
    fn arguments(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        let mut requests = Vec::new();
        while let Some(reply) = decoder.next_reply().unwrap() {
            let words = reply.into_items().unwrap();
            requests.push(words.iter().map(|it| it.as_bytes().unwrap().to_vec()).collect());
        }
        assert!(!decoder.is_mid_reply());
        requests
    }

    #[test]
    fn digits_are_patched_into_a_prebuilt_request() {
        let size = ValueSize { min: 3, max: 3 };
        let mut source = source(&["SET", "__key__", "__value__"], size, 1000);
        let mut out = b"".to_vec();
        (0..12).for_each(|_| source.append(&mut out));
        let requests = arguments(&out);
        assert_eq!(requests.len(), 12);
        assert_eq!(requests[11][1], b"key:011");
        assert_eq!(requests[11][2].len(), 3);
    }

    #[test]
    fn values_of_varying_size_are_well_formed() {
        let size = ValueSize { min: 0, max: 300 };
        let mut source = source(&["X", "a__key__b__value__", "__key__", ""], size, 10);
        let mut out = Vec::new();
        (0..200).for_each(|_| source.append(&mut out));
        let requests = arguments(&out);
        let lengths: Vec<usize> = requests.iter().map(|it| it[1].len()).collect();
        assert!(lengths.iter().all(|len| (7..=307).contains(len)));
        assert!(lengths.iter().max() > lengths.iter().min());
        assert!(requests[3][1].starts_with(b"akey:3b"));
        assert_eq!(requests[3][2], b"key:3");
    }

    #[test]
    fn members_are_numbers_at_random() {
        let size = ValueSize { min: 1, max: 1 };
        let mut source = source(&["ZADD", "__key__", "__member__", "m__member__"], size, 10);
        let key = KeyFormat { members: 100, ..KeyFormat::new("key:", 10) };
        let command = ["ZADD", "__key__", "__member__", "m__member__"];
        source.templates = vec![(Template::new(&command, &key, size, b"v"), 1)];
        let mut out = Vec::new();
        (0..300).for_each(|_| source.append(&mut out));
        let requests = arguments(&out);
        assert_eq!(requests[3][1], b"key:3");
        assert!(requests.iter().all(|it| it[2].len() == 2 && it[3].len() == 3));
        assert!(requests.iter().any(|it| it[2][..] != it[3][1..]), "each place has its own");
        let different: std::collections::HashSet<_> = requests.iter().map(|it| &it[2]).collect();
        assert!((80..=100).contains(&different.len()), "{}", different.len());
    }

    #[test]
    fn weights_are_kept() {
        let size = ValueSize { min: 1, max: 1 };
        let mut mixed = source(&["GET", "__key__"], size, 10);
        mixed.templates[0].1 = 9;
        let set = source(&["SET", "__key__", "__value__"], size, 10).templates[0].0.clone();
        mixed.templates.push((set, 1));
        let mut out = Vec::new();
        (0..10_000).for_each(|_| mixed.append(&mut out));
        let sets = arguments(&out).iter().filter(|it| it[0] == b"SET").count();
        assert!((850..1150).contains(&sets), "{sets}");
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!("5".parse(), Ok(ValueSize { min: 5, max: 5 }));
        assert_eq!("1-20".parse(), Ok(ValueSize { min: 1, max: 20 }));
        for bad in ["", "x", "5-1", "1-x", "-1", "999999999999"] {
            assert!(bad.parse::<ValueSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_without_places_are_constant() {
        let mut ping = source(&["PING"], ValueSize { min: 1, max: 9 }, 10);
        let mut out = Vec::new();
        ping.append(&mut out);
        assert_eq!(out, b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(arguments(&out), [[b"PING".to_vec()]]);
        assert!(matches!(ping.keys, KeyChooser::Sequential { next: 0 }));
    }
}
