//! The consensus log on disk: votes and entries in one file that is only appended to, and a snapshot.
//!
//! ```text
//! file:   title, 16 bytes | frame | frame | ...
//! frame:  mark u32 | length u32 | sequence u64 | crc32c u32 | changes      (little-endian)
//! change: kind u8 | number u64 | length u32 | bytes
//! ```
//! Everything that was asked for while the disk was busy becomes one frame, one write and one
//! `fdatasync`. The next frame is written only when that is done, so at most the last frame of a file can be
//! incomplete: it was acknowledged to nobody and is cut off. If a damaged frame has a sound one of a
//! higher sequence after it, it was once complete, and the node must not vote as if it had never
//! promised what was in it: that is an error.
//!
//! What is dropped from the log leaves the file when more than half of it is dead: a new file is written
//! beside it and takes its place. The log is small (snapshots trim it), so it is also kept in memory.

use crate::identity::{LockedDir, replace_file};
use hypercache_stdx::crc32c::crc32c;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

const TITLE: &[u8; 16] = b"hypercache-raft1";
const MARK: u32 = 0x4C_52_43_48;
const FRAME_HEADER: usize = 20;
/// A frame of an honest file is far shorter.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// A file below this is not written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;

const LOG: &str = "log";
const SNAPSHOT: &str = "snapshot";

/// A change of what is on disk. Entries, votes and the like are opaque here.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// An entry with its number, after the last one.
    Entry(u64, Arc<[u8]>),
    /// Entries above this number are dropped; 0 with nothing to keep is `Clear`.
    TruncateAfter(u64),
    /// Entries up to this number are dropped; what the last of them was.
    Purge(u64, Arc<[u8]>),
    /// The vote.
    Vote(Arc<[u8]>),
    /// All entries are dropped.
    Clear,
    /// The snapshot: a file of its own.
    Snapshot(Arc<[u8]>),
}

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) vote: Option<Arc<[u8]>>,
    pub(crate) purged: Option<(u64, Arc<[u8]>)>,
    pub(crate) entries: BTreeMap<u64, Arc<[u8]>>,
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Entry(number, bytes) => {
                self.entries.insert(*number, Arc::clone(bytes));
            }
            Change::TruncateAfter(number) => {
                self.entries.split_off(&(number + 1));
            }
            Change::Purge(number, bytes) => {
                self.entries = self.entries.split_off(&(number + 1));
                self.purged = Some((*number, Arc::clone(bytes)));
            }
            Change::Vote(bytes) => self.vote = Some(Arc::clone(bytes)),
            Change::Clear => self.entries.clear(),
            Change::Snapshot(_) => {}
        }
    }

    fn changes(&self) -> Vec<Change> {
        let vote = self.vote.iter().map(|bytes| Change::Vote(Arc::clone(bytes)));
        let purged = self.purged.iter().map(|(n, bytes)| Change::Purge(*n, Arc::clone(bytes)));
        let entries = self.entries.iter().map(|(n, bytes)| Change::Entry(*n, Arc::clone(bytes)));
        vote.chain(purged).chain(entries).collect()
    }

    fn bytes(&self) -> u64 {
        self.entries.values().map(|bytes| bytes.len() as u64 + 13).sum()
    }
}

fn write_change(change: &Change, out: &mut Vec<u8>) {
    let nothing: &[u8] = &[];
    let (kind, number, bytes) = match change {
        Change::Entry(number, bytes) => (1, *number, &**bytes),
        Change::TruncateAfter(number) => (2, *number, nothing),
        Change::Purge(number, bytes) => (3, *number, &**bytes),
        Change::Vote(bytes) => (4, 0, &**bytes),
        Change::Clear => (5, 0, nothing),
        Change::Snapshot(_) => return,
    };
    out.push(kind);
    out.extend_from_slice(&u64::to_le_bytes(number));
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn read_changes(mut body: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<13>() {
        let (kind, words) = (head[0], &head[1..]);
        let number = u64::from_le_bytes(*words.first_chunk()?);
        let length = u32::from_le_bytes(*words.last_chunk()?) as usize;
        let (bytes, after) = rest.split_at_checked(length)?;
        body = after;
        changes.push(match kind {
            1 => Change::Entry(number, Arc::from(bytes)),
            2 => Change::TruncateAfter(number),
            3 => Change::Purge(number, Arc::from(bytes)),
            4 => Change::Vote(Arc::from(bytes)),
            5 => Change::Clear,
            _ => return None,
        });
    }
    body.is_empty().then_some(changes)
}

fn write_frame(sequence: u64, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&MARK.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&frame_sum(sequence, body).to_le_bytes());
    out.extend_from_slice(body);
}

