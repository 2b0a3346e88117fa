//! SQL and nothing of the workflow.

pub mod catalog;
