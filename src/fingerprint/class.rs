//! Which of the three classes of state an object belongs to.

/// What a difference in an object means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The user's: a rollback gives it back exactly, or changes nothing.
    Owned,
    /// Rows of managed tables that a migration may touch: compared only in what it touched.
    Merged,
    /// Everything else in managed schemas: moves by itself, is reported, is never a gate.
    Platform,
}

impl Class {
    /// Returns the word that stands for the class in files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::Merged => "merged",
            Self::Platform => "platform",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Owned, Self::Merged, Self::Platform].into_iter().find(|class| class.word() == word)
    }

    /// Returns the class of a table's rows.
    pub fn of_rows(schema: &str, table: &str) -> Self {
        match (schema, table) {
            ("auth", "users" | "identities") | ("storage", "buckets" | "objects") => Self::Merged,
            _ if is_platform_schema(schema) && !is_queue(schema, table) => Self::Platform,
            _ => Self::Owned,
        }
    }

    /// The same, where it is known whose the table is.
    pub fn of_table(place: Place<'_>, table: &str) -> Self {
        match Self::of_rows(place.schema.unwrap_or_default(), table) {
            Self::Platform if place.is_users_own() => Self::Owned,
            class => class,
        }
    }
}

/// What decides the class of an object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// The kind of the object, or, for a comment or a label, of the object that carries it.
    pub subject: &'a str,
    /// The schema of the object, or of the table that carries it.
    pub schema: Option<&'a str>,
    /// The role that owns the object, or that it is about.
    pub owner: Option<&'a str>,
    /// Whether that role is a superuser.
    pub owner_is_superuser: bool,
    /// The schema of the function that a trigger calls, or the member of a membership.
    pub partner: Option<&'a str>,
}

impl Place<'_> {
    /// Whether the object stands in the one schema of the platform's in which users make what they like, and
    /// is theirs.
    fn is_users_own(&self) -> bool {
        self.schema == Some(EXTENSIONS) && self.owner.is_some_and(|owner| !is_internal_role(owner))
    }

    /// Returns the class. What cannot be placed is owned: a gate too many is safer than one too few.
    pub fn class(&self) -> Class {
        let owner_is_internal = self.owner.is_some_and(is_internal_role);
        let in_managed_schema = self.schema.is_some_and(is_platform_schema);
        let partner_in_managed_schema = self.partner.is_some_and(is_platform_schema);
        let is_users_own = self.is_users_own();
        let moves_by_itself = match self.subject {
            // The platform upgrades extensions; subscriptions hold a password and parameters belong
            // to superusers, so that no rollback could give either back.
            "extension version" | "subscription" | "parameter privileges" => true,
            "database" => false,
            "role" => self.owner.is_some_and(is_platform_role),
            // The platform grants roles to its own, to postgres, and to authenticator; a migration may
            // grant one to the roles of the Data API.
            "membership" => {
                self.owner.is_some_and(is_platform_role)
                    && self.partner.is_some_and(|member| {
                        is_internal_role(member) || matches!(member, "postgres" | "authenticator")
                    })
            }
            // Of managed tables, these three take policies of the user (facts: supautils.policy_grants).
            "policy" => {
                in_managed_schema
                    && !is_users_own
                    && !matches!(self.schema, Some("auth" | "storage" | "realtime" | QUEUES))
            }
            // Of a trigger, it is the function whose owner is told.
            "trigger" => {
                let calls_users_own = Self { schema: self.partner, ..*self }.is_users_own();
                in_managed_schema && partner_in_managed_schema && !calls_users_own
            }
            "event trigger" => owner_is_internal || (self.owner_is_superuser && partner_in_managed_schema),
            // Of the platform's objects, what somebody else gave with a grant option of his own.
            "default privileges" | "given privileges" => owner_is_internal,
            // What `pgmq.create` makes belongs to no extension, and no line tells of what does.
            "schema" | "member privileges" | "platform function" => in_managed_schema,
            _ if self.schema == Some(QUEUES) => false,
            _ if self.schema.is_some() => in_managed_schema && !is_users_own,
            _ => owner_is_internal,
        };
        if moves_by_itself { Class::Platform } else { Class::Owned }
    }
}

/// The platform's schema that belongs to `postgres`.
const EXTENSIONS: &str = "extensions";
/// The schema of `pgmq`, in which users make queues.
const QUEUES: &str = "pgmq";

/// Whether the table is a queue, or the archive of one (pgmq 1.5, `pgmq.create`). Queues of older versions
/// are members of the extension.
fn is_queue(schema: &str, table: &str) -> bool {
    schema == QUEUES && ["q_", "a_"].iter().any(|start| table.starts_with(start))
}

