//! What stands in the database now, by object id.

use super::Error;
use super::selection::{Known, Object};
use crate::fingerprint::{Class, Place};
use crate::manifest::{qualified, quote_identifier};
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// Catalogs that only superusers read, or that have no ids: large objects, their data, subscriptions.
const CLOSED: [u32; 3] = [2613, 2995, 6100];
/// `pg_user_mapping`, of which everybody sees a view.
const USER_MAPPING: u32 = 1418;

/// A table or partition of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// Its columns but the generated ones.
    pub(super) columns: Vec<String>,
    /// Their numbers, which a column keeps under whatever name.
    pub(super) numbers: Vec<i16>,
    /// Whether it holds rows itself: a partitioned table does not.
    pub(super) has_rows: bool,
    /// The partitioned tables above it, the nearest first.
    pub(super) above: Vec<u32>,
}

impl Table {
    /// `schema.name`, as people read it.
    pub(super) fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// Whether it is a part of the history of migrations, in which users write nothing.
    pub(super) fn is_history(&self) -> bool {
        self.schema == "supabase_migrations"
    }

    /// `"schema"."name"`, for SQL.
    pub(super) fn sql(&self) -> String {
        sql_name(&self.schema, &self.name)
    }
}

/// `"schema"."name"`, for SQL.
pub(super) fn sql_name(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// All of the user's tables, by name.
pub(super) async fn tables(client: &Client) -> Result<Vec<Table>, Error> {
    let rows = client
        .query(
            "select c.oid, n.nspname::text, c.relname::text, c.relkind = 'r',
                pg_catalog.pg_get_userbyid(c.relowner)::text,
                array(
                    select a.attname::text from pg_catalog.pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                    order by a.attnum),
                array(
                    select a.oid::pg_catalog.oid
                    from pg_catalog.pg_partition_ancestors(c.oid) with ordinality a (oid, rank)
                    where a.oid <> c.oid
                    order by a.rank),
                array(
                    select a.attnum from pg_catalog.pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                    order by a.attnum)
             from pg_catalog.pg_class c
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_'
                and n.nspname <> 'information_schema'
                and not exists (
                    select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                        and d.deptype = 'e')
             order by n.nspname collate \"C\", c.relname collate \"C\"",
            &[],
        )
        .await?;
    let tables = rows.iter().filter_map(|row| {
        let (schema, name): (String, String) = (row.get(1), row.get(2));
        let (subject, owner) = ("table", Some(row.get(4)));
        let place = Place { subject, schema: Some(&schema), owner, ..Place::default() };
        (Class::of_table(place, &name) == Class::Owned).then(|| Table {
            oid: row.get(0),
            schema: schema.clone(),
            name: name.clone(),
            has_rows: row.get(3),
            columns: row.get(5),
            above: row.get(6),
            numbers: row.get(7),
        })
    });
    Ok(tables.collect())
}

/// The objects of an archive that are there.
pub(super) async fn existing(client: &Client, known: &Known<'_>) -> Result<BTreeSet<Object>, Error> {
    let catalogs = known.by_catalog();
    let wanted: Vec<u32> = catalogs.keys().copied().collect();
    let names = client
        .query(
            "select oid, oid::pg_catalog.regclass::text from pg_catalog.pg_class where oid = any($1)",
            &[&wanted],
        )
        .await?;
    let selects = names.iter().filter_map(|row| {
        let (catalog, name): (u32, String) = (row.get(0), row.get(1));
        let (name, column) = match catalog {
            USER_MAPPING => ("pg_catalog.pg_user_mappings".to_owned(), "umid"),
            _ => (name, "oid"),
        };
        let ids: Vec<String> = catalogs.get(&catalog)?.iter().map(u32::to_string).collect();
        (!CLOSED.contains(&catalog)).then(|| {
            format!(
                "select {catalog}::oid, {column} from {name} where {column} = any('{{{}}}'::oid[])",
                ids.join(",")
            )
        })
    });
    let sql = selects.collect::<Vec<_>>().join(" union all ");
    let found = client.query(&sql, &[]).await?;
    let mut existing: BTreeSet<Object> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
    // Of what cannot be looked at, nothing is brought back.
    for catalog in CLOSED {
        existing.extend(catalogs.get(&catalog).into_iter().flatten().map(|oid| (catalog, *oid)));
    }
    Ok(existing)
}
