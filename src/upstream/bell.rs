//! The doorbell of a thread with a tokio runtime: control, its calls to backends, the bridge.

use tokio::sync::Notify;

use crate::mesh::bell::Doorbell;

/// Wakes the task that waits in `rung`. Rings before it waits are not lost; many rings wake it once.
#[derive(Debug, Default)]
pub struct Bell(Notify);

impl Bell {
    /// Returns when the bell was rung since the last return.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test]
    async fn a_ring_before_the_wait_is_not_lost() {
        let bell = Arc::new(Bell::default());
        let ringer = Arc::clone(&bell);
        std::thread::spawn(move || ringer.ring())
            .join()
            .expect("the ringing thread ends");
        tokio::time::timeout(Duration::from_secs(5), bell.rung())
            .await
            .expect("the bell was rung");
    }
}
