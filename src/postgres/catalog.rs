//! Reads the catalog of a database: its fingerprint, its tables, its extensions.
//!
//! All three only read, work for a role that is no superuser, and see the snapshot of the
//! transaction that the client is in. Two caveats come from Postgres, and hold for `pg_dump` too: the
//! `pg_get_…def` functions show an object as it is committed now, even inside an older snapshot, and
//! `pg_get_viewdef` waits for a lock on the tables that the view reads.

use crate::fingerprint::{Class, Fingerprint, Line, Place, is_platform_schema};
use tokio_postgres::{Client, Row};

const FINGERPRINT: &str = concat!(
    include_str!("sql/fingerprint/head.sql"),
    include_str!("sql/fingerprint/relations.sql"),
    include_str!("sql/fingerprint/attached.sql"),
    include_str!("sql/fingerprint/routines.sql"),
    include_str!("sql/fingerprint/shared.sql"),
    include_str!("sql/fingerprint/foreign.sql"),
    include_str!("sql/fingerprint/rare.sql"),
    include_str!("sql/fingerprint/notes.sql"),
    include_str!("sql/fingerprint/tail.sql"),
);
const TABLES: &str = include_str!("sql/tables.sql");
const EXTENSIONS: &str = include_str!("sql/extensions.sql");

/// What the text of a definition depends on, with the values that the session must have.
const PINNED: [(&str, &str); 8] = [
    ("search_path", ""),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
];

/// Why the catalog was not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused, or the connection is gone.
    #[error("the catalog could not be read")]
    Query(#[from] tokio_postgres::Error),
    /// Two fingerprints taken under different settings could not be compared.
    #[error("the session has `{setting}` at `{found}`; a fingerprint needs it at `{needed}`")]
    NotPinned {
        /// The setting.
        setting: &'static str,
        /// Its value in this session.
        found: String,
        /// The value that it must have.
        needed: &'static str,
    },
}

/// A relation that holds rows: a table, a partition, or a materialized view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The schema, not quoted.
    pub schema: String,
    /// The name, not quoted.
    pub name: String,
    /// What sort of relation it is.
    pub kind: TableKind,
    /// What a difference in its rows means. Rows of an extension's table are the platform's.
    pub class: Class,
    /// What it takes on disk, its long values included, its indexes not.
    pub bytes: u64,
    /// How many rows the planner believes in, if it was ever told.
    pub estimated_rows: Option<u64>,
    /// Whether this session can read all of it; a hidden row counts as one it cannot.
    pub is_readable: bool,
    /// Whether a line of a dump holds all that the text of a row does, in the same words.
    pub is_dumped_as_read: bool,
    /// The extension that it is a member of.
    pub extension: Option<String>,
    /// The columns in order, not quoted.
    pub columns: Vec<String>,
    /// Numbers of columns that were dropped, which no other column gets (PostgreSQL documentation,
    /// `pg_attribute`).
    pub dropped: Vec<i16>,
}

/// What sort of relation holds the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// A table or a partition.
    Table,
    /// A materialized view that can be read.
    MaterializedView,
    /// A materialized view that was never filled: reading it is an error.
    UnpopulatedMaterializedView,
}

/// An extension with what it brought along.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extension {
    /// Its name, not quoted.
    pub name: String,
    /// Its installed version.
    pub version: String,
    /// The schema that it was installed into, not quoted.
    pub schema: String,
    /// The schemas that it created, not quoted.
    pub created_schemas: Vec<String>,
    /// Its members, in the order of their object ids.
    pub members: Vec<Member>,
    /// Whether the role of the session may drop it.
    #[serde(default)]
    pub droppable: bool,
}

/// An object that belongs to an extension, by the two numbers that an archive's table of contents
/// starts its entries with.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// The system catalog that holds it.
    pub class_oid: u32,
    /// Its row there.
    pub oid: u32,
    /// What it is, in words.
    pub identity: String,
    /// Privileges on it that the role of the session may hand on.
    #[serde(default)]
    pub grantable: Vec<String>,
}

/// Reads every object of the database, and the roles and settings that concern it.
///
/// The session must have an empty `search_path` and the output settings of the row hashes, or
/// names and constants would come out in other words.
pub async fn fingerprint(client: &Client) -> Result<Fingerprint, Error> {
    check_pinned(client).await?;
    // Estimates of this query can pass `jit_above_cost`, and compiling it takes longer than running it.
    client.batch_execute("set local jit = off").await?;
    let rows = client.query(FINGERPRINT, &[]).await?;
    let lines = rows.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    Ok(Fingerprint::new(lines.into_iter().flatten()))
}

