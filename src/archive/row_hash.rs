//! The content hash of a row, worked out on this side from a line of `COPY`.
//!
//! It is the hash that `hashtextextended((t.*)::text, 0)` gives on the server, so the sum over a table can
//! be compared there, by anybody, with SQL alone; and a snapshot costs the server nothing beyond its
//! dump. The line is taken apart as `COPY` writes it (`src/backend/commands/copyto.c`,
//! `CopyAttributeOutText`), put together as a row's text is (`src/backend/utils/adt/rowtypes.c`,
//! `record_out`), and hashed as Postgres does (`src/common/hashfn.c`, `hash_bytes_extended` with seed 0).

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};

/// Bytes of a line that are kept in memory; what is longer waits in a file, since the hash begins
/// with the length of the whole row.
const IN_MEMORY: usize = 4 << 20;

/// The seeds of the two hashes of a row. The first is that of the content hash; one more tells tables apart whose
/// rows make the same sum by chance or by intent.
pub const SEEDS: [i64; 2] = [0, 0x5355_5041_5341_4645];

/// The hashes of a row, by [`SEEDS`].
pub(super) type Hashes = [i64; 2];

/// Hashes lines of `COPY`, which may come in pieces.
#[derive(Debug, Default)]
pub(super) struct RowHasher {
    line: Vec<u8>,
    spilled: Option<File>,
    broken: Option<String>,
    text: Vec<u8>,
    field: Vec<u8>,
}

impl RowHasher {
    /// Takes a piece of a line that does not end in it.
    pub(super) fn keep(&mut self, piece: &[u8]) {
        self.line.extend_from_slice(piece);
        if self.line.len() > IN_MEMORY
            && let Err(error) = self.spill()
        {
            self.broken.get_or_insert_with(|| error.to_string());
            self.line.clear();
        }
    }

    /// Ends a line with its last piece; returns the row's hashes, or why there are none.
    pub(super) fn end(&mut self, last: &[u8]) -> Result<Hashes, String> {
        if self.line.is_empty() && self.spilled.is_none() && self.broken.is_none() {
            return Ok(self.hash_line(last));
        }
        self.keep(last);
        if let Some(why) = self.broken.take() {
            self.spilled = None;
            return Err(why);
        }
        if self.spilled.is_some() {
            return self.hash_spilled().map_err(|error| error.to_string());
        }
        let line = std::mem::take(&mut self.line);
        let hash = self.hash_line(&line);
        self.line = line;
        self.line.clear();
        Ok(hash)
    }

    /// The same for a part of the fields; `is_kept` has a word on each.
    pub(super) fn end_of(&mut self, last: &[u8], is_kept: &[bool]) -> Result<Hashes, String> {
        self.keep(last);
        if self.broken.take().is_some() || self.spilled.take().is_some() {
            self.line.clear();
            return Err("the row is too long to be taken apart".to_owned());
        }
        let line = std::mem::take(&mut self.line);
        let fields = line.split(|byte| *byte == b'\t').zip(is_kept);
        let kept: Vec<&[u8]> = fields.filter(|(_, is_kept)| **is_kept).map(|(field, _)| field).collect();
        Ok(self.hash_line(&kept.join(&b'\t')))
    }

    /// The hashes of a row of a table without columns, whose line is as empty as that of an empty text.
    pub(super) fn no_columns(&mut self) -> Hashes {
        self.hash_line(NULL)
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.spilled {
            Some(file) => file,
            None => self.spilled.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }

    fn hash_line(&mut self, line: &[u8]) -> Hashes {
        self.text.clear();
        self.text.push(b'(');
        let has_escapes = memchr::memchr(b'\\', line).is_some();
        let mut rest = line;
        loop {
            let end = memchr::memchr(b'\t', rest);
            let (raw, more) = rest.split_at(end.unwrap_or(rest.len()));
            self.push_field(raw, has_escapes);
            if end.is_none() {
                break;
            }
            self.text.push(b',');
            rest = more.get(1..).unwrap_or_default();
        }
        self.text.push(b')');
        hashes_of(&self.text)
    }

    fn push_field(&mut self, raw: &[u8], may_be_escaped: bool) {
        if raw == NULL {
            return;
        }
        let value = if may_be_escaped && memchr::memchr(b'\\', raw).is_some() {
            self.field.clear();
            let mut unescape = Unescape::default();
            self.field.extend(raw.iter().filter_map(|byte| unescape.next(*byte)));
            self.field.as_slice()
        } else {
            raw
        };
        if !needs_quotes(value) {
            self.text.extend_from_slice(value);
            return;
        }
        self.text.push(b'"');
        let mut rest = value;
        while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
            let (plain, doubled) = rest.split_at(at);
            self.text.extend_from_slice(plain);
            self.text.extend(doubled.first().map(|byte| [*byte; 2]).into_iter().flatten());
            rest = doubled.get(1..).unwrap_or_default();
        }
        self.text.extend_from_slice(rest);
        self.text.push(b'"');
    }

