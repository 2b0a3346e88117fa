//! Secrets: what is new or changed, whether the kept values are the deployed ones, and never a value.

use crate::terminal::Terminal;
use crate::world::{Cli, Major, Platform, REF_17, Ran, World};
use fs_err as fs;
use serde_json::json;
use snapbox::{assert_data_eq, str};
use supa_safe::demo::cloud::{Project, StoredSecret};
use supa_safe::disk;

const VALUE: &str = "sk_live_51HdSGILKmno";
/// Values that a careless parser spoils.
const TRICKY: &str = "PLAIN=sk_live_51HdSGILKmno
export EXPORTED=\"two words here\"
ESCAPED=\"line one\\nline two\"
MULTILINE=\"-----BEGIN KEY-----
MIIEvQIBADANBg
-----END KEY-----\"
EMPTY=
UNICODE=p\u{e4}ssw\u{f6}rd\u{2713}
HASH=before#after
COMMENTED=value_before # a comment
SINGLE='single \\n $PLAIN'
EXPANDED=\"$PLAIN and ${PLAIN}\"
COLON: colon_value
QUOTED=\"say \\\"hi\\\"\"
BACKTICK=`back tick`
 SPACED = spaced_value  
TWICE=first_value
TWICE=second_value
SUPABASE_SKIPPED=never_sent
";

fn world(cli: Cli) -> (World, Platform) {
    let mut world = World::new(Major::Pg17, cli);
    world.write("supabase/config.toml", "project_id = \"test\"\n");
    world.set("SUPA_SAFE_DB_URL", "postgresql://postgres@127.0.0.3:5432/shop");
    let mut project = Project::new(REF_17, "Acme shop");
    project.secrets.push(StoredSecret::new("STRIPE_KEY", VALUE));
    let platform = Platform::start(&mut world, vec![project]);
    (world, platform)
}

fn secrets(world: &World, args: &[&str]) -> Ran {
    world.run([&["secrets"], args, &["--project-ref", REF_17]].concat())
}

/// Demands that no value stands in what the program printed, or in any file but the one that holds them.
#[track_caller]
fn keeps_silent(world: &World, ran: &Ran, values: &[&str]) {
    let files = disk::files_below(&world.path("")).unwrap();
    let texts: Vec<String> = files
        .iter()
        .filter(|file| !file.ends_with("kept.env") && !file.ends_with("supa-safe.toml"))
        .map(|file| String::from_utf8_lossy(&fs::read(world.path(file)).unwrap()).into_owned())
        .chain([ran.stdout.clone(), ran.stderr.clone()])
        .collect();
    for value in values {
        assert!(texts.iter().all(|text| !text.contains(value)), "{value} was told: {ran}");
    }
}

/// The real CLI deploys the file; what we read from the same file must have the same digests.
fn kept_values_are_those_that_the_cli_deploys(cli: Cli) {
    let (world, platform) = world(cli);
    world.write("kept.env", TRICKY);
    let remote = if cli == Cli::V3 { "--remote=" } else { "--project-ref=" }.to_owned() + REF_17;
    world.supabase(&["secrets", "set", "--yes", "--env-file", "kept.env", &remote]).exits(0);
    platform.stub.change(REF_17, |project| project.secrets.retain(|secret| secret.name != "STRIPE_KEY"));
    let ran = secrets(&world, &["check", "--env-file", "kept.env", "--json"]).exits(0);
    let checked = ran.document();
    let checked = checked["secrets"].as_array().unwrap();
    assert_eq!(checked.len(), 15, "{ran}");
    assert!(checked.iter().all(|one| one["verdict"] == "matches"), "{ran}");
    keeps_silent(&world, &ran, &[VALUE, "two words", "line two", "MIIEvQ", "p\u{e4}ssw", "second_value"]);
    platform.knew_every_call();
}

#[test]
fn kept_values_are_those_that_cli_2_deploys() {
    kept_values_are_those_that_the_cli_deploys(Cli::V2);
}

#[test]
fn kept_values_are_those_that_cli_3_deploys() {
    kept_values_are_those_that_the_cli_deploys(Cli::V3);
}

