//! Places on the earth as numbers of 52 bits: cells of a grid, interleaved so that neighbours mostly
//! have neighbouring numbers; and distances.
//!
//! The constants are Redis', for scores and distances are part of what clients see: the grid covers
//! the latitudes of the Mercator projection, and the earth is a sphere of 6372797.560856 m. A cell of
//! step `s` is one of `4^s`; its number has the bits of the latitude at even places and those of the
//! longitude at odd ones.

/// Longitudes of the grid.
const LONGITUDES: (f64, f64) = (-180.0, 180.0);
/// Latitudes of the grid.
const LATITUDES: (f64, f64) = (-85.051_128_78, 85.051_128_78);
/// The finest step: 26 bits for each coordinate.
const FINEST: u32 = 26;
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;
/// Half the width of the Mercator projection.
const HALF_WIDTH_M: f64 = 20_037_726.37;
const EVEN_BITS: u64 = 0x5555_5555_5555_5555;

/// A longitude and a latitude, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) longitude: f64,
    pub(crate) latitude: f64,
}

/// A cell of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    bits: u64,
    step: u32,
}

/// A rectangle of degrees.
#[derive(Clone, Copy, Debug)]
struct Area {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

/// What is searched, around a place; lengths in meters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// Within a distance.
    Circle(f64),
    /// Within a box of this width and height.
    Box(f64, f64),
}

/// Puts the bits of a number on even places.
fn spread(n: u32) -> u64 {
    let mut n = u64::from(n);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, EVEN_BITS),
    ] {
        n = (n | n << shift) & mask;
    }
    n
}

/// Takes the bits on even places.
fn gather(n: u64) -> u32 {
    let mut n = n & EVEN_BITS;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        n = (n | n >> shift) & mask;
    }
    n as u32
}

fn number_of(place: Place, step: u32, latitudes: (f64, f64)) -> u64 {
    let part = |degrees: f64, (min, max): (f64, f64)| {
        let offset = (degrees - min) / (max - min) * (1u64 << step) as f64;
        spread(offset as u32)
    };
    part(place.latitude, latitudes) | part(place.longitude, LONGITUDES) << 1
}

/// A score as C converts it to an unsigned number on x86-64, where it is out of range too.
fn bits_of(score: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    let signed = |n: f64| if (-HALF..HALF).contains(&n) { n as i64 as u64 } else { 1 << 63 };
    if score >= HALF { signed(score - HALF) ^ 1 << 63 } else { signed(score) }
}

impl Place {
    /// A place, if it is on the grid.
    pub(crate) fn new(longitude: f64, latitude: f64) -> Option<Place> {
        let is_within = |n: f64, (min, max): (f64, f64)| (min..=max).contains(&n);
        let is_on_grid = is_within(longitude, LONGITUDES) && is_within(latitude, LATITUDES);
        is_on_grid.then_some(Place { longitude, latitude })
    }

    /// The score that stands for it.
    pub(crate) fn score(self) -> f64 {
        number_of(self, FINEST, LATITUDES) as f64
    }

    /// The middle of the cell that a score stands for.
    pub(crate) fn of_score(score: f64) -> Place {
        let area = Cell { bits: bits_of(score), step: FINEST }.area();
        let middle = |a: f64, b: f64, (min, max): (f64, f64)| ((a + b) / 2.0).clamp(min, max);
        Place {
            longitude: middle(area.west, area.east, LONGITUDES),
            latitude: middle(area.south, area.north, LATITUDES),
        }
    }

    /// The eleven letters that geohash.org uses, of which the last is always `0`: 52 bits are ten.
    pub(crate) fn geohash(self) -> [u8; 11] {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = number_of(self, FINEST, (-90.0, 90.0));
        std::array::from_fn(|i| match i {
            10 => LETTERS[0],
            _ => LETTERS[(bits >> (47 - 5 * i)) as usize & 31],
        })
    }

    /// Distance in meters on the sphere.
    pub(crate) fn distance(self, other: Place) -> f64 {
        let half_lon = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if half_lon == 0.0 {
            return self.distance_north(other);
        }
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_lat = ((b - a) / 2.0).sin();
        let h = half_lat * half_lat + a.cos() * b.cos() * half_lon * half_lon;
        2.0 * EARTH_RADIUS_M * h.sqrt().asin()
    }