async fn check_pinned(client: &Client) -> Result<(), Error> {
    let names: Vec<&str> = PINNED.iter().map(|(name, _)| *name).collect();
    // Qualified, since the path is not yet known to be empty.
    let query = "select pg_catalog.current_setting(s.name)
                 from pg_catalog.unnest($1::pg_catalog.text[]) with ordinality s (name, rank) order by s.rank";
    let rows = client.query(query, &[&names]).await?;
    for ((setting, needed), row) in PINNED.into_iter().zip(&rows) {
        let found: String = row.try_get(0)?;
        // `set search_path = ''` leaves a quoted empty name, `set_config` an empty text.
        let is_empty_path = setting == "search_path" && found == "\"\"";
        if found != needed && !is_empty_path {
            return Err(Error::NotPinned { setting, found, needed });
        }
    }
    Ok(())
}

fn line(row: &Row) -> Result<Option<Line>, tokio_postgres::Error> {
    let place = Place {
        subject: row.try_get("subject")?,
        schema: row.try_get("schema_name")?,
        owner: row.try_get("owner")?,
        owner_is_superuser: row.try_get("superuser")?,
        partner: row.try_get("partner")?,
    };
    // Elsewhere the object's own line has all its privileges. The partner is the extension that made it.
    let is_told = place.subject == "given privileges"
        && place.partner.is_none()
        && place.schema.is_none_or(|schema| !is_platform_schema(schema));
    if is_told {
        return Ok(None);
    }
    Ok(Some(Line {
        class: place.class(),
        kind: row.try_get("kind")?,
        identity: row.try_get("identity")?,
        definition: row.try_get("definition")?,
    }))
}

/// Lists every relation that holds rows, by schema and name; temporary ones are left out.
pub async fn tables(client: &Client) -> Result<Vec<Table>, Error> {
    let rows = client.query(TABLES, &[]).await?;
    Ok(rows.iter().map(table).collect::<Result<_, _>>()?)
}

fn table(row: &Row) -> Result<Table, tokio_postgres::Error> {
    let kind = match (row.try_get("is_materialized_view")?, row.try_get("is_populated")?) {
        (false, _) => TableKind::Table,
        (true, true) => TableKind::MaterializedView,
        (true, false) => TableKind::UnpopulatedMaterializedView,
    };
    let (schema, name): (String, String) = (row.try_get("schema_name")?, row.try_get("name")?);
    let extension: Option<String> = row.try_get("extension")?;
    let place =
        Place { subject: "table", schema: Some(&schema), owner: row.try_get("owner")?, ..Place::default() };
    let estimated_rows: Option<i64> = row.try_get("estimated_rows")?;
    Ok(Table {
        class: if extension.is_some() { Class::Platform } else { Class::of_table(place, &name) },
        schema,
        name,
        kind,
        bytes: row.try_get::<_, i64>("bytes")?.unsigned_abs(),
        estimated_rows: estimated_rows.map(i64::unsigned_abs),
        is_readable: row.try_get("is_readable")?,
        is_dumped_as_read: row.try_get("is_dumped_as_read")?,
        extension,
        columns: row.try_get("columns")?,
        dropped: row.try_get("dropped")?,
    })
}

/// Lists the extensions by name.
pub async fn extensions(client: &Client) -> Result<Vec<Extension>, Error> {
    let mut extensions: Vec<Extension> = Vec::new();
    for row in client.query(EXTENSIONS, &[]).await? {
        let name: String = row.try_get("name")?;
        if extensions.last().is_none_or(|last| last.name != name) {
            extensions.push(Extension {
                name,
                version: row.try_get("version")?,
                schema: row.try_get("schema_name")?,
                created_schemas: Vec::new(),
                members: Vec::new(),
                droppable: row.try_get("droppable")?,
            });
        }
        let Some(extension) = extensions.last_mut() else { continue };
        extension.created_schemas.extend(row.try_get::<_, Option<String>>("created_schema")?);
        if let Some(class_oid) = row.try_get("class_oid")? {
            let (oid, identity) = (row.try_get("oid")?, row.try_get("identity")?);
            let grantable = row.try_get::<_, Option<Vec<String>>>("grantable")?.unwrap_or_default();
            extension.members.push(Member { class_oid, oid, identity, grantable });
        }
    }
    Ok(extensions)
}
