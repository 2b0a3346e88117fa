//! What the stub knows of a project: data that tests set up and change.

use crate::disk;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// When everything here was made, unless a test says otherwise.
const MADE_AT: &str = "2026-01-05T08:00:00.000Z";
/// The same in milliseconds.
const MADE_AT_MILLIS: u64 = 1_767_600_000_000;

/// A project of the platform.
#[derive(Clone)]
pub struct Project {
    /// Twenty lowercase letters.
    pub project_ref: String,
    /// Its name in the dashboard.
    pub name: String,
    /// Its organization.
    pub organization: String,
    /// Where it runs.
    pub region: String,
    /// Version of its image; the part before the first dot is the major version.
    pub database_version: String,
    /// Its Edge Functions.
    pub functions: Vec<Function>,
    /// Its secrets.
    pub secrets: Vec<StoredSecret>,
    /// Its native backups.
    pub backups: Backups,
    /// Its named restore point.
    pub restore_point: Option<RestorePoint>,
    /// The host of its pooler.
    pub pooler_host: String,
    /// Its branches.
    pub branches: Vec<Branch>,
    /// Its keys for the data API, by name: `anon` and `service_role`.
    pub api_keys: Vec<(String, String)>,
    /// Its configuration, as the attributes of `GET /v2/projects/{ref}/config`.
    pub config: Value,
    /// Makes the temporary role of `cli/login-role`; without it the call is forbidden.
    pub login_role: Option<MakeRole>,
    /// Ends of paths that the token has no right to, such as `/secrets`.
    pub forbidden: Vec<String>,
}

impl Project {
    /// A healthy project without functions and backups.
    pub fn new(project_ref: &str, name: &str) -> Self {
        let region = "eu-central-1";
        Self {
            project_ref: project_ref.to_owned(),
            name: name.to_owned(),
            organization: "acme-organization-id".to_owned(),
            region: region.to_owned(),
            database_version: "17.6.1.054".to_owned(),
            functions: Vec::new(),
            secrets: ["SUPABASE_URL", "SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_DB_URL"]
                .map(|secret| StoredSecret::new(secret, &format!("{secret} of {project_ref}")))
                .to_vec(),
            backups: Backups::default(),
            restore_point: None,
            pooler_host: format!("aws-0-{region}.pooler.supabase.com"),
            branches: Vec::new(),
            api_keys: ["anon", "service_role"]
                .map(|key| (key.to_owned(), format!("{key}-key-of-{project_ref}")))
                .to_vec(),
            config: json!({}),
            login_role: None,
            forbidden: Vec::new(),
        }
    }

    /// The project as `GET /v1/projects/{ref}` shows it.
    pub(super) fn shown(&self) -> Value {
        json!({
            "id": self.project_ref,
            "ref": self.project_ref,
            "organization_id": self.organization,
            "organization_slug": self.organization,
            "name": self.name,
            "region": self.region,
            "created_at": MADE_AT,
            "status": "ACTIVE_HEALTHY",
            "database": {
                "host": format!("db.{}.supabase.co", self.project_ref),
                "version": self.database_version,
                "postgres_engine": self.engine(),
                "release_channel": "ga",
            },
        })
    }

    fn engine(&self) -> &str {
        self.database_version.split('.').next().unwrap_or_default()
    }

    /// The pooler's settings, with the port of its transaction mode, as the API gives them.
    pub(super) fn pooler(&self) -> Value {
        let user = format!("postgres.{}", self.project_ref);
        let url = format!("postgresql://{user}:[YOUR-PASSWORD]@{}:6543/postgres", self.pooler_host);
        json!([{
            "identifier": self.project_ref,
            "database_type": "PRIMARY",
            "is_using_scram_auth": true,
            "db_user": user,
            "db_host": self.pooler_host,
            "db_port": 6543,
            "db_name": "postgres",
            "connection_string": url,
            "connectionString": url,
            "default_pool_size": null,
            "max_client_conn": null,
            "pool_mode": "transaction",
        }])
    }

