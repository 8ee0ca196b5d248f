//! `tidings serve`: from a configuration to a server that has drained.
//!
//! Promises: exactly one line on stdout, `listening on http://ADDRESS`, once connections are accepted; logs go to
//! stderr. The server itself is `server`'s.

use anyhow::bail;

use crate::config::Config;

/// Serves until a signal, drains, and returns.
pub fn serve(config: Config) -> anyhow::Result<()> {
    bail!("serving on {} is not built yet", config.server.listen);
}
