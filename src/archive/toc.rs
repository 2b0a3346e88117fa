//! The file `toc.dat` of a directory archive: read whole, added to, and written again to the byte.
//!
//! Layout: PostgreSQL source, `src/bin/pg_dump/pg_backup_archiver.c` (`WriteHead`, `WriteToc`, `WriteInt`,
//! `WriteStr`) and `pg_backup_directory.c` (`_WriteExtraToc`). A number is its sign and as many bytes as the
//! head says, the lowest first; a text is its length, -1 where there is none, and its bytes.

/// What such a file begins with.
const MAGIC: &[u8] = b"PGDMP";
/// Versions of the format whose entries are known: those of `pg_dump` 12 to 15, 16, and 17.
const VERSIONS: [(u8, u8); 3] = [(1, 14), (1, 15), (1, 16)];
/// What the head of a directory archive calls its format: its table of contents is that of a tar archive.
const TAR: u8 = 3;
/// Bytes of a number that are known.
const INT_BYTES: u8 = 4;
/// `SECTION_DATA` and `SECTION_POST_DATA` of `pg_backup.h`.
const DATA: i32 = 3;
const POST_DATA: i32 = 4;
/// How the rows of a table are called.
const TABLE_DATA: &[u8] = b"TABLE DATA";

/// Why a table of contents was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is of a program that is not known.
    #[error("the archive is of a version that is not known")]
    Unknown,
    /// It ends too early, or holds something else.
    #[error("the archive's `toc.dat` is cut or damaged")]
    Damaged,
}

/// A text as it stands there, in the encoding of the dump.
type Text = Option<Vec<u8>>;

/// A table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toc {
    /// Everything before the number of entries.
    head: Vec<u8>,
    minor: u8,
    /// By what the files are compressed, as the head has it.
    compression: i32,
    entries: Vec<Item>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    dump_id: i32,
    has_data: i32,
    catalog_oid: Text,
    oid: Text,
    name: Text,
    kind: Text,
    section: i32,
    definition: Text,
    drop: Text,
    copy: Text,
    namespace: Text,
    tablespace: Text,
    access_method: Text,
    /// Since 1.16.
    relation_kind: Option<i32>,
    owner: Text,
    with_oids: Text,
    dependencies: Vec<Vec<u8>>,
    file: Text,
}

/// Rows of a table, as an archive has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableData {
    /// The statement that loads them.
    pub copy: Vec<u8>,
    /// Their file in the archive's folder, without what its compression adds.
    pub file: String,
}

impl Toc {
    /// Reads one.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Reader { rest: bytes };
        let [major, minor, _, int_bytes, _, format] = from.take(MAGIC)?;
        if !VERSIONS.contains(&(major, minor)) || int_bytes != INT_BYTES || format != TAR {
            return Err(Error::Unknown);
        }
        let compression = if minor >= 15 { i32::from(from.byte()?) } else { from.int()? };
        // The time, by its parts; then the database, and the versions of the server and of the program.
        for _ in 0..7 {
            from.int()?;
        }
        for _ in 0..3 {
            from.text()?;
        }
        let head = bytes.get(..bytes.len() - from.rest.len()).ok_or(Error::Damaged)?.to_vec();
        let count = from.int()?;
        let entries = (0..count).map(|_| from.item(minor)).collect::<Result<_, _>>()?;
        if from.rest.is_empty() {
            Ok(Self { head, minor, compression, entries })
        } else {
            Err(Error::Damaged)
        }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        put_int(&mut bytes, i32::try_from(self.entries.len()).unwrap_or(i32::MAX));
        for item in &self.entries {
            put_item(&mut bytes, item);
        }
        bytes
    }

    /// Whether files of the two may stand in one archive.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.minor, self.compression) == (other.minor, other.compression)
    }

    /// The rows of a table, by namespace and name.
    pub fn data_of(&self, namespace: &str, name: &str) -> Option<TableData> {
        let item = self.entries.iter().find(|item| item.is(TABLE_DATA, namespace, name))?;
        let file = String::from_utf8(item.file.clone()?).ok()?;
        Some(TableData { copy: item.copy.clone()?, file })
    }

    /// Adds rows of a table which the archive defines; returns the file in which it wants them, or nothing where it
    /// does not define that table, or has its rows.
    pub fn add_data(&mut self, (namespace, name): (&str, &str), copy: Vec<u8>) -> Option<String> {
        if self.entries.iter().any(|item| item.is(TABLE_DATA, namespace, name)) {
            return None;
        }
        let table = self.entries.iter().find(|item| item.is(b"TABLE", namespace, name))?;
        let dump_id = self.entries.iter().map(|item| item.dump_id).max()?.checked_add(1)?;
        let file = format!("{dump_id}.dat");
        let item = Item {
            dump_id,
            has_data: 1,
            catalog_oid: Some(b"0".to_vec()),
            kind: Some(TABLE_DATA.to_vec()),
            section: DATA,
            definition: Some(Vec::new()),
            drop: Some(Vec::new()),
            copy: Some(copy),
            tablespace: None,
            access_method: None,
            relation_kind: table.relation_kind.map(|_| 0),
            dependencies: vec![table.dump_id.to_string().into_bytes()],
            file: Some(file.clone().into_bytes()),
            ..table.clone()
        };
        let behind = self.entries.iter().position(|item| item.section == POST_DATA);
        self.entries.insert(behind.unwrap_or(self.entries.len()), item);
        Some(file)
    }
}