    pub(super) fn keys(&self) -> Value {
        let key = |(name, value): &(String, String)| {
            json!({
                "name": name,
                "api_key": value,
                "id": name,
                "type": "legacy",
                "prefix": "",
                "description": format!("Legacy {name} API key"),
                "hash": disk::sha256(value.as_bytes()),
                "secret_jwt_template": null,
                "inserted_at": null,
                "updated_at": null,
            })
        };
        self.api_keys.iter().map(key).collect()
    }

    pub(super) fn branch(&self, branch: &Branch) -> Value {
        json!({
            "id": branch.id,
            "name": branch.name,
            "project_ref": branch.project_ref,
            "parent_project_ref": self.project_ref,
            "is_default": branch.project_ref == self.project_ref,
            "git_branch": branch.name,
            "persistent": true,
            "status": "FUNCTIONS_DEPLOYED",
            "created_at": MADE_AT,
            "updated_at": MADE_AT,
            "with_data": false,
            "preview_project_status": "ACTIVE_HEALTHY",
        })
    }

    /// A branch's database, as `GET /v1/branches/{id or ref}` shows it.
    pub(super) fn branch_detail(&self, branch: &Branch) -> Value {
        json!({
            "ref": branch.project_ref,
            "postgres_version": self.database_version,
            "postgres_engine": self.engine(),
            "release_channel": "ga",
            "status": "ACTIVE_HEALTHY",
            "db_host": format!("db.{}.supabase.co", branch.project_ref),
            "db_port": 5432,
        })
    }

    pub(super) fn storage_config() -> Value {
        json!({
            "fileSizeLimit": 52_428_800,
            "features": {
                "imageTransformation": {"enabled": true},
                "s3Protocol": {"enabled": true},
                "icebergCatalog": {"enabled": false, "maxNamespaces": 0, "maxTables": 0, "maxCatalogs": 0},
                "vectorBuckets": {"enabled": false, "maxBuckets": 0, "maxIndexes": 0},
            },
            "capabilities": {"list_v2": true, "iceberg_catalog": false},
            "external": {"upstreamTarget": "main"},
            "migrationVersion": "operation-ergonomics",
            "databasePoolMode": "recycled",
        })
    }
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Project({}, {})", self.project_ref, self.name)
    }
}

/// An Edge Function.
#[derive(Clone, Debug, Serialize)]
pub struct Function {
    /// A UUID.
    pub id: String,
    /// Its name in URLs.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// `ACTIVE`, `REMOVED`, or `THROTTLED`.
    pub status: String,
    /// Counts deployments.
    pub version: u32,
    /// Milliseconds.
    pub created_at: u64,
    /// Milliseconds.
    pub updated_at: u64,
    /// Whether a caller needs a token.
    pub verify_jwt: bool,
    /// Whether it was deployed with an import map.
    pub import_map: bool,
    /// That map.
    pub import_map_path: Option<String>,
    /// URL of the entry point in the bundle.
    pub entrypoint_path: String,
    /// Digest of the bundle.
    pub ezbr_sha256: String,
    /// The files of the bundle.
    #[serde(skip)]
    pub parts: Vec<Part>,
}

/// A file in a bundle.
#[derive(Clone, Debug)]
pub struct Part {
    /// Path in the bundle, as its `filename` has it.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Function {
    /// A function whose entry point is `index.ts`; paths of files are from the `functions` folder.
    pub fn new(slug: &str, files: &[(&str, &str)]) -> Self {
        let mut function = Self {
            id: format!("{}-0000-4000-8000-000000000000", &disk::sha256(slug.as_bytes())[..8]),
            slug: slug.to_owned(),
            name: slug.to_owned(),
            status: "ACTIVE".to_owned(),
            version: 0,
            created_at: MADE_AT_MILLIS,
            updated_at: MADE_AT_MILLIS,
            verify_jwt: true,
            import_map: false,
            import_map_path: None,
            entrypoint_path: String::new(),
            ezbr_sha256: String::new(),
            parts: Vec::new(),
        };
        function.entrypoint_path = format!("file:///{}", function.entry_point());
        function.deploy(files);
        function
    }