    /// A line of any length: once through for the lengths, once more for the hash.
    fn hash_spilled(&mut self) -> io::Result<Hashes> {
        self.spill()?;
        let Some(mut file) = self.spilled.take() else { return Ok([0; 2]) };
        let mut fields = vec![Field::default()];
        walk(&mut file, |event| match (event, fields.last_mut()) {
            (Walked::End, _) => fields.push(Field::default()),
            (Walked::Byte(byte), Some(field)) => field.take(byte),
            (Walked::Null, Some(field)) => field.is_null = true,
            (_, None) => {}
        })?;
        let commas = fields.len() - 1;
        let length = 2 + commas + fields.iter().map(Field::text_length).sum::<usize>();
        let mut hash = Both(SEEDS.map(|seed| Hash::new(length, seed)));
        let mut fields = fields.iter();
        let mut field = fields.next();
        let quote = |hash: &mut Both, field: Option<&Field>| {
            if field.is_some_and(Field::is_quoted) {
                hash.feed(b"\"");
            }
        };
        hash.feed(b"(");
        quote(&mut hash, field);
        walk(&mut file, |event| match event {
            Walked::End => {
                quote(&mut hash, field);
                hash.feed(b",");
                field = fields.next();
                quote(&mut hash, field);
            }
            Walked::Byte(byte) if is_doubled(byte) => hash.feed(&[byte, byte]),
            Walked::Byte(byte) => hash.feed(&[byte]),
            Walked::Null => {}
        })?;
        quote(&mut hash, field);
        hash.feed(b")");
        Ok(hash.end())
    }
}

const NULL: &[u8] = b"\\N";

/// The values of a line of `COPY`, without its end; none where a value is null.
pub fn values(line: &[u8]) -> impl Iterator<Item = Option<Vec<u8>>> {
    line.split(|byte| *byte == b'\t').map(|raw| {
        let mut unescape = Unescape::default();
        (raw != NULL).then(|| raw.iter().filter_map(|byte| unescape.next(*byte)).collect())
    })
}

/// Whether a row's text puts the value in quotes.
fn needs_quotes(value: &[u8]) -> bool {
    value.is_empty() || value.iter().any(|byte| asks_for_quotes(*byte))
}

fn asks_for_quotes(byte: u8) -> bool {
    const ASKS: [bool; 256] = {
        let mut asks = [false; 256];
        let bytes = *b"\"\\(), \t\n\x0b\x0c\r";
        let mut at = 0;
        while at < bytes.len() {
            asks[bytes[at] as usize] = true;
            at += 1;
        }
        asks
    };
    ASKS[usize::from(byte)]
}

/// Whether it is doubled between quotes.
fn is_doubled(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\')
}

/// Takes the backslashes of `COPY` away.
#[derive(Debug, Default)]
struct Unescape {
    is_escaped: bool,
}

impl Unescape {
    fn next(&mut self, byte: u8) -> Option<u8> {
        if !std::mem::take(&mut self.is_escaped) {
            self.is_escaped = byte == b'\\';
            return (!self.is_escaped).then_some(byte);
        }
        Some(match byte {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            other => other,
        })
    }
}

/// What is known of a field of a line that is too long for memory.
#[derive(Debug, Default)]
struct Field {
    bytes: usize,
    doubled: usize,
    asks_for_quotes: bool,
    is_null: bool,
}

impl Field {
    fn take(&mut self, byte: u8) {
        self.bytes += 1;
        self.doubled += usize::from(is_doubled(byte));
        self.asks_for_quotes |= asks_for_quotes(byte);
    }

    fn is_quoted(&self) -> bool {
        !self.is_null && (self.bytes == 0 || self.asks_for_quotes)
    }

    fn text_length(&self) -> usize {
        self.bytes + self.doubled + if self.is_quoted() { 2 } else { 0 }
    }
}

/// What is met on the way through a line.
enum Walked {
    /// A byte of a value.
    Byte(u8),
    /// The field is null.
    Null,
    /// The field is over, and another one follows.
    End,
}

fn walk(file: &mut File, mut see: impl FnMut(Walked)) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut unescape = Unescape::default();
    for byte in BufReader::with_capacity(1 << 20, file).bytes() {
        let byte = byte?;
        // The only letter behind a backslash that is no byte of a value.
        if unescape.is_escaped && byte == b'N' {
            unescape.is_escaped = false;
            see(Walked::Null);
        } else if byte == b'\t' {
            see(Walked::End);
        } else if let Some(byte) = unescape.next(byte) {
            see(Walked::Byte(byte));
        }
    }
    Ok(())
}

fn hashes_of(text: &[u8]) -> Hashes {
    let mut both = Both(SEEDS.map(|seed| Hash::new(text.len(), seed)));
    both.feed(text);
    both.end()
}

/// The hashes of the same bytes by both seeds.
struct Both([Hash; 2]);

impl Both {
    fn feed(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|hash| hash.feed(bytes));
    }

    fn end(self) -> Hashes {
        self.0.map(Hash::end)
    }
}

/// Postgres's hash of bytes (Jenkins's lookup3, on little-endian machines as on big-endian ones).
struct Hash {
    a: u32,
    b: u32,
    c: u32,
    held: [u8; 12],
    held_len: usize,
}

