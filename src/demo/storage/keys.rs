//! The keys of the double's project: a pair of S3 keys, and JWTs of roles.

use super::base64;
use crate::disk;
use crate::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::io;

/// The keys of a project. They are made anew for each double.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The project's ref.
    pub project_ref: String,
    /// The access key id of the dashboard's pair.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Secret,
    /// The anonymous key.
    pub anon: Secret,
    /// The service role's key.
    pub service_role: Secret,
    jwt_secret: Secret,
}

impl Keys {
    /// Makes keys.
    pub(super) fn new(project_ref: &str) -> io::Result<Self> {
        let random = || disk::random::<16>().map(hex::encode);
        let jwt_secret = Secret::new(random()?);
        let token = |role| Secret::new(sign(&jwt_secret, role));
        Ok(Self {
            project_ref: project_ref.to_owned(),
            access_key_id: random()?,
            secret_access_key: Secret::new(random()? + &random()?),
            anon: token("anon"),
            service_role: token("service_role"),
            jwt_secret,
        })
    }

    /// A token of a role.
    pub(super) fn token(&self, role: &str) -> Secret {
        Secret::new(sign(&self.jwt_secret, role))
    }

    /// The role of a token that this project signed.
    pub(super) fn role(&self, token: &str) -> Option<String> {
        let (_, rest) = token.split_once('.')?;
        let (claims, _) = rest.split_once('.')?;
        let claims: serde_json::Value = serde_json::from_slice(&base64::decode(claims)?).ok()?;
        let role = claims["role"].as_str()?;
        (sign(&self.jwt_secret, role) == token).then(|| role.to_owned())
    }
}

/// HMAC-SHA256.
pub(super) fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn sign(jwt_secret: &Secret, role: &str) -> String {
    let header = base64::encode_url(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = base64::encode_url(format!(r#"{{"role":"{role}"}}"#).as_bytes());
    let signed = format!("{header}.{claims}");
    let signature = base64::encode_url(&hmac(jwt_secret.expose().as_bytes(), &signed));
    format!("{signed}.{signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_of_this_project_have_a_role() {
        let (keys, others) = (Keys::new("a").unwrap(), Keys::new("a").unwrap());
        assert_eq!(keys.role(keys.service_role.expose()).unwrap(), "service_role");
        assert_eq!(keys.role(others.service_role.expose()), None);
        assert_eq!(keys.role("x.y.z"), None);
    }
}
