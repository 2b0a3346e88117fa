//! What `supabase db push` says: one JSON value on stdout, lines of progress on stderr.

use serde::Deserialize;

/// How much of an answer that is not JSON is shown.
const SHOWN: usize = 200;

/// Why an answer says nothing about what happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Nothing was printed.
    #[error("`supabase db push` printed no result")]
    Empty,
    /// It is not the JSON that was asked for.
    #[error("`supabase db push` printed a result that is not the JSON asked for: `{0}`")]
    NotJson(String),
}

/// What a push, or its dry run, came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It ended well.
    Done(Report),
    /// It stopped. What came before may stand.
    Stopped(Problem),
}

/// What was done, or would be.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether there was nothing to do.
    pub up_to_date: bool,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// File names, in order.
    pub migrations: Vec<String>,
    /// Paths from the project's root, in order.
    pub seeds: Vec<String>,
    /// Paths from the project's root.
    pub roles: Vec<String>,
    /// What the CLI took for the target; from major 3 on.
    pub target: Option<Told>,
}

/// The target as the CLI names it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Told {
    /// `db-url`, `linked`, or `local`.
    pub kind: String,
    /// Host, for a URL.
    pub host: Option<String>,
    /// Port, for a URL.
    pub port: Option<u16>,
    /// Project ref, for a linked project.
    pub project_ref: Option<String>,
}

/// Why a push stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind.
    pub code: Code,
    /// The CLI's message, whole.
    pub message: String,
    /// The CLI's advice.
    pub suggestion: Option<String>,
    /// What the server said, when a statement failed.
    pub sql: Option<SqlProblem>,
}

/// The kinds of problem that are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// A statement failed.
    Apply,
    /// The history holds versions without a local file.
    MissingLocal,
    /// Local files are older than the newest applied one.
    MissingRemote,
    /// No connection.
    Connect,
    /// The configuration was refused.
    Config,
    /// Any other.
    Other(String),
}

/// A statement that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlProblem {
    /// The server's first line, without its state.
    pub message: String,
    /// Five characters.
    pub sqlstate: String,
    /// The lines between: detail and hints.
    pub detail: Option<String>,
    /// Which statement of its file, from 1; seed files do not say.
    pub statement_number: Option<usize>,
    /// Its text, with the comments before it.
    pub statement: Option<String>,
}

#[derive(Deserialize)]
struct RawError {
    error: RawProblem,
}

#[derive(Deserialize)]
struct RawProblem {
    code: String,
    message: String,
    suggestion: Option<String>,
}

/// Reads the result from stdout. Lines before the JSON value are passed over.
pub fn answer(stdout: &str) -> Result<Answer, AnswerError> {
    if stdout.trim().is_empty() {
        return Err(AnswerError::Empty);
    }
    let last = stdout.lines().rev().find(|line| line.starts_with('{')).unwrap_or(stdout);
    for text in [stdout, last] {
        if let Ok(report) = serde_json::from_str(text) {
            return Ok(Answer::Done(report));
        }
        if let Ok(RawError { error }) = serde_json::from_str(text) {
            return Ok(Answer::Stopped(problem(error)));
        }
    }
    Err(AnswerError::NotJson(stdout.trim().chars().take(SHOWN).collect()))
}

fn problem(raw: RawProblem) -> Problem {
    let code = match raw.code.as_str() {
        "DbPushApplyError" => Code::Apply,
        "DbPushMissingLocalError" => Code::MissingLocal,
        "DbPushMissingRemoteError" => Code::MissingRemote,
        "DbConnectError" => Code::Connect,
        "DbConfigLoadError" => Code::Config,
        _ => Code::Other(raw.code),
    };
    let sql = if code == Code::Apply { sql_problem(&raw.message) } else { None };
    let suggestion = raw.suggestion.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    Problem { code, message: raw.message, suggestion, sql }
}

/// `ERROR: … (SQLSTATE 22012)`, lines of detail, `At statement: 2`, the statement, a caret below it.
fn sql_problem(message: &str) -> Option<SqlProblem> {
    let (text, rest) = message.split_once(" (SQLSTATE ")?;
    let (sqlstate, rest) = rest.split_once(')')?;
    let (detail, number, statement) = match rest.split_once("At statement: ") {
        None => (rest, None, None),
        Some((detail, rest)) => {
            let (number, statement) = rest.split_once('\n').unwrap_or((rest, ""));
            (detail, number.trim().parse::<usize>().ok(), Some(statement))
        }
    };
    let filled = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
    Some(SqlProblem {
        message: text.strip_prefix("ERROR: ").unwrap_or(text).to_owned(),
        sqlstate: sqlstate.to_owned(),
        detail: filled(detail),
        statement_number: number.map(|number| number + 1),
        statement: statement.map(without_caret).as_deref().and_then(filled),
    })
}

fn without_caret(statement: &str) -> String {
    statement.lines().filter(|line| line.trim() != "^").collect::<Vec<_>>().join("\n")
}

/// A step of a push, as its stderr tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The custom roles are run.
    Roles,
    /// The vault's secrets are written.
    Vault,
    /// A migration file is applied.
    Migration(String),
    /// A seed file is run.
    Seed(String),
}

