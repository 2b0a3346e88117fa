//! The demo's proof: after the rollback nothing differs from before but what customers did.

use crate::demo::{BY_CUSTOMERS, OF_CUSTOMERS};
use crate::manifest::storage::{Line, Object};
use crate::manifest::{Database, TableRows};
use std::collections::BTreeMap;

/// How a database compares with what it was.
#[derive(Debug)]
pub(super) struct Proof {
    /// That, for people.
    pub(super) lines: Vec<String>,
    /// What differs by nobody's hand, or is lost of what customers did.
    pub(super) wrong: Vec<String>,
}

/// Compares the snapshot from before the migration with the one from after the rollback.
pub(super) fn compare(was: &Database, is: &Database) -> Proof {
    let is_equal = was.owned_digest == is.owned_digest;
    let shape = if is_equal { "equal" } else { "NOT EQUAL" };
    let shape = format!("objects, privileges, policies, and roles of yours: {shape}");
    let mut wrong: Vec<String> = (!is_equal).then(|| shape.clone()).into_iter().collect();
    let differing: Vec<(&TableRows, u64)> = was
        .tables
        .iter()
        .filter_map(|table| {
            let now = rows(is, &table.qualified());
            let is_same = now.is_some_and(|now| (now.count, &now.content) == (table.count, &table.content));
            (!is_same).then(|| (table, now.map_or(0, |now| now.count)))
        })
        .collect();
    let equal = was.tables.len() - differing.len();
    let mut lines = vec![
        shape,
        format!("{equal} of {} tables hold the very same rows, by their hashes", was.tables.len()),
    ];
    for (table, now) in &differing {
        let text = format!("{}: {} rows, and {now} now", table.qualified(), table.count);
        let expected = expected(&table.qualified());
        if expected.is_none_or(|more| table.count + more != *now) {
            wrong.push(text.clone());
        }
        lines.push(text);
    }
    let differs = |name: &str| differing.iter().any(|(table, _)| table.qualified() == name);
    let lost = BY_CUSTOMERS.iter().filter(|(name, _)| !differs(name));
    wrong.extend(lost.map(|(name, _)| format!("{name}: what customers did is lost")));
    let came = is.tables.iter().map(TableRows::qualified).filter(|name| rows(was, name).is_none());
    wrong.extend(came.map(|name| format!("{name}: it was not there before")));
    Proof { lines, wrong }
}

/// Compares the indexes of Storage of both: each object outside the customers' own bucket has its bytes.
pub(super) fn compare_objects(was: &str, is: &str) -> Result<Proof, serde_json::Error> {
    let (was, is) = (objects(was)?, objects(is)?);
    let wrong: Vec<String> = was
        .iter()
        .filter(|(id, object)| is.get(*id) != Some(object))
        .map(|(_, (name, _))| format!("object {name} is not as it was"))
        .collect();
    let came = is.iter().filter(|(id, _)| !was.contains_key(*id));
    let came = came.map(|(_, (name, _))| format!("object {name} was not there before"));
    let equal = was.len() - wrong.len();
    let line = format!(
        "{equal} of {} objects of Storage, but for the {OF_CUSTOMERS}, hold the very same bytes, by their hashes",
        was.len()
    );
    Ok(Proof { lines: vec![line], wrong: wrong.into_iter().chain(came).collect() })
}

/// Names and digests of the objects that customers leave alone, by their ids.
fn objects(index: &str) -> Result<BTreeMap<String, (String, Option<String>)>, serde_json::Error> {
    let mut found = BTreeMap::new();
    for line in index.lines() {
        if let Line::Object(object) = serde_json::from_str(line)? {
            let Object { id, bucket, key, sha256, .. } = *object;
            if bucket.as_deref() != Some(OF_CUSTOMERS) {
                let name = [bucket, key].map(Option::unwrap_or_default).join("/");
                found.insert(id, (name, sha256));
            }
        }
    }
    Ok(found)
}

fn rows<'a>(database: &'a Database, name: &str) -> Option<&'a TableRows> {
    database.tables.iter().find(|table| table.qualified() == name)
}