fn frame_sum(sequence: u64, body: &[u8]) -> u32 {
    let head = [sequence, body.len() as u64].map(u64::to_le_bytes);
    crc32c(crc32c(0, head.as_flattened()), body)
}

/// The sound frame at the beginning of `bytes`: its sequence, its body and its length.
fn read_frame(bytes: &[u8]) -> Option<(u64, &[u8], usize)> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER>()?;
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let sequence = u64::from(word(8)) | u64::from(word(12)) << 32;
    let length = word(4) as usize;
    if word(0) != MARK || length > FRAME_BYTES_MAX {
        return None;
    }
    let body = rest.get(..length)?;
    (frame_sum(sequence, body) == word(16)).then_some((sequence, body, FRAME_HEADER + length))
}

/// Whether a sound frame of a higher sequence follows.
fn has_sound_frame(bytes: &[u8], above: u64) -> bool {
    let mark = MARK.to_le_bytes();
    let mut starts = bytes.windows(mark.len()).enumerate().filter(|(_, word)| *word == mark);
    starts.any(|(at, _)| read_frame(&bytes[at..]).is_some_and(|(sequence, ..)| sequence > above))
}

/// The log as it was read, and the open file.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    file: File,
    file_bytes: u64,
    sequence: u64,
    image: Image,
    /// The newest snapshot.
    snapshot: Option<Arc<[u8]>>,
    /// Nobody else uses the directory until the last write is done.
    _lock: LockedDir,
}

impl Disk {
    /// Whether a log was ever kept in the directory.
    pub(crate) fn is_in(dir: &Path) -> bool {
        dir.join(LOG).exists()
    }

    /// Reads what is in the directory.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged otherwise than by an interrupted write.
    pub(crate) fn open(dir: &Path, lock: LockedDir) -> Result<Disk, String> {
        let path = dir.join(LOG);
        let told =
            |what: &str, error: io::Error| format!("cannot {what} {}: {error}", path.display());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace_file(dir, LOG, TITLE).map_err(|error| told("make", error))?;
                TITLE.to_vec()
            }
            Err(error) => return Err(told("read", error)),
        };
        let (image, sequence, sound) = replay(&bytes, &path)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| told("open", e))?;
        if sound < bytes.len() {
            tracing::warn!(
                "{}: the last {} bytes were not written completely and are cut off",
                path.display(),
                bytes.len() - sound
            );
            let cut = file.set_len(sound as u64).and_then(|()| file.sync_all());
            cut.map_err(|error| told("cut", error))?;
        }
        let snapshot = read_snapshot(dir)?;
        let (dir, file_bytes) = (dir.to_owned(), sound as u64);
        Ok(Disk { dir, file, file_bytes, sequence, image, snapshot, _lock: lock })
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    pub(crate) fn snapshot(&self) -> Option<Arc<[u8]>> {
        self.snapshot.clone()
    }

    /// Makes the changes durable, all or none.
    pub(crate) fn write(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut body = Vec::new();
        for change in changes {
            if let Change::Snapshot(bytes) = change {
                write_snapshot(&self.dir, bytes)?;
                self.snapshot = Some(Arc::clone(bytes));
            }
            write_change(change, &mut body);
            self.image.apply(change);
        }
        if body.is_empty() {
            return Ok(());
        }
        if self.file_bytes > REWRITE_BYTES_MIN && self.file_bytes / 2 > self.image.bytes() {
            return self.rewrite();
        }
        self.sequence += 1;
        let mut frame = Vec::with_capacity(FRAME_HEADER + body.len());
        write_frame(self.sequence, &body, &mut frame);
        self.file.write_all(&frame)?;
        self.file.sync_data()?;
        self.file_bytes += frame.len() as u64;
        Ok(())
    }

    /// A new file with what is alive takes the place of the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut body = Vec::new();
        self.image.changes().iter().for_each(|change| write_change(change, &mut body));
        self.sequence += 1;
        let mut bytes = TITLE.to_vec();
        write_frame(self.sequence, &body, &mut bytes);
        replace_file(&self.dir, LOG, &bytes)?;
        self.file = OpenOptions::new().append(true).open(self.dir.join(LOG))?;
        self.file_bytes = bytes.len() as u64;
        Ok(())
    }
}