    fn distance_north(self, other: Place) -> f64 {
        EARTH_RADIUS_M * (other.latitude.to_radians() - self.latitude.to_radians()).abs()
    }

    /// The distance to a place that is within a shape around this one.
    pub(crate) fn distance_within(self, shape: Shape, other: Place) -> Option<f64> {
        match shape {
            Shape::Circle(radius) => {
                Some(self.distance(other)).filter(|distance| *distance <= radius)
            }
            Shape::Box(width, height) => {
                let beside = Place { latitude: other.latitude, ..self };
                let is_within = self.distance_north(other) <= height / 2.0
                    && other.distance(beside) <= width / 2.0;
                is_within.then(|| self.distance(other))
            }
        }
    }
}

impl Cell {
    fn of(place: Place, step: u32) -> Cell {
        Cell { bits: number_of(place, step, LATITUDES), step }
    }

    fn area(self) -> Area {
        let cells = (1u64 << self.step) as f64;
        let (latitude, longitude) = (gather(self.bits), gather(self.bits >> 1));
        let at = |n: f64, (min, max): (f64, f64)| min + n / cells * (max - min);
        Area {
            west: at(f64::from(longitude), LONGITUDES),
            south: at(f64::from(latitude), LATITUDES),
            east: at(f64::from(longitude) + 1.0, LONGITUDES),
            north: at(f64::from(latitude) + 1.0, LATITUDES),
        }
    }

    /// The cell that is `east` and `north` cells (-1 to 1) away; the grid is a torus.
    fn neighbour(self, east: i64, north: i64) -> Cell {
        let mask = u64::MAX >> (64 - 2 * self.step);
        // Counting up is done with the other coordinate's bits set, so that carries pass them.
        let moved = |mine: u64, by: i64| {
            let others = !mine & mask;
            let value = self.bits & mine & mask;
            let lowest = (mine & mask) & (mine & mask).wrapping_neg();
            (match by {
                // With the bit above the others, that places on the eastern and northern edge have.
                0 => return self.bits & mine,
                1 => (value | others).wrapping_add(lowest),
                _ => value.wrapping_sub(lowest),
            }) & mine
                & mask
        };
        Cell { bits: moved(!EVEN_BITS, east) | moved(EVEN_BITS, north), step: self.step }
    }

    /// The scores of places in it: from the first to before the second.
    fn scores(self) -> (f64, f64) {
        let shift = 2 * (FINEST - self.step);
        ((self.bits << shift) as f64, ((self.bits + 1) << shift) as f64)
    }
}

/// The step whose cells are so large that one and its neighbours cover a distance around it.
fn step_for(radius: f64, latitude: f64) -> u32 {
    if radius == 0.0 {
        return FINEST;
    }
    let (mut radius, mut step) = (radius, 1i32);
    while radius < HALF_WIDTH_M {
        radius *= 2.0;
        step += 1;
    }
    // Cells are narrower towards the poles.
    step -= 2 + i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
    step.clamp(1, FINEST as i32) as u32
}

fn bounds(centre: Place, shape: Shape) -> Area {
    let (east, north) = match shape {
        Shape::Circle(radius) => (radius, radius),
        Shape::Box(width, height) => (width / 2.0, height / 2.0),
    };
    let Place { longitude, latitude } = centre;
    let up = (north / EARTH_RADIUS_M).to_degrees();
    // A degree of longitude is shortest where the area is nearest to a pole.
    let nearest = if latitude < 0.0 { latitude - up } else { latitude + up };
    let side = (east / EARTH_RADIUS_M / nearest.to_radians().cos()).to_degrees();
    Area {
        west: longitude - side,
        south: latitude - up,
        east: longitude + side,
        north: latitude + up,
    }
}

