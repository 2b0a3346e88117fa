//! Foreign keys, as the lines of a fingerprint define them.

use super::{Error, names};
use crate::fingerprint::Fingerprint;
use serde_json::Value;
use tokio_postgres::Client;

/// What happens to a row when the one that it refers to goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OnDelete {
    /// It goes too. It cannot stand without the other in any case, so every other action counts as this.
    Remove,
    /// These columns become null.
    Forget(Vec<String>),
    /// These columns get their default.
    Reset(Vec<String>),
}

impl OnDelete {
    /// The columns that get another value, and which.
    pub(super) fn value(&self) -> Option<(&[String], &'static str)> {
        match self {
            Self::Remove => None,
            Self::Forget(columns) => Some((columns, "null")),
            Self::Reset(columns) => Some((columns, "default")),
        }
    }

    /// Reads what stands behind the names of a key; of these columns all change, or those that are listed
    /// (since 15).
    fn parse(text: &str, columns: &[String]) -> Self {
        let action = text.split_once(" ON DELETE SET ").map_or("", |(_, action)| action);
        let of = |rest: &str| {
            let listed = rest.strip_prefix(" (").and_then(list);
            listed.map_or_else(|| columns.to_vec(), |(columns, _)| columns)
        };
        match (action.strip_prefix("NULL"), action.strip_prefix("DEFAULT")) {
            (Some(rest), _) => Self::Forget(of(rest)),
            (_, Some(rest)) => Self::Reset(of(rest)),
            _ => Self::Remove,
        }
    }
}

/// A foreign key; names are as SQL wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignKey {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
    pub(super) refers_to: String,
    pub(super) key: Vec<String>,
    pub(super) on_delete: OnDelete,
    /// Whether every row holds to it; `NOT VALID` keys let older rows be.
    pub(super) is_valid: bool,
}

impl ForeignKey {
    /// All that a fingerprint has.
    pub(super) fn all(fingerprint: &Fingerprint) -> Vec<Self> {
        let constraints = fingerprint.lines().iter().filter(|line| line.kind == "constraint");
        let keys = constraints.filter_map(|line| {
            let (_, table) = names::on(&line.identity)?;
            let fields: Value = serde_json::from_str(&line.definition).ok()?;
            Self::parse(table, fields.get("definition")?.as_str()?)
        });
        keys.collect()
    }

    /// Reads what `pg_get_constraintdef` writes.
    fn parse(table: &str, definition: &str) -> Option<Self> {
        let (columns, rest) = list(definition.strip_prefix("FOREIGN KEY (")?)?;
        let rest = rest.strip_prefix(" REFERENCES ")?;
        let (refers_to, rest) = rest.split_once('(')?;
        let (key, rest) = list(rest)?;
        let on_delete = OnDelete::parse(rest, &columns);
        let is_valid = !rest.contains("NOT VALID");
        let (table, refers_to) = (table.to_owned(), refers_to.to_owned());
        Some(Self { table, columns, refers_to, key, on_delete, is_valid })
    }

    /// Whether it refers to objects or buckets of Storage.
    pub(super) fn is_into_storage(&self) -> bool {
        self.refers_to.starts_with("storage.")
    }

    /// A condition on `t`, a row of the table, that it refers to a row that is not there.
    pub(super) fn dangles(&self) -> String {
        let filled = self.columns.iter().map(|column| format!("t.{column} is not null"));
        format!(
            "{} and not exists (select from {} r where {})",
            filled.collect::<Vec<_>>().join(" and "),
            self.refers_to,
            self.equal()
        )
    }

    /// A condition on `t`, and a row `r` of the other table, that it refers to that one.
    pub(super) fn equal(&self) -> String {
        let equal = self.columns.iter().zip(&self.key).map(|(column, key)| format!("r.{key} = t.{column}"));
        equal.collect::<Vec<_>>().join(" and ")
    }
}

/// A list of names up to its closing parenthesis, and what follows.
pub(super) fn list(text: &str) -> Option<(Vec<String>, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let (name, more) = names::identifier(rest)?;
        found.push(name.to_owned());
        rest = match more.strip_prefix(", ") {
            Some(more) => more,
            None => return Some((found, more.strip_prefix(')')?)),
        };
    }
}

/// The schemas of extensions as a search path.
const OPERATORS: &str = "
    select pg_catalog.set_config('search_path', coalesce(pg_catalog.string_agg(distinct pg_catalog.quote_ident(n.nspname), ', '), ''), false)
    from pg_catalog.pg_extension e
    join pg_catalog.pg_namespace n on n.oid = e.extnamespace and n.nspname <> 'pg_catalog'";

/// Lets values of types of extensions be compared as their keys do: without a path to its own operator, `citext`
/// is compared as `text` is, and `ltree` not at all (PostgreSQL documentation, `citext`). It holds until the next
/// [`super::Work::pin`].
pub(super) async fn find_operators(client: &Client) -> Result<(), Error> {
    Ok(client.query(OPERATORS, &[]).await.map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_read() {
        let key = ForeignKey::parse(
            "public.\"Orders\"",
            "FOREIGN KEY (\"user, id\", kind) REFERENCES auth.users(id, kind) ON UPDATE CASCADE ON DELETE SET NULL",
        )
        .unwrap();
        assert_eq!(key.columns, ["\"user, id\"", "kind"]);
        let both = ["\"user, id\"", "kind"].map(str::to_owned).to_vec();
        assert_eq!((key.refers_to.as_str(), &key.on_delete), ("auth.users", &OnDelete::Forget(both.clone())));
        assert_eq!(
            key.dangles(),
            "t.\"user, id\" is not null and t.kind is not null and not exists \
             (select from auth.users r where r.id = t.\"user, id\" and r.kind = t.kind)"
        );
        assert!(key.is_valid);
        let later = ForeignKey::parse("t", "FOREIGN KEY (a) REFERENCES u(id) NOT VALID").unwrap();
        assert!(!later.is_valid);
        assert_eq!(ForeignKey::parse("t", "CHECK ((a > 0))"), None);
        let on_delete = |action: &str| {
            let text = format!("FOREIGN KEY (\"user, id\", kind) REFERENCES u(a, b) {action}");
            ForeignKey::parse("t", &text).unwrap().on_delete
        };
        let kind = vec!["kind".to_owned()];
        for (action, expected) in [
            ("ON DELETE SET NULL (kind) DEFERRABLE", OnDelete::Forget(kind.clone())),
            ("ON UPDATE SET NULL ON DELETE SET DEFAULT (kind)", OnDelete::Reset(kind)),
            ("MATCH FULL ON DELETE SET DEFAULT NOT VALID", OnDelete::Reset(both)),
            ("ON UPDATE SET NULL ON DELETE CASCADE", OnDelete::Remove),
            ("ON UPDATE SET DEFAULT", OnDelete::Remove),
        ] {
            assert_eq!(on_delete(action), expected, "{action}");
        }
    }
}