/// Reads a line of stderr; the file named last is the one that runs, or that failed.
pub fn progress(line: &str) -> Option<Progress> {
    let step = line.trim().strip_suffix("...")?;
    let name = |prefix: &str| step.strip_prefix(prefix).map(str::to_owned);
    if let Some(file) = name("Applying migration ") {
        Some(Progress::Migration(file))
    } else if let Some(file) = name("Seeding data from ").or_else(|| name("Updating seed hash to ")) {
        Some(Progress::Seed(file))
    } else if step.starts_with("Seeding globals from ") {
        Some(Progress::Roles)
    } else {
        (step == "Updating vault secrets").then_some(Progress::Vault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        match answer(text).unwrap() {
            Answer::Done(report) => report,
            Answer::Stopped(problem) => panic!("{problem:?}"),
        }
    }

    fn stopped(text: &str) -> Problem {
        match answer(text).unwrap() {
            Answer::Stopped(problem) => problem,
            Answer::Done(report) => panic!("{report:?}"),
        }
    }

    #[test]
    fn results_of_both_majors_are_read() {
        let v2 = report(
            r#"{"upToDate":false,"dryRun":true,"migrations":["20260101000001_f.sql"],"seeds":["supabase/seed.sql","more/a1.sql"],"roles":["supabase/roles.sql"],"message":"Finished supabase db push."}"#,
        );
        assert_eq!((v2.up_to_date, v2.dry_run, v2.target), (false, true, None));
        assert_eq!((v2.migrations.len(), v2.seeds.len(), v2.roles.len()), (1, 2, 1));
        let v3 = report(
            "\u{25b2} a note\n{\"upToDate\":true,\"dryRun\":false,\"migrations\":[],\"seeds\":[],\"roles\":[],\"message\":\"Remote database is up to date.\",\"target\":{\"kind\":\"db-url\",\"host\":\"127.0.0.1\",\"port\":47017}}\n",
        );
        let told = v3.target.unwrap();
        assert_eq!(
            (told.kind.as_str(), told.host.as_deref(), told.port),
            ("db-url", Some("127.0.0.1"), Some(47017))
        );
        assert!(v3.up_to_date);
    }

    #[test]
    fn a_failed_statement_is_taken_apart() {
        let problem = stopped(
            r#"{"target":{"kind":"db-url","host":"127.0.0.1","port":47017},"_tag":"Error","error":{"code":"DbPushApplyError","message":"ERROR: division by zero (SQLSTATE 22012)\nAt statement: 2\n-- c\ninsert into b select 1/0 from b"}}"#,
        );
        assert_eq!(problem.code, Code::Apply);
        assert_eq!(
            problem.sql,
            Some(SqlProblem {
                message: "division by zero".to_owned(),
                sqlstate: "22012".to_owned(),
                detail: None,
                statement_number: Some(3),
                statement: Some("-- c\ninsert into b select 1/0 from b".to_owned()),
            })
        );
        let syntax = stopped(
            r#"{"_tag":"Error","error":{"code":"DbPushApplyError","message":"ERROR: syntax error at or near \"tabl\" (SQLSTATE 42601)\nAt statement: 0\ncreate tabl a(i int)\n       ^"}}"#,
        );
        assert_eq!(syntax.sql.unwrap().statement.as_deref(), Some("create tabl a(i int)"));
        let seed = stopped(
            r#"{"_tag":"Error","error":{"code":"DbPushApplyError","message":"ERROR: relation \"nope\" does not exist (SQLSTATE 42P01)"}}"#,
        );
        assert_eq!(seed.sql.unwrap().statement_number, None);
        let detail =
            sql_problem("ERROR: x (SQLSTATE 23505)\nKey (i)=(1) already exists.\nAt statement: 1\ny")
                .unwrap();
        assert_eq!(detail.detail.as_deref(), Some("Key (i)=(1) already exists."));
    }

    #[test]
    fn other_problems_are_told_apart() {
        let connect = stopped(
            r#"{"_tag":"Error","error":{"code":"DbConnectError","message":"failed to connect to postgres: failed to connect to `host=127.0.0.1 user=postgres database=te`: server error (FATAL: password authentication failed for user \"postgres\" (SQLSTATE 28P01))","suggestion":"Connect to your database by setting the env var correctly: SUPABASE_DB_PASSWORD"}}"#,
        );
        assert_eq!((connect.code, connect.sql), (Code::Connect, None));
        let older = stopped(
            r#"{"_tag":"Error","error":{"code":"DbPushMissingRemoteError","message":"Found local migration files to be inserted before the last migration on remote database.","suggestion":"\nRerun the command with --include-all flag to apply these migrations:\nsupabase/migrations/20260101000001_f.sql\n"}}"#,
        );
        assert_eq!(older.code, Code::MissingRemote);
        let consent = stopped(
            r#"{"_tag":"Error","error":{"code":"HostedMutationConsentRequiredError","message":"Confirmation required"}}"#,
        );
        assert_eq!(consent.code, Code::Other("HostedMutationConsentRequiredError".to_owned()));
    }

    #[test]
    fn silence_and_noise_are_errors() {
        assert_eq!(answer(" \n"), Err(AnswerError::Empty));
        assert_eq!(
            answer("Finished supabase db push.").unwrap_err().to_string(),
            "`supabase db push` printed a result that is not the JSON asked for: `Finished supabase db push.`"
        );
        assert!(answer("{\"upToDate\":false").is_err());
        assert!(answer("{}").is_err());
    }

    #[test]
    fn progress_is_read_from_the_lines() {
        assert_eq!(
            progress("Applying migration 20260101000001_f.sql..."),
            Some(Progress::Migration("20260101000001_f.sql".to_owned()))
        );
        assert_eq!(
            progress("Seeding data from supabase/seed.sql..."),
            Some(Progress::Seed("supabase/seed.sql".to_owned()))
        );
        assert_eq!(progress("Seeding globals from roles.sql..."), Some(Progress::Roles));
        assert_eq!(progress("Connecting to remote database..."), None);
    }
}