/// What a file says, its last sequence, and how much of it is sound.
fn replay(bytes: &[u8], path: &Path) -> Result<(Image, u64, usize), String> {
    let name = path.display();
    let Some(frames) = bytes.strip_prefix(TITLE) else {
        return Err(format!("{name} is no log of this version of hypercache"));
    };
    let (mut image, mut last, mut done) = (Image::default(), 0, 0);
    while done < frames.len() {
        let sound = read_frame(&frames[done..]).filter(|(sequence, ..)| *sequence > last);
        let changes = sound.and_then(|(_, body, _)| read_changes(body));
        let (Some((sequence, _, length)), Some(changes)) = (sound, changes) else {
            if has_sound_frame(&frames[done..], last) {
                return Err(format!(
                    "{name} is damaged at byte {}, and what follows is not: this is no interrupted write. \
                     Restore it, or remove the directory to join as a new node",
                    TITLE.len() + done
                ));
            }
            break;
        };
        changes.iter().for_each(|change| image.apply(change));
        last = sequence;
        done += length;
    }
    Ok((image, last, TITLE.len() + done))
}

fn write_snapshot(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Vec::with_capacity(bytes.len() + 4);
    file.extend_from_slice(bytes);
    file.extend_from_slice(&crc32c(0, bytes).to_le_bytes());
    replace_file(dir, SNAPSHOT, &file)
}

fn read_snapshot(dir: &Path) -> Result<Option<Arc<[u8]>>, String> {
    let path = dir.join(SNAPSHOT);
    let file = match std::fs::read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    match file.split_last_chunk() {
        Some((bytes, sum)) if crc32c(0, bytes) == u32::from_le_bytes(*sum) => {
            Ok(Some(Arc::from(bytes)))
        }
        _ => Err(format!(
            "{} is damaged. Remove the directory to join as a new node",
            path.display()
        )),
    }
}

/// Called when the changes are durable, or could not be made so.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The thread that writes, as others see it.
#[derive(Clone, Debug)]
pub(crate) struct Writer(Sender<(Vec<Change>, Option<DoneBox>)>);

/// So that the queue has a `Debug`.
pub(crate) struct DoneBox(Done);

impl std::fmt::Debug for DoneBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DoneBox")
    }
}

impl Writer {
    /// Starts the thread. It ends when no `Writer` is left.
    pub(crate) fn start(mut disk: Disk) -> Result<Writer, String> {
        let (writer, asked) = channel::<(Vec<Change>, Option<DoneBox>)>();
        let body = move || write_all(&mut disk, &asked);
        let thread = std::thread::Builder::new().name("raft-disk".to_owned()).spawn(body);
        thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Writer(writer))
    }

    /// Asks for changes. Those of one thread are made in the order of the calls.
    pub(crate) fn ask(&self, changes: Vec<Change>, done: Done) {
        if let Err(refused) = self.0.send((changes, Some(DoneBox(done))))
            && let Some(DoneBox(done)) = refused.0.1
        {
            done(Err(io::Error::other("the disk has failed before")));
        }
    }
}

