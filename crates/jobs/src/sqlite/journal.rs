//! Bits that flip in the journal (WAL) of a server that was killed, before SQLite has taken it into the file. SQLite reads a
//! journal up to the first page that does not fit its checksum, and forgets what follows without a word: right for a write
//! that the power cut, wrong for one that was acknowledged long before.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>. Checksums are a chain, so that a damaged page is told
//! from the end of the journal by what follows it: pages that fit the chain as it was written.

use std::io::ErrorKind;
use std::path::Path;

use crate::JobsError;

const HEAD: usize = 32;
const FRAME_HEAD: usize = 24;
/// Of the format.
const VERSION: u32 = 3_007_000;
/// More than a journal of ours ever is.
const MOST_BYTES: u64 = 1 << 28;

/// The chain at one point.
type Sums = (u32, u32);

/// Makes pages that are damaged fit again, so that SQLite reads on; what is wrong in them is found by the checks of the records
/// and of the file. Only in commits that were followed by another, which the disk had before that was written: in the last one,
/// damage may be a cut, or a page of an earlier journal at whose place nothing new was written. Returns how many pages; the
/// journal is kept as it was beside itself then.
pub(super) fn mend(journal: &Path) -> Result<usize, JobsError> {
    let mended = || -> std::io::Result<usize> {
        match fs_err::metadata(journal) {
            Ok(about) if about.is_file() && about.len() <= MOST_BYTES => {}
            Ok(_) => return Ok(0),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        }
        let mut bytes = fs_err::read(journal)?;
        let Some(damaged) = Journal::of(&mut bytes).map(|mut journal| journal.mend()) else {
            return Ok(0);
        };
        if damaged > 0 {
            let mut kept = journal.as_os_str().to_owned();
            kept.push(".damaged");
            fs_err::copy(journal, kept)?;
            let fresh = journal.with_extension("mended");
            // A copy has the mode of what it is made of.
            fs_err::copy(journal, &fresh)?;
            fs_err::write(&fresh, &bytes)?;
            fs_err::File::open(&fresh)?.sync_all()?;
            fs_err::rename(&fresh, journal)?;
        }
        Ok(damaged)
    };
    mended().map_err(|source| JobsError::Backend {
        what: "look at the journal of the jobs",
        source: source.into(),
    })
}

struct Journal<'a> {
    bytes: &'a mut [u8],
    frame: usize,
    is_big_endian: bool,
}

impl<'a> Journal<'a> {
    /// None for one whose head says nothing.
    fn of(bytes: &'a mut [u8]) -> Option<Self> {
        let magic = word(bytes, 0)?;
        let page = word(bytes, 8)? as usize;
        let is_whole = bytes.len() >= HEAD;
        let is_known =
            is_whole && magic & !1 == 0x377f_0682 && page.is_power_of_two() && (512..=65_536).contains(&page);
        is_known.then(|| Self {
            frame: FRAME_HEAD + page,
            is_big_endian: magic & 1 == 1,
            bytes,
        })
    }

    fn mend(&mut self) -> usize {
        let (sound_head, salts) = self.head();
        let count = (self.bytes.len() - HEAD) / self.frame;
        let fits: Vec<bool> = (0..count).map(|at| self.fits(at, salts)).collect();
        // The last commit that is known to be over, because something whole was written after it.
        let last_whole = fits.iter().rposition(|fits| *fits);
        let over = last_whole.and_then(|last| (0..last).rev().find(|at| self.ends_commit(*at, salts)));
        let Some(over) = over else { return 0 };
        let damaged = (0..=over).filter(|at| !fits[*at]).count() + usize::from(!sound_head);
        if damaged == 0 {
            return 0;
        }
        self.write_head(salts);
        // What was not whole after the commit stays so.
        for at in (0..count).take_while(|at| *at <= over || fits[*at]) {
            self.write_frame(at, salts);
        }
        damaged
    }

    /// Whether the head fits its checksum, and what every page of this journal has. The first page knows the latter too.
    fn head(&self) -> (bool, [u8; 8]) {
        let is_sound = self.sums((0, 0), &self.bytes[..24]) == self.sums_at(24);
        let of_first = HEAD + 8..HEAD + 16;
        let salts = if is_sound { 16..24 } else { of_first };
        let mut found = [0; 8];
        if let Some(salts) = self.bytes.get(salts) {
            found.copy_from_slice(salts);
        }
        (is_sound, found)
    }

    const fn start(&self, at: usize) -> usize {
        HEAD + at * self.frame
    }

    /// The chain before a frame, as it was written.
    fn sums_before(&self, at: usize) -> Sums {
        match at.checked_sub(1) {
            Some(before) => self.sums_at(self.start(before) + 16),
            None => self.sums_at(24),
        }
    }

    fn sums_of(&self, at: usize) -> Sums {
        let start = self.start(at);
        let of_head = self.sums(self.sums_before(at), &self.bytes[start..start + 8]);
        self.sums(of_head, &self.bytes[start + FRAME_HEAD..start + self.frame])
    }

    fn fits(&self, at: usize, salts: [u8; 8]) -> bool {
        let start = self.start(at);
        self.bytes[start + 8..start + 16] == salts && self.sums_of(at) == self.sums_at(start + 16)
    }

    /// The last page of a commit says how large the file is then. One that an earlier journal has left ends no commit of ours:
    /// its salts differ, and by more than a bit that flipped.
    fn ends_commit(&self, at: usize, salts: [u8; 8]) -> bool {
        let start = self.start(at);
        let is_last = word(self.bytes, start + 4).is_some_and(|pages| pages != 0);
        let found = &self.bytes[start + 8..start + 16];
        let differing: u32 = found
            .iter()
            .zip(salts)
            .map(|(found, salt)| (found ^ salt).count_ones())
            .sum();
        is_last && differing <= 1
    }

    fn write_head(&mut self, salts: [u8; 8]) {
        self.bytes[4..8].copy_from_slice(&VERSION.to_be_bytes());
        self.bytes[16..24].copy_from_slice(&salts);
        let sums = self.sums((0, 0), &self.bytes[..24]);
        self.write_sums(24, sums);
    }

    fn write_frame(&mut self, at: usize, salts: [u8; 8]) {
        let start = self.start(at);
        self.bytes[start + 8..start + 16].copy_from_slice(&salts);
        let sums = self.sums_of(at);
        self.write_sums(start + 16, sums);
    }

    fn write_sums(&mut self, at: usize, (first, second): Sums) {
        self.bytes[at..at + 4].copy_from_slice(&first.to_be_bytes());
        self.bytes[at + 4..at + 8].copy_from_slice(&second.to_be_bytes());
    }

    fn sums_at(&self, at: usize) -> Sums {
        (
            word(self.bytes, at).unwrap_or(0),
            word(self.bytes, at + 4).unwrap_or(0),
        )
    }

    /// Goes on with the chain over some bytes, eight at a time.
    fn sums(&self, (mut first, mut second): Sums, bytes: &[u8]) -> Sums {
        let number = |bytes: [u8; 4]| {
            if self.is_big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            }
        };
        for pair in bytes.chunks_exact(8) {
            let [a, b, c, d, e, f, g, h] = *pair else { continue };
            first = first.wrapping_add(number([a, b, c, d])).wrapping_add(second);
            second = second.wrapping_add(number([e, f, g, h])).wrapping_add(first);
        }
        (first, second)
    }
}

/// Everything but what is summed up is big-endian.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
