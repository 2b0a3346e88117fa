//! `supa-safe explain`: why a rule exists and how to satisfy it.

use super::Setting;
use crate::config;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::policy::Rule;
use crate::ui;
use clap::Args;
use serde_json::json;

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Rules, such as SS003; without one, the list of rules. `policy` prints a sample policy file
    topics: Vec<String>,
}

pub(super) fn run(setting: &Setting, args: &ExplainArgs) -> Result<Exit, Failure> {
    let pages = if args.topics.is_empty() {
        Rule::ALL.iter().map(|rule| (rule.code(), title(*rule))).collect()
    } else {
        args.topics.iter().map(|topic| page(topic)).collect::<Result<Vec<_>, _>>()?
    };
    let printed = if setting.global.json {
        let pages: Vec<_> = pages.iter().map(|(topic, text)| json!({"rule": topic, "text": text})).collect();
        ui::print_document(&json!({"schema": ui::SCHEMA, "pages": pages}))
    } else {
        ui::print_verbatim(&pages.iter().map(|(_, text)| format!("{text}\n")).collect::<Vec<_>>().concat())
    };
    printed.map_err(|error| Failure::new(Exit::Error, &error))?;
    Ok(Exit::Done)
}

fn page(topic: &str) -> Result<(&'static str, &'static str), Failure> {
    if topic == "policy" {
        return Ok(("policy", config::SAMPLE));
    }
    let rule: Rule = topic.parse().map_err(|error| {
        Failure::new(Exit::Usage, &error).hint("Run `supa-safe explain` for the list of rules")
    })?;
    Ok((rule.code(), rule.page()))
}

/// The first line of a rule's page, without the mark of a heading.
fn title(rule: Rule) -> &'static str {
    rule.page().lines().next().unwrap_or_default().trim_start_matches("# ")
}
