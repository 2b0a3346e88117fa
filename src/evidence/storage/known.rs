//! What the store already has, by bucket and key: records in the same order are read side by side,
//! so that no more than a line of each is in memory.

use crate::manifest::storage::{Line, Object};
use fs_err as fs;
use std::io::{self, BufRead as _, BufReader, Lines};
use std::path::Path;

/// Records of objects, read from their beginnings.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<Source>);

#[derive(Debug)]
struct Source {
    lines: Lines<BufReader<fs::File>>,
    head: Option<Object>,
}

impl Source {
    /// Goes to the next object. A line that cannot be read ends the record: its writer died there.
    fn advance(&mut self) {
        self.head = None;
        while let Some(Ok(text)) = self.lines.next() {
            match super::line(&text) {
                Ok(Line::Object(object)) => {
                    self.head = Some(*object);
                    return;
                }
                Ok(Line::Bucket(_)) => {}
                Err(_) => return,
            }
        }
    }
}

impl Known {
    /// Opens a record.
    pub(super) fn add(&mut self, path: &Path) -> io::Result<()> {
        let mut source = Source { lines: BufReader::new(fs::File::open(path)?).lines(), head: None };
        source.advance();
        self.0.push(source);
        Ok(())
    }

    /// What is known of an object. Must be asked in the order of buckets and keys.
    pub(super) fn of(&mut self, bucket: Option<&str>, key: Option<&str>) -> Vec<Object> {
        let mut found = Vec::new();
        for source in &mut self.0 {
            while let Some(head) = &source.head {
                match (head.bucket.as_deref(), head.key.as_deref()).cmp(&(bucket, key)) {
                    std::cmp::Ordering::Less => source.advance(),
                    std::cmp::Ordering::Equal => {
                        found.push(head.clone());
                        break;
                    }
                    std::cmp::Ordering::Greater => break,
                }
            }
        }
        found
    }
}
