//! The migration history as the Supabase CLI keeps it.

use tokio_postgres::{Client, Error};

/// One applied migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its version.
    pub version: String,
    /// Its statements as the CLI recorded them; `None` in rows that something else wrote.
    pub statements: Option<Vec<String>>,
}

/// Reads the history in order of version; empty when the table was never made.
///
/// Old CLIs made the table with the version alone, so the statements are read only where the
/// column exists.
pub async fn read(client: &Client) -> Result<Vec<Applied>, Error> {
    let shape = client
        .query_one(
            "select count(*) filter (where attname = 'version') > 0, count(*) filter (where attname = 'statements') > 0
             from pg_catalog.pg_attribute
             where attrelid = pg_catalog.to_regclass('supabase_migrations.schema_migrations') and not attisdropped",
            &[],
        )
        .await?;
    if !shape.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let statements = if shape.get(1) { "statements" } else { "null::text[]" };
    let sql =
        format!("select version, {statements} from supabase_migrations.schema_migrations order by version");
    let rows = client.query(&sql, &[]).await?;
    Ok(rows.iter().map(|row| Applied { version: row.get(0), statements: row.get(1) }).collect())
}