impl Item {
    fn is(&self, kind: &[u8], namespace: &str, name: &str) -> bool {
        self.kind.as_deref() == Some(kind)
            && self.namespace.as_deref() == Some(namespace.as_bytes())
            && self.name.as_deref() == Some(name.as_bytes())
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    /// The six bytes behind a beginning.
    fn take(&mut self, begins: &[u8]) -> Result<[u8; 6], Error> {
        self.rest = self.rest.strip_prefix(begins).ok_or(Error::Unknown)?;
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Error::Damaged)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let (byte, rest) = self.rest.split_first().ok_or(Error::Damaged)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn int(&mut self) -> Result<i32, Error> {
        let is_negative = self.byte()? != 0;
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Error::Damaged)?;
        self.rest = rest;
        let value = i32::try_from(u32::from_le_bytes(*bytes)).map_err(|_| Error::Damaged)?;
        Ok(if is_negative { -value } else { value })
    }

    fn text(&mut self) -> Result<Text, Error> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(None) };
        let (text, rest) = self.rest.split_at_checked(length).ok_or(Error::Damaged)?;
        self.rest = rest;
        Ok(Some(text.to_vec()))
    }

    fn item(&mut self, minor: u8) -> Result<Item, Error> {
        Ok(Item {
            dump_id: self.int()?,
            has_data: self.int()?,
            catalog_oid: self.text()?,
            oid: self.text()?,
            name: self.text()?,
            kind: self.text()?,
            section: self.int()?,
            definition: self.text()?,
            drop: self.text()?,
            copy: self.text()?,
            namespace: self.text()?,
            tablespace: self.text()?,
            access_method: self.text()?,
            relation_kind: if minor >= 16 { Some(self.int()?) } else { None },
            owner: self.text()?,
            with_oids: self.text()?,
            dependencies: self.dependencies()?,
            file: self.text()?,
        })
    }

    fn dependencies(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let mut found = Vec::new();
        while let Some(one) = self.text()? {
            found.push(one);
        }
        Ok(found)
    }
}

fn put_int(bytes: &mut Vec<u8>, value: i32) {
    bytes.push(u8::from(value < 0));
    bytes.extend(value.unsigned_abs().to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: Option<&[u8]>) {
    put_int(bytes, text.map_or(-1, |text| i32::try_from(text.len()).unwrap_or(i32::MAX)));
    bytes.extend(text.unwrap_or_default());
}

fn put_item(bytes: &mut Vec<u8>, item: &Item) {
    put_int(bytes, item.dump_id);
    put_int(bytes, item.has_data);
    for text in [&item.catalog_oid, &item.oid, &item.name, &item.kind] {
        put_text(bytes, text.as_deref());
    }
    put_int(bytes, item.section);
    for text in
        [&item.definition, &item.drop, &item.copy, &item.namespace, &item.tablespace, &item.access_method]
    {
        put_text(bytes, text.as_deref());
    }
    if let Some(kind) = item.relation_kind {
        put_int(bytes, kind);
    }
    for text in [&item.owner, &item.with_oids] {
        put_text(bytes, text.as_deref());
    }
    for one in &item.dependencies {
        put_text(bytes, Some(one));
    }
    put_text(bytes, None);
    put_text(bytes, item.file.as_deref());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(dump_id: i32, kind: &str, section: i32) -> Item {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        Item {
            dump_id,
            has_data: 0,
            catalog_oid: text("1259"),
            oid: text("16400"),
            name: text("a table"),
            kind: text(kind),
            section,
            definition: text("create"),
            drop: text("drop"),
            copy: text(""),
            namespace: text("public"),
            tablespace: text(""),
            access_method: text("heap"),
            relation_kind: Some(i32::from(b'r')),
            owner: text("postgres"),
            with_oids: text("false"),
            dependencies: vec![b"7".to_vec()],
            file: text(""),
        }
    }

    fn toc() -> Toc {
        let mut head = [MAGIC, &[1, 16, 0, 4, 8, TAR, 3]].concat();
        for part in [0, 0, 0, 1, 10, 126, -1] {
            put_int(&mut head, part);
        }
        for text in ["postgres", "17.10", "17.10"] {
            put_text(&mut head, Some(text.as_bytes()));
        }
        let entries = vec![item(5, "TABLE", 2), item(9, "CONSTRAINT", POST_DATA)];
        Toc { head, minor: 16, compression: 3, entries }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Toc::read(&toc().to_bytes()), Ok(toc()));
    }

    #[test]
    fn rows_are_added_before_what_needs_them() {
        let mut added = toc();
        assert_eq!(added.add_data(("public", "nowhere"), Vec::new()), None);
        assert_eq!(added.add_data(("public", "a table"), b"COPY".to_vec()).as_deref(), Some("10.dat"));
        assert_eq!(added.add_data(("public", "a table"), b"COPY".to_vec()), None);
        let kinds: Vec<_> = added.entries.iter().map(|item| item.kind.as_deref().unwrap()).collect();
        assert_eq!(kinds, [b"TABLE".as_slice(), TABLE_DATA, b"CONSTRAINT"]);
        assert_eq!(added.entries[1].dependencies, [b"5"]);
        let found = Toc::read(&added.to_bytes()).unwrap().data_of("public", "a table");
        assert_eq!(found, Some(TableData { copy: b"COPY".to_vec(), file: "10.dat".to_owned() }));
    }

    #[test]
    fn what_is_cut_or_unknown_is_not_read() {
        let bytes = toc().to_bytes();
        for end in 0..bytes.len() {
            assert!(Toc::read(&bytes[..end]).is_err(), "{end}");
        }
        let mut newer = bytes;
        newer[6] = 17;
        assert_eq!(Toc::read(&newer), Err(Error::Unknown));
    }
}
