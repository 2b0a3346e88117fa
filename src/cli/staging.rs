//! Where a rehearsal runs: `--rehearse`, and the staging server that it may name.

use super::Setting;
use super::fail::{failed, staging_failed, url_failed};
use super::open::Opened;
use super::target::seen_in_argv;
use crate::config::{Config, Place};
use crate::context::Context;
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::scratch::staging;
use crate::secret::Secret;
use crate::target::{Connection, Staging, Target};
use std::str::FromStr;

/// What `--rehearse` says.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// As the environment and the policy say.
    AsSet,
    /// There.
    At(Place),
    /// Not at all.
    Off,
}

impl FromStr for How {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::AsSet),
            "off" => Ok(Self::Off),
            place => place.parse().map(Self::At).map_err(|error: String| format!("{error}; or `off`")),
        }
    }
}

/// The same where a rehearsal is what is asked for.
pub(super) fn place(text: &str) -> Result<How, String> {
    match text.parse()? {
        How::Off => Err("a rehearsal cannot be off".to_owned()),
        how => Ok(how),
    }
}

/// The staging server that the environment or the policy name.
pub(super) fn set(setting: &Setting, config: &Config, target: &Target) -> Result<Option<Staging>, Failure> {
    let place = config.place(&setting.surroundings).map_err(failed(Exit::Usage))?;
    match place {
        Place::Own(_) => Ok(None),
        Place::Given(url) => Ok(Some(of_url(setting, &url, target)?)),
    }
}

/// Does as `--rehearse` says.
pub(super) fn heed(setting: &Setting, opened: &mut Opened, how: &How) -> Result<(), Failure> {
    match how {
        How::Off => return Ok(()),
        How::AsSet => {}
        How::At(place) => {
            opened.context.scratch.preference = place.preference();
            opened.context.staging = match place {
                Place::Own(_) => None,
                Place::Given(url) => {
                    let has_password = |url: url::Url| url.password().is_some();
                    if url::Url::parse(url.expose()).is_ok_and(has_password) {
                        opened.context.tell(&seen_in_argv("SUPA_SAFE_STAGING_PASSWORD"));
                    }
                    Some(of_url(setting, url, &opened.target)?)
                }
            };
        }
    }
    let Some(staging) = &opened.context.staging else { return Ok(()) };
    tell_ignored(&opened.context, &staging.connection);
    Ok(())
}

/// Makes sure that the staging server is one, before an hour goes into a snapshot for it.
pub(super) async fn check(opened: &Opened, how: &How) -> Result<(), Failure> {
    match &opened.context.staging {
        None => Ok(()),
        Some(_) if matches!(how, How::Off) => Ok(()),
        Some(staging) => {
            Box::pin(staging::check(staging)).await.map(drop).map_err(|error| staging_failed(&error))
        }
    }
}

/// Removes what a run that failed or was interrupted left in its staging server.
pub(super) async fn clear(context: &Context) {
    let Some(staging) = context.staging.as_ref().filter(|staging| staging.is_in_use()) else { return };
    let address = staging.connection.address();
    match Box::pin(staging::clear(staging)).await {
        Ok(()) => context.note(format!("removed the copy from the staging server {address}")),
        Err(error) => context.warn(format!(
            "a copy of the target is still in the staging server {address}, and the next rehearsal there removes it: {}",
            Failure::new(Exit::Error, &error).chain.join(": ")
        )),
    }
}

fn tell_ignored(context: &Context, connection: &Connection) {
    if !connection.ignored.is_empty() {
        let text = format!("the URL's {} has no meaning here and is left out", connection.ignored.join(", "));
        context.tell(&Event::Note { text });
    }
}

fn of_url(setting: &Setting, url: &Secret, target: &Target) -> Result<Staging, Failure> {
    let defaults = setting.surroundings.staging_defaults();
    let connection = Connection::from_url(url.expose(), &defaults).map_err(|error| {
        let failure = url_failed(&error);
        Failure {
            chain: [vec!["the URL of the staging server cannot be used".to_owned()], failure.chain].concat(),
            ..failure
        }
        .detail("the target was not touched")
    })?;
    let token = crate::disk::random::<16>().map_err(failed(Exit::Error))?;
    Ok(Staging::new(connection, target.clone(), hex::encode(token)))
}