/// Whether the platform, or Postgres itself, creates and migrates this schema.
///
/// The list is `InternalSchemas` of the Supabase CLI (pkg/migration/dump.go) without
/// `supabase_migrations`: that one holds the history of migrations, which is the user's.
pub fn is_platform_schema(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["pg_", "timescaledb_", "_timescaledb_"];
    const NAMES: [&str; 25] = [
        "_analytics",
        "_realtime",
        "_supavisor",
        "auth",
        "cron",
        "dbdev",
        "etl",
        "extensions",
        "graphql",
        "graphql_public",
        "information_schema",
        "net",
        "pgbouncer",
        "pgmq",
        "pgsodium",
        "pgsodium_masks",
        "pgtle",
        "realtime",
        "repack",
        "storage",
        "supabase_functions",
        "tiger",
        "tiger_data",
        "topology",
        "vault",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the platform, or Postgres itself, creates this role and sets its attributes.
///
/// The names are those of supabase/postgres (nix/tests/expected/roles.out, migrations/db). The
/// platform adds roles named `supabase_…` as it grows, and `cli_login_…` for a few minutes.
pub fn is_platform_role(name: &str) -> bool {
    // Users change the settings of these five, and own what belongs to them.
    const SHARED: [&str; 5] = ["anon", "authenticated", "authenticator", "postgres", "service_role"];
    SHARED.contains(&name) || is_internal_role(name)
}

/// Whether the platform keeps the role for itself.
fn is_internal_role(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["supabase_", "cli_login_", "pgsodium_", "pg_"];
    const NAMES: [&str; 3] = ["dashboard_user", "pgbouncer", "pgtle_admin"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `subject schema owner partner`, with `-` for nothing and `!` after a superuser.
    fn class(place: &str) -> Class {
        let words: Vec<&str> = place.split(' ').collect();
        let [subject, schema, owner, partner] = words[..] else { panic!("four words: {place}") };
        let some = |word: &'static str| (word != "-").then_some(word);
        let leak = |word: &str| some(Box::leak(word.trim_end_matches('!').to_owned().into_boxed_str()));
        Place {
            subject: &subject.replace('_', " "),
            schema: leak(schema),
            owner: leak(owner),
            owner_is_superuser: owner.ends_with('!'),
            partner: leak(partner),
        }
        .class()
    }

    #[test]
    fn owned() {
        for place in [
            "table public postgres -",
            "table supabase_migrations postgres -",
            "function app supabase_admin! -",
            "schema public pg_database_owner -",
            "policy storage - -",
            "policy auth - -",
            "policy realtime - -",
            "trigger auth - public",
            "trigger public - supabase_functions",
            "role - app_reader -",
            "membership - app_reader postgres",
            "membership - anon app_reader",
            "membership - service_role authenticated",
            "membership - pg_read_all_data anon",
            "setting - authenticator -",
            "setting - postgres -",
            "setting - - -",
            "database - postgres -",
            "database - supabase_admin! -",
            "event_trigger - postgres public",
            "event_trigger - postgres! public",
            "publication - postgres -",
            "default_privileges public postgres -",
            "default_privileges - app_owner -",
            "extension - - -",
            "foreign_server - postgres -",
            "large_object - postgres -",
            "member_privileges public - -",
            "table pgmq postgres -",
            "policy pgmq - -",
            "function extensions postgres -",
            "column extensions app_owner -",
            "trigger extensions postgres extensions",
            "trigger auth postgres extensions",
            "given_privileges auth postgres -",
            "given_privileges extensions app_owner -",
            "something_new - - -",
        ] {
            assert_eq!(class(place), Class::Owned, "{place}");
        }
    }

    #[test]
    fn platform() {
        for place in [
            "table auth supabase_auth_admin -",
            "column realtime - -",
            "function extensions supabase_admin! -",
            "function extensions - -",
            "platform_function extensions postgres -",
            "schema extensions postgres -",
            "given_privileges auth supabase_auth_admin -",
            "schema graphql supabase_admin! -",
            "policy cron - -",
            "trigger storage - storage",
            "trigger auth - extensions",
            "trigger auth supabase_admin! extensions",
            "role - postgres -",
            "role - supabase_new_admin -",
            "role - cli_login_postgres -",
            "membership - anon authenticator",
            "membership - pg_read_all_data postgres",
            "membership - supabase_auth_admin postgres",
            "membership - authenticator supabase_storage_admin",
            "setting - supabase_auth_admin -",
            "event_trigger - supabase_admin! extensions",
            "event_trigger - root! extensions",
            "event_trigger - supabase_admin! public",
            "publication - supabase_admin! -",
            "default_privileges public supabase_admin -",
            "extension_version - - -",
            "subscription - postgres -",
            "parameter_privileges - - -",
            "foreign_data_wrapper - supabase_admin! -",
            "member_privileges pg_catalog - -",
            "schema pgmq postgres -",
        ] {
            assert_eq!(class(place), Class::Platform, "{place}");
        }
    }

    #[test]
    fn rows() {
        for (schema, table, class) in [
            ("public", "orders", Class::Owned),
            ("supabase_migrations", "schema_migrations", Class::Owned),
            ("auth", "users", Class::Merged),
            ("auth", "identities", Class::Merged),
            ("auth", "sessions", Class::Platform),
            ("storage", "objects", Class::Merged),
            ("storage", "buckets", Class::Merged),
            ("storage", "migrations", Class::Platform),
            ("public", "users", Class::Owned),
            ("pgmq", "q_mail", Class::Owned),
            ("pgmq", "meta", Class::Platform),
        ] {
            assert_eq!(Class::of_rows(schema, table), class, "{schema}.{table}");
        }
    }
}
