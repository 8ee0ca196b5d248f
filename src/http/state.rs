//! What the handlers of one server share.
//!
//! Promises: made once at the start, dropped when the last connection has ended. Each handler passes on only what the
//! function it calls uses.

use std::sync::Arc;

use secrecy::SecretString;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::features::ack::Acks;
use crate::features::badge::Badges;
use crate::features::receipts::Receipts;
use crate::features::revoke::Revocations;
use crate::features::ticket::Tickets;
use crate::http::connections::Connections;
use crate::http::link::DeflatePools;
use crate::id::Random;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::token::Verifier;
use crate::wake::Wakes;

pub struct App {
    pub config: Config,
    pub clock: Clock,
    pub random: Random,
    pub metrics: Arc<Metrics>,
    pub wakes: Wakes,
    pub store: Store,
    pub limits: Limits,
    pub verifier: Arc<Verifier>,
    /// The secret that signs the demo's tokens.
    pub secret: SecretString,
    pub revocations: Revocations,
    pub tickets: Tickets,
    pub acks: Acks,
    pub badges: Badges,
    pub receipts: Receipts,
    pub connections: Arc<Connections>,
    pub deflate: DeflatePools,
    /// The tasks of open sockets; the server waits for them when it drains.
    pub sockets: TaskTracker,
}