    /// Deploys other files, as a next version.
    pub fn deploy(&mut self, files: &[(&str, &str)]) {
        let part = |(path, text): &(&str, &str)| Part {
            path: format!("source/supabase/functions/{path}"),
            bytes: text.as_bytes().to_vec(),
        };
        self.parts = files.iter().map(part).collect();
        self.version += 1;
        self.updated_at = MADE_AT_MILLIS + u64::from(self.version) * 60_000;
        let bundle: Vec<u8> =
            self.parts.iter().flat_map(|part| [part.path.as_bytes(), &part.bytes].concat()).collect();
        self.ezbr_sha256 = disk::sha256(&bundle);
    }

    fn entry_point(&self) -> String {
        format!("source/supabase/functions/{}/index.ts", self.slug)
    }

    /// The body as multipart form data, and its boundary.
    pub(super) fn body(&self) -> (Vec<u8>, String) {
        let boundary = format!("----formdata-{}", self.ezbr_sha256);
        let metadata = json!({"deno2_entrypoint_path": self.entry_point()}).to_string();
        let mut body = Vec::new();
        let mut add = |disposition: &str, content_type: &str, bytes: &[u8]| {
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {content_type}\r\n\r\n"
            );
            body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
        };
        add("name=\"metadata\"", "application/json", metadata.as_bytes());
        for part in &self.parts {
            let disposition = format!("name=\"file\"; filename=\"{}\"", part.path);
            add(&disposition, "application/octet-stream", &part.bytes);
        }
        body.extend(format!("--{boundary}--\r\n").as_bytes());
        (body, boundary)
    }
}

/// A secret as the platform shows it: its digest only.
#[derive(Clone, Debug, Serialize)]
pub struct StoredSecret {
    /// Its name.
    pub name: String,
    /// SHA-256 of its value.
    #[serde(rename = "value")]
    pub digest: String,
    /// When it was set.
    pub updated_at: String,
}

impl StoredSecret {
    /// A secret of this value, which is not kept.
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), digest: disk::sha256(value.as_bytes()), updated_at: MADE_AT.to_owned() }
    }
}

/// The native backups of a project.
#[derive(Clone, Debug, Default)]
pub struct Backups {
    /// Whether the project can be restored to any second.
    pub pitr_enabled: bool,
    /// The daily ones.
    pub list: Vec<Backup>,
    /// First and last second of point-in-time recovery.
    pub window: Option<(i64, i64)>,
}

/// A daily backup.
#[derive(Clone, Debug, Serialize)]
pub struct Backup {
    /// Its number.
    pub id: u64,
    /// Whether it is of files and not a dump.
    pub is_physical_backup: bool,
    /// `COMPLETED`, `FAILED`, `PENDING`, `REMOVED`, `ARCHIVED`, or `CANCELLED`.
    pub status: String,
    /// When it was made.
    pub inserted_at: String,
}

impl Backups {
    pub(super) fn shown(&self, region: &str) -> Value {
        let physical = self.window.map_or_else(
            || json!({}),
            |(earliest, latest)| {
                json!({
                    "earliest_physical_backup_date_unix": earliest,
                    "latest_physical_backup_date_unix": latest,
                })
            },
        );
        json!({
            "region": region,
            "walg_enabled": true,
            "pitr_enabled": self.pitr_enabled,
            "backups": self.list,
            "physical_backup_data": physical,
        })
    }
}

/// A named restore point.
#[derive(Clone, Debug, Serialize)]
pub struct RestorePoint {
    /// At most twenty characters.
    pub name: String,
    /// `AVAILABLE`, `PENDING`, `REMOVED`, or `FAILED`.
    pub status: String,
    /// When it was complete.
    pub completed_on: Option<String>,
}

/// A branch of a project.
#[derive(Clone, Debug)]
pub struct Branch {
    /// A UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The project that it is itself.
    pub project_ref: String,
}

/// A temporary role of the database.
#[derive(Clone, Debug, Serialize)]
pub struct LoginRole {
    /// Its name, such as `cli_login_postgres`.
    pub role: String,
    /// Its password.
    pub password: String,
    /// How long it lasts.
    pub ttl_seconds: u64,
}

/// Makes a temporary role; it may take its time.
pub type MakeRole = Arc<dyn Fn() -> LoginRole + Send + Sync>;
