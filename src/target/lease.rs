//! A password that ends by itself after minutes, and how to get the next one.

use crate::secret::Secret;
use futures_util::future::BoxFuture;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a password serves for new connections. The platform's live for minutes, and `pg_dump`
/// opens its connections some time after it was started (facts 4.1).
const SERVES: Duration = Duration::from_mins(1);

/// What taking a new password gives.
pub type Renewed = Result<Secret, Box<dyn Error + Send + Sync>>;
type Renew = Arc<dyn Fn() -> BoxFuture<'static, Renewed> + Send + Sync>;

/// The password of a role that the platform lends for minutes. All clones have the same one.
#[derive(Clone)]
pub struct Lease {
    current: Arc<Mutex<(Secret, Instant)>>,
    renew: Renew,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl Lease {
    /// A password that was just taken, and how to take another one.
    pub fn new(
        password: Secret,
        renew: impl Fn() -> BoxFuture<'static, Renewed> + Send + Sync + 'static,
    ) -> Self {
        Self { current: Arc::new(Mutex::new((password, Instant::now()))), renew: Arc::new(renew) }
    }

    /// The password at hand.
    pub fn password(&self) -> Secret {
        self.current().0.clone()
    }

    /// Takes a new password when the one at hand may end before it was used. Sessions that are open
    /// go on; the old password does not open another one.
    pub async fn refresh(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.current().1.elapsed() < SERVES {
            return Ok(());
        }
        let password = (self.renew)().await?;
        *self.current() = (password, Instant::now());
        Ok(())
    }

    fn current(&self) -> MutexGuard<'_, (Secret, Instant)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_old_password_is_replaced_once() {
        let lease = Lease::new(Secret::new("first"), || Box::pin(async { Ok(Secret::new("second")) }));
        lease.refresh().await.unwrap();
        assert_eq!(lease.password().expose(), "first");
        lease.current().1 = Instant::now().checked_sub(SERVES).unwrap();
        let clone = lease.clone();
        clone.refresh().await.unwrap();
        assert_eq!(lease.password().expose(), "second");
    }
}