/// By how many rows customers let a table grow.
fn expected(name: &str) -> Option<u64> {
    BY_CUSTOMERS.iter().find(|(table, _)| *table == name).map(|(_, more)| *more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Class;
    use crate::manifest::{Content, LargeObjects};

    /// Tables by name, with count and content.
    fn database(digest: &str, tables: &[(&str, u64, &str)]) -> Database {
        let table = |(name, count, content): &(&str, u64, &str)| {
            let (schema, name) = name.split_once('.').unwrap();
            TableRows {
                schema: schema.to_owned(),
                name: name.to_owned(),
                class: Class::Owned,
                count: *count,
                content: Content::Sum((*content).to_owned()),
                is_hashed_in_archive: true,
                extension: None,
                dropped: None,
                second: None,
                from: None,
            }
        };
        Database {
            name: "postgres".to_owned(),
            owned_digest: digest.to_owned(),
            contents_digest: String::new(),
            tables: tables.iter().map(table).collect(),
            sequences: Vec::new(),
            large_objects: LargeObjects::default(),
            extensions: Vec::new(),
            history: Vec::new(),
            gaps: Vec::new(),
            archive_bytes: 0,
            horizon: None,
        }
    }

    /// Every table of the customers, of ten rows and one that nobody writes to, after `more` of each came.
    fn after(digest: &str, content: &str, others: &[(&str, u64, &str)]) -> Database {
        let more = u64::from(content != "before");
        let customers = BY_CUSTOMERS.iter().map(|(name, grows)| (*name, 10 + more * grows, content));
        let tables: Vec<_> = customers.chain(others.iter().copied()).collect();
        database(digest, &tables)
    }

    #[test]
    fn objects_but_those_of_customers_hold_the_same_bytes() {
        let line = |id: &str, bucket: &str, digest: &str| {
            format!(
                r#"{{"object":{{"state":"ok","bucket":"{bucket}","key":"k{id}","id":"{id}","version":null,"size":1,"sha256":"{digest}","md5":null,"etag":null,"content_type":null,"cache_control":null,"metadata":null,"user_metadata":null,"owner":null,"owner_id":null,"created_at":null,"updated_at":null}}}}"#
            )
        };
        let index = |lines: &[String]| lines.join("\n");
        let was = index(&[line("1", "invoices", "aa"), line("2", OF_CUSTOMERS, "bb")]);
        let wrong = |is: &[String]| compare_objects(&was, &index(is)).unwrap().wrong;
        assert_eq!(wrong(&[line("1", "invoices", "aa"), line("3", OF_CUSTOMERS, "cc")]), [""; 0]);
        assert_eq!(wrong(&[line("1", "invoices", "cc")]), ["object invoices/k1 is not as it was"]);
        assert_eq!(
            wrong(&[line("1", "invoices", "aa"), line("4", "invoices", "aa")]),
            ["object invoices/k4 was not there before"]
        );
    }

    #[test]
    fn only_what_customers_did_may_differ() {
        let quiet = ("public.products", 600, "same");
        let was = after("shape", "before", &[quiet]);
        let wrong = |is: &Database| compare(&was, is).wrong;
        assert_eq!(wrong(&after("shape", "after", &[quiet])), [""; 0]);
        assert_eq!(
            wrong(&after("other", "after", &[quiet])),
            ["objects, privileges, policies, and roles of yours: NOT EQUAL"]
        );
        assert_eq!(
            wrong(&after("shape", "after", &[("public.products", 600, "free")])),
            ["public.products: 600 rows, and 600 now"]
        );
        assert_eq!(wrong(&after("shape", "after", &[])), ["public.products: 600 rows, and 0 now"]);
        assert_eq!(
            wrong(&after("shape", "after", &[quiet, ("public.product_notes", 1, "x")])),
            ["public.product_notes: it was not there before"]
        );
        let lost = wrong(&after("shape", "before", &[quiet]));
        assert_eq!(lost.len(), BY_CUSTOMERS.len());
        // A row more than customers wrote is nobody's.
        let mut more = after("shape", "after", &[quiet]);
        more.tables[0].count += 1;
        assert_eq!(wrong(&more), [format!("{}: 10 rows, and 12 now", BY_CUSTOMERS[0].0)]);
    }
}