impl Hash {
    /// Begins the hash of that many bytes.
    fn new(length: usize, seed: i64) -> Self {
        // The length is counted in 32 bits there too.
        let length = u32::try_from(length & 0xffff_ffff).unwrap_or_default();
        let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
        let mut begun = Self { a: start, b: start, c: start, held: [0; 12], held_len: 0 };
        if seed != 0 {
            let [lower, upper] = halves(seed);
            begun.add([upper, lower, 0]);
            begun.mix([0; 12]);
        }
        begun
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        if self.held_len > 0 {
            let take = bytes.len().min(12 - self.held_len);
            let (head, rest) = bytes.split_at(take);
            for (held, byte) in self.held.iter_mut().skip(self.held_len).zip(head) {
                *held = *byte;
            }
            self.held_len += take;
            bytes = rest;
            if self.held_len < 12 {
                return;
            }
            let block = self.held;
            self.mix(block);
            self.held_len = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<12>();
        for block in blocks {
            self.mix(*block);
        }
        for (held, byte) in self.held.iter_mut().zip(rest) {
            *held = *byte;
        }
        self.held_len = rest.len();
    }

    fn add(&mut self, words: [u32; 3]) {
        self.a = self.a.wrapping_add(words[0]);
        self.b = self.b.wrapping_add(words[1]);
        self.c = self.c.wrapping_add(words[2]);
    }

    fn mix(&mut self, block: [u8; 12]) {
        self.add(words(block));
        let Self { mut a, mut b, mut c, .. } = *self;
        for [first, second, third] in [[4, 6, 8], [16, 19, 4]] {
            a = a.wrapping_sub(c) ^ c.rotate_left(first);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(second);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(third);
            b = b.wrapping_add(a);
        }
        (self.a, self.b, self.c) = (a, b, c);
    }

    fn end(mut self) -> i64 {
        self.held.iter_mut().skip(self.held_len).for_each(|byte| *byte = 0);
        let [first, second, third] = words(self.held);
        // The lowest byte of `c` is kept for the length.
        self.add([first, second, third << 8]);
        let Self { mut a, mut b, mut c, .. } = self;
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
        ((u64::from(b) << 32) | u64::from(c)).cast_signed()
    }
}

/// The lower and the upper half of a number.
fn halves(number: i64) -> [u32; 2] {
    let number = number.cast_unsigned();
    [number & 0xffff_ffff, number >> 32].map(|half| u32::try_from(half).unwrap_or_default())
}

fn words(block: [u8; 12]) -> [u32; 3] {
    let (words, _) = block.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    [(); 3].map(|()| words.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As `select hashtextextended(t, 0)` gives on PostgreSQL 15 and 17.
    #[test]
    fn the_hash_is_that_of_postgres() {
        let expected = [
            ("", -6_939_563_903_564_495_251),
            ("a", 3_591_986_179_850_072_241),
            ("abcdefghijk", 3_112_909_444_737_856_467),
            ("abcdefghijkl", -7_556_637_188_122_330_412),
            ("abcdefghijklm", 8_871_624_171_452_417_744),
            ("(1,Zürich)", -5_193_041_613_840_078_799),
            (&"abcdefghijklmnopqrstuvwx".repeat(3), -1_289_376_676_711_004_501),
        ];
        for (text, hash) in expected {
            assert_eq!(hashes_of(str::as_bytes(text))[0], hash, "{text}");
        }
    }

    #[test]
    fn a_row_is_put_together_as_the_server_does() {
        let mut hasher = RowHasher::default();
        let rows: [(&[u8], &[u8]); 6] = [
            (b"1\tx", b"(1,x)"),
            (b"\\N\t", b"(,\"\")"),
            (b"a b\t\\\\x61\tq\"q", b"(\"a b\",\"\\\\x61\",\"q\"\"q\")"),
            (b"\\\\N\t(\t,", b"(\"\\\\N\",\"(\",\",\")"),
            (b"\\n\\t\\v\\f\\r\tl\\b", b"(\"\n\t\x0b\x0c\r\",l\x08)"),
            (b"", b"(\"\")"),
        ];
        for (line, text) in rows {
            assert_eq!(hasher.end(line), Ok(hashes_of(text)), "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn pieces_and_a_file_give_the_same_hash(
            line in "(\\\\[Nnt\\\\]|[a-c\"(, \t]){0,40}",
            cut in 0_usize..40,
        ) {
            let line = line.as_bytes();
            let whole = RowHasher::default().end(line);
            let cut = cut.min(line.len());
            let (head, tail) = line.split_at(cut);
            let mut pieces = RowHasher::default();
            pieces.keep(head);
            prop_assert_eq!(pieces.end(tail), whole.clone());
            // `\N` among other letters is nothing that `COPY` writes.
            let is_copy = line.split(|byte| *byte == b'\t').all(|field| {
                field == NULL || !field.windows(2).any(|two| two == NULL)
            });
            if is_copy {
                let mut spilled = RowHasher::default();
                spilled.keep(head);
                spilled.spill().unwrap();
                prop_assert_eq!(spilled.end(tail), whole);
            }
        }
    }
}