#[test]
fn what_would_be_lost_is_told_and_no_value() {
    let (world, platform) = world(Cli::V3);
    platform.stub.change(REF_17, |project| {
        project.secrets.push(StoredSecret::new("ROTATED", "the new value"));
        project.secrets.push(StoredSecret::new("FORGOTTEN", "nowhere else"));
    });
    world.write("kept.env", &format!("STRIPE_KEY={VALUE}\nROTATED=the_old_value\nLOCAL_ONLY=unused_value\n"));
    world.write(
        "supabase/supa-safe.toml",
        &format!(
            "[secrets.STRIPE_KEY]\ncheck = 'test \"$STRIPE_KEY\" = {VALUE}'\n\
             [secrets.ROTATED]\ncheck = 'echo $ROTATED; exit 7'\n[secrets.GONE]\ncheck = 'true'\n"
        ),
    );
    let ran = secrets(&world, &["check", "--command", "cat kept.env"]).exits(3);
    assert_data_eq!(
        ran.text(),
        str![[r#"
exit 3
---- stdout
target 127.0.0.3:5432/shop, project bbbbbbbbbbbbbbbbbbbb
! FORGOTTEN is deployed, and missing here
  LOCAL_ONLY is here, and not deployed
! ROTATED differs from the deployed value
  STRIPE_KEY matches
! GONE does not pass its check: it is not deployed
! ROTATED does not pass its check: it exited with code 7
  STRIPE_KEY passes its check
---- stderr
error: not every secret is kept and works
  deployed values that are not among the kept ones: 2
  secrets that do not pass their check: 2
hint: Find the deployed value where it came from, or make a new one and deploy it with `supabase secrets set`
hint: Run the command of `[secrets.NAME]` by hand to see why it fails

"#]]
    );
    keeps_silent(&world, &ran, &[VALUE, "the_old_value", "unused_value"]);
    let ran = secrets(&world, &["check", "--command", "echo A=hidden_value; exit 3"]).exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the command of `--command` exited with code 3; what it printed is not shown
hint: Run it by hand

"#]]
    );
    world.write("kept.env", "ROTATED=a\0b\n");
    let ran = secrets(&world, &["check", "--env-file", "kept.env"]).exits(3);
    let why = "! ROTATED does not pass its check: it has a NUL character in its kept value, which no command can be given";
    assert!(ran.stdout.lines().any(|line| line == why), "{ran}");
    platform.knew_every_call();
}

#[test]
fn a_person_confirms_the_inventory() {
    let (mut world, platform) = world(Cli::V3);
    let target = "127.0.0.3:5432/shop";
    assert_data_eq!(
        secrets(&world, &["list"]).exits(0).data(),
        str![[r#"
target 127.0.0.3:5432/shop, project bbbbbbbbbbbbbbbbbbbb
! STRIPE_KEY                 NEW
  SUPABASE_ANON_KEY          set by the platform
  SUPABASE_DB_URL            set by the platform
  SUPABASE_SERVICE_ROLE_KEY  set by the platform
  SUPABASE_URL               set by the platform
1 to confirm: `supa-safe secrets confirm`

"#]]
    );
    assert_data_eq!(
        secrets(&world, &["confirm"]).exits(4).talk(),
        str![[r#"

127.0.0.3:5432/shop secrets of the project
  ! STRIPE_KEY                 NEW
    SUPABASE_ANON_KEY          set by the platform
    SUPABASE_DB_URL            set by the platform
    SUPABASE_SERVICE_ROLE_KEY  set by the platform
    SUPABASE_URL               set by the platform
error: nobody can be asked to confirm the target; nothing was changed
hint: Pass `--confirm 127.0.0.3:5432/shop` after `supa-safe secrets check` has found each value that you keep

"#]]
    );
    world.set("CLAUDECODE", "1");
    secrets(&world, &["confirm", "--confirm", target]).exits(4);
    world.unset("CLAUDECODE");
    secrets(&world, &["confirm", "--confirm", "yes"]).exits(4);
    let standing = |world: &World| secrets(world, &["list", "--json"]).exits(0).document()["secrets"].clone();
    assert_eq!(standing(&world)[0], json!({"name": "STRIPE_KEY", "state": "new"}));

    let mut terminal = Terminal::start(&world, &["secrets", "confirm", "--project-ref", REF_17]);
    terminal.sees("STRIPE_KEY");
    terminal.sees("elsewhere");
    terminal.types(target);
    let (code, seen) = terminal.ends();
    assert_eq!(code, 0, "{seen}");
    let now = standing(&world);
    assert_eq!(now[0]["state"], "confirmed", "{now}");
    let ran = secrets(&world, &["confirm"]).exits(0);
    assert_data_eq!(
        ran.data(),
        str![[r#"
Nothing to confirm: every secret was confirmed, and has not changed

"#]]
    );

    platform.stub.change(REF_17, |project| {
        project.secrets.retain(|secret| secret.name != "STRIPE_KEY");
        project.secrets.push(StoredSecret::new("STRIPE_KEY", "another value"));
    });
    let changed = standing(&world);
    assert_eq!((changed[0]["state"].as_str(), &changed[0]["at"]), (Some("changed"), &now[0]["at"]));
    secrets(&world, &["confirm", "--confirm", target]).exits(0);
    assert_eq!(standing(&world)[0]["state"], "confirmed");
    platform.knew_every_call();
}
