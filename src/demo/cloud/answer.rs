//! Which call gets which answer.

use super::project::{LoginRole, MakeRole, Project, StoredSecret};
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An answer of the API.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    pub(super) body: Bytes,
    make_role: Option<MakeRole>,
}

impl Answer {
    fn json<T: Serialize>(status: StatusCode, value: &T) -> Self {
        let body = serde_json::to_vec(value).unwrap_or_default();
        let content_type = HeaderValue::from_static("application/json; charset=utf-8");
        Self { status, content_type, body: body.into(), make_role: None }
    }

    fn ok<T: Serialize>(value: &T) -> Self {
        Self::json(StatusCode::OK, value)
    }

    /// An error of the API.
    pub(super) fn message(status: u16, text: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::json(status, &json!({"message": text}))
    }

    pub(super) fn unauthorized() -> Self {
        Self::message(401, "Unauthorized")
    }

    pub(super) fn of_role(role: &LoginRole) -> Self {
        Self::json(StatusCode::CREATED, role)
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.status == StatusCode::NOT_IMPLEMENTED
    }

    /// Takes out what has to be called for the real answer.
    pub(super) fn take_role(mut self) -> (Self, Option<MakeRole>) {
        let make = self.make_role.take();
        (self, make)
    }
}

/// Answers a call of somebody who is signed in.
pub(super) fn answer(projects: &mut [Project], method: &Method, path: &str, body: &[u8]) -> Answer {
    let words: Vec<&str> = path.split('/').skip(1).collect();
    match (method, words.as_slice()) {
        (&Method::GET, ["v1", "projects"]) => {
            Answer::ok(&projects.iter().map(Project::shown).collect::<Value>())
        }
        (&Method::GET, ["v1", "branches", branch]) => branch_detail(projects, branch),
        (_, [version, "projects", project_ref, rest @ ..]) => {
            let Some(project) = projects.iter_mut().find(|project| project.project_ref == *project_ref)
            else {
                return Answer::message(404, "Project not found");
            };
            if project.forbidden.iter().any(|end| path.ends_with(end.as_str())) {
                return Answer::message(
                    403,
                    "Your account does not have the necessary privileges to access this endpoint. For more details, refer to our documentation https://supabase.com/docs/guides/platform/access-control",
                );
            }
            match (method, *version) {
                (&Method::GET, "v1") => read(project, rest),
                (&Method::GET, "v2") if rest == ["config"] => {
                    Answer::ok(&json!({"data": {"type": "project_config", "attributes": project.config}}))
                }
                (&Method::POST, "v1") if rest == ["secrets"] => set_secrets(project, body),
                (&Method::POST, "v1") if rest == ["cli", "login-role"] => login_role(project),
                (&Method::DELETE, "v1") if rest == ["cli", "login-role"] => {
                    Answer::ok(&json!({"message": "ok"}))
                }
                _ => unknown(),
            }
        }
        _ => unknown(),
    }
}

fn unknown() -> Answer {
    Answer::message(501, "the stub was not told of this call")
}

fn read(project: &Project, rest: &[&str]) -> Answer {
    match rest {
        [] => Answer::ok(&project.shown()),
        ["functions"] => Answer::ok(&project.functions),
        ["functions", slug, rest @ ..] => function(project, slug, rest),
        ["secrets"] => Answer::ok(&project.secrets),
        ["api-keys"] => Answer::ok(&project.keys()),
        ["database", "backups"] => Answer::ok(&project.backups.shown(&project.region)),
        ["database", "backups", "restore-point"] => match &project.restore_point {
            Some(point) => Answer::ok(point),
            None => Answer::message(404, "Restore point not found"),
        },
        ["config", "database", "pooler"] => Answer::ok(&project.pooler()),
        ["config", "storage"] => Answer::ok(&Project::storage_config()),
        ["branches"] => {
            let branches = project.branches.iter().map(|branch| project.branch(branch));
            Answer::ok(&branches.collect::<Value>())
        }
        ["branches", name] => match project.branches.iter().find(|branch| branch.name == *name) {
            Some(branch) => Answer::ok(&project.branch(branch)),
            None => Answer::message(404, "Branch not found"),
        },
        _ => unknown(),
    }
}

fn function(project: &Project, slug: &str, rest: &[&str]) -> Answer {
    let Some(function) = project.functions.iter().find(|function| function.slug == slug) else {
        return Answer::message(404, "Function not found");
    };
    match rest {
        [] => Answer::ok(function),
        ["body"] => {
            let (body, boundary) = function.body();
            let content_type = format!("multipart/form-data; boundary={boundary}");
            match HeaderValue::from_str(&content_type) {
                Ok(content_type) => {
                    Answer { status: StatusCode::OK, content_type, body: body.into(), make_role: None }
                }
                Err(_) => Answer::message(500, "Failed to retrieve function body"),
            }
        }
        _ => unknown(),
    }
}

fn branch_detail(projects: &[Project], wanted: &str) -> Answer {
    let all =
        projects.iter().flat_map(|project| project.branches.iter().map(move |branch| (project, branch)));
    let mut found = all.filter(|(_, branch)| branch.id == wanted || branch.project_ref == wanted);
    match found.next() {
        Some((project, branch)) => Answer::ok(&project.branch_detail(branch)),
        None => Answer::message(404, "Branch not found"),
    }
}

#[derive(Deserialize)]
struct NewSecret {
    name: String,
    value: String,
}

/// Sets secrets as `supabase secrets set` does; their values are digested and forgotten.
fn set_secrets(project: &mut Project, body: &[u8]) -> Answer {
    let Ok(new) = serde_json::from_slice::<Vec<NewSecret>>(body) else {
        return Answer::message(400, "Bad request");
    };
    for NewSecret { name, value } in new {
        project.secrets.retain(|secret| secret.name != name);
        project.secrets.push(StoredSecret::new(&name, &value));
    }
    Answer::json(StatusCode::CREATED, &json!({}))
}

fn login_role(project: &Project) -> Answer {
    match &project.login_role {
        Some(make) => Answer { make_role: Some(make.clone()), ..Answer::message(500, "not made yet") },
        None => Answer::message(403, "Forbidden resource"),
    }
}
