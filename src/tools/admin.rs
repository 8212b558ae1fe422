//! Which admin listener a command asks.

use super::client::Client;
use super::{TargetArgs, ToolError, client};
use crate::config::Config;

/// Which admin listener is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct AdminArgs {
    /// Admin listener to ask, HOST:PORT or unix:PATH [default: as configured]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Its key [default: as configured, if this host is asked]
    #[arg(
        long,
        value_name = "KEY",
        env = "RINGMAIN_ADMIN_KEY",
        hide_env_values = true
    )]
    pub key: Option<String>,
}

/// The admin listener: what the arguments name, else the configured one.
pub(super) fn admin_client(config: &Config, args: &AdminArgs) -> Result<Client, ToolError> {
    if args.address.is_none() && config.admin.listen.is_none() {
        let text = "the configuration has no admin.listen: name the listener with --address";
        return Err(ToolError::Usage(text.to_owned()));
    }
    let target = TargetArgs {
        address: args.address.clone(),
        key: args.key.clone(),
        ..TargetArgs::default()
    };
    client(config, &target)
}