/// The ranges of scores that hold all places within a shape around a place.
pub(crate) fn covering(centre: Place, shape: Shape) -> Vec<(f64, f64)> {
    let radius = match shape {
        Shape::Circle(radius) => radius,
        Shape::Box(width, height) => {
            (width / 2.0 * (width / 2.0) + height / 2.0 * (height / 2.0)).sqrt()
        }
    };
    let bounds = bounds(centre, shape);
    let mut step = step_for(radius, centre.latitude);
    let is_short = |cell: Cell| {
        cell.neighbour(0, 1).area().north < bounds.north
            || cell.neighbour(0, -1).area().south > bounds.south
            || cell.neighbour(1, 0).area().east < bounds.east
            || cell.neighbour(-1, 0).area().west > bounds.west
    };
    if step > 1 && is_short(Cell::of(centre, step)) {
        step -= 1;
    }
    let cell = Cell::of(centre, step);
    let area = cell.area();
    let is_needed = |(east, north): &(i64, i64)| {
        step < 2
            || !(*north < 0 && area.south < bounds.south
                || *north > 0 && area.north > bounds.north
                || *east < 0 && area.west < bounds.west
                || *east > 0 && area.east > bounds.east)
    };
    // In this order, which is that of an answer that is not sorted.
    const NINE: [(i64, i64); 9] =
        [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
    let mut cells: Vec<Cell> = Vec::with_capacity(9);
    for (east, north) in NINE.iter().copied().filter(is_needed) {
        let next = cell.neighbour(east, north);
        // Of huge cells, some are their own neighbours' neighbours.
        if cells.len() < 2 || cells.last() != Some(&next) {
            cells.push(next);
        }
    }
    cells.into_iter().map(Cell::scores).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places() -> impl Strategy<Value = Place> {
        let place = |(longitude, latitude)| Place { longitude, latitude };
        (-180.0..180.0, -85.05..85.05).prop_map(place)
    }

    #[test]
    fn a_known_place_has_its_known_score_and_letters() {
        let palermo = Place::new(13.361389, 38.115556).expect("on the grid");
        assert_eq!(palermo.score(), 3_479_099_956_230_698.0);
        let back = Place::of_score(palermo.score());
        assert_eq!(&back.geohash(), b"sqc8b49rny0");
        let catania = Place::new(15.087269, 37.502669).expect("on the grid");
        let distance = back.distance(Place::of_score(catania.score()));
        assert_eq!(format!("{distance:.4}"), "166274.1516");
        assert_eq!(Place::new(0.0, 85.06), None);
        assert_eq!(Place::new(180.1, 0.0), None);
    }

    #[test]
    fn spreading_and_gathering_are_each_others_reverse() {
        for n in [0, 1, 2, 0x0123_4567, u32::MAX, 1 << 31] {
            assert_eq!(gather(spread(n)), n);
            assert_eq!(spread(n) & !EVEN_BITS, 0);
        }
    }

    proptest! {
        #[test]
        fn a_score_is_near_its_place(place in places()) {
            let back = Place::of_score(place.score());
            prop_assert!(place.distance(back) < 1.0, "{place:?} {back:?}");
        }

        #[test]
        fn neighbours_lead_back(place in places(), step in 1u32..=26) {
            let cell = Cell::of(place, step);
            for (east, north) in [(1, 0), (0, 1), (1, 1), (-1, 1)] {
                prop_assert_eq!(cell.neighbour(east, north).neighbour(-east, -north), cell);
            }
        }

        #[test]
        fn what_is_within_a_shape_is_in_its_ranges(
            centre in places(),
            offset in (-1.0..1.0f64, -1.0..1.0f64),
            size in 10.0..500_000.0f64,
            is_box in any::<bool>(),
        ) {
            prop_assume!(centre.latitude.abs() < 75.0 && centre.longitude.abs() < 160.0);
            let degrees = size / 111_000.0;
            let Some(other) = Place::new(
                centre.longitude + offset.0 * degrees,
                centre.latitude + offset.1 * degrees,
            ) else { return Ok(()) };
            let shape = if is_box { Shape::Box(size, size / 2.0) } else { Shape::Circle(size) };
            let found = Place::of_score(other.score());
            if centre.distance_within(shape, found).is_some() {
                let score = other.score();
                let ranges = covering(centre, shape);
                let is_covered = ranges.iter().any(|(min, max)| *min <= score && score < *max);
                prop_assert!(is_covered, "{other:?} {ranges:?}");
            }
        }
    }
}