fn write_all(disk: &mut Disk, asked: &Receiver<(Vec<Change>, Option<DoneBox>)>) {
    while let Ok(first) = asked.recv() {
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for (more, done) in std::iter::once(first).chain(asked.try_iter().take(256)) {
            changes.extend(more);
            waiting.extend(done);
        }
        let written = disk.write(&changes);
        for DoneBox(done) in waiting {
            done(written.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string())));
        }
        if let Err(error) = written {
            // What is on disk now is not known. The node votes no more.
            tracing::error!("cannot write the log of the cluster: {error}");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(dir: &Path) -> Result<Disk, String> {
        Disk::open(dir, LockedDir::for_test(dir))
    }

    fn bytes(text: &str) -> Arc<[u8]> {
        Arc::from(text.as_bytes())
    }

    fn entry(number: u64) -> Change {
        Change::Entry(number, bytes(&format!("entry {number}")))
    }

    fn numbers(disk: &Disk) -> Vec<u64> {
        disk.image().entries.keys().copied().collect()
    }

    #[test]
    fn what_was_written_is_there_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut disk = open(dir.path()).expect("it is new");
        disk.write(&[Change::Vote(bytes("v")), entry(1), entry(2)]).expect("it is written");
        disk.write(&[entry(3), Change::TruncateAfter(1), entry(2)]).expect("it is written");
        disk.write(&[Change::Purge(1, bytes("p")), Change::Snapshot(bytes("s"))]).expect("written");
        let again = open(dir.path()).expect("it is sound");
        assert_eq!(again.image(), disk.image());
        assert_eq!((numbers(&again), again.snapshot()), (vec![2], Some(bytes("s"))));
        assert_eq!(again.image().purged, Some((1, bytes("p"))));
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_it_is_torn() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(LOG);
        let mut disk = open(dir.path()).expect("it is new");
        disk.write(&[entry(1), entry(2)]).expect("it is written");
        let whole = std::fs::metadata(&path).expect("it is there").len() as usize;
        disk.write(&[entry(3), entry(4)]).expect("it is written");
        let file = std::fs::read(&path).expect("it is there");
        for cut in whole..file.len() {
            std::fs::write(&path, &file[..cut]).expect("it is written");
            let mut torn = open(dir.path()).expect("a torn tail is no damage");
            assert_eq!(numbers(&torn), [1, 2], "cut at {cut}");
            torn.write(&[entry(3)]).expect("it is written");
            assert_eq!(numbers(&open(dir.path()).expect("it is sound")), [1, 2, 3]);
        }
        // Pages of the last write may arrive out of order: its beginning is missing, its end is there.
        let mut hole = file.clone();
        hole[whole..whole + 30].fill(0);
        std::fs::write(&path, &hole).expect("it is written");
        assert_eq!(numbers(&open(dir.path()).expect("a torn tail")), [1, 2]);
    }

    #[test]
    fn damage_before_the_tail_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(LOG);
        let mut disk = open(dir.path()).expect("it is new");
        disk.write(&[entry(1)]).expect("it is written");
        let end = std::fs::metadata(&path).expect("it is there").len() as usize;
        disk.write(&[entry(2)]).expect("it is written");
        let file = std::fs::read(&path).expect("it is there");
        for at in TITLE.len()..end {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).expect("it is written");
            let opened = open(dir.path());
            assert!(opened.is_err_and(|why| why.contains("damaged")), "byte {at}");
        }
        std::fs::write(&path, b"something else").expect("it is written");
        assert!(open(dir.path()).is_err_and(|why| why.contains("no log")));
    }

    #[test]
    fn a_damaged_snapshot_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut disk = open(dir.path()).expect("it is new");
        disk.write(&[Change::Snapshot(bytes("snapshot"))]).expect("it is written");
        let path = dir.path().join(SNAPSHOT);
        let mut file = std::fs::read(&path).expect("it is there");
        file[3] ^= 1;
        std::fs::write(&path, file).expect("it is written");
        assert!(open(dir.path()).is_err_and(|why| why.contains("damaged")));
    }

    #[test]
    fn the_file_stays_small() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(LOG);
        let mut disk = open(dir.path()).expect("it is new");
        let large: Arc<[u8]> = Arc::from(vec![7; 64 << 10]);
        for number in 1..=100 {
            let changes = [
                Change::Entry(number, Arc::clone(&large)),
                Change::Purge(number.saturating_sub(3), bytes("p")),
            ];
            disk.write(&changes).expect("it is written");
        }
        assert!(std::fs::metadata(&path).expect("it is there").len() < 2 << 20);
        let again = open(dir.path()).expect("it is sound");
        assert_eq!((again.image(), numbers(&again)), (disk.image(), vec![98, 99, 100]));
    }

    #[test]
    fn the_thread_writes_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = Writer::start(open(dir.path()).expect("new")).expect("a thread");
        let (done, is_done) = channel();
        for number in 1..=50 {
            let done = done.clone();
            let told = Box::new(move |result: io::Result<()>| {
                done.send((number, result.is_ok())).expect("somebody listens");
            });
            writer.ask(vec![entry(number)], told);
        }
        let order: Vec<_> = is_done.iter().take(50).collect();
        assert_eq!(order, (1..=50).map(|number| (number, true)).collect::<Vec<_>>());
        drop(writer);
        assert_eq!(numbers(&open(dir.path()).expect("it is sound")).len(), 50);
    }

    proptest! {
        #[test]
        fn no_file_panics(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let file = [&TITLE[..], &tail].concat();
            let read = replay(&file, Path::new("log"));
            prop_assert!(read.is_ok());
        }
    }
}
