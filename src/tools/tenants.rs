//! `ringmain tenants`: tenants of the running proxy.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::client::Client;
use super::dlq::text;
use super::table::Table;
use super::{AdminArgs, ToolError, admin_client};
use crate::config::{Config, Tenant};

/// Where they are.
const PATH: &str = "/admin/tenants";

/// `ringmain tenants`
#[derive(Clone, Debug, clap::Args)]
pub struct TenantsArgs {
    /// What to do
    #[command(subcommand)]
    pub action: TenantsAction,
}

/// What is done with tenants.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TenantsAction {
    /// List all tenants, those of files too. Secrets are not shown
    List {
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
        /// Server
        #[command(flatten)]
        target: AdminArgs,
    },
    /// Add a tenant, or change one that was added so
    Add {
        /// The keys of one of [[tenants]], as TOML or JSON; `-` reads standard input
        file: PathBuf,
        /// Server
        #[command(flatten)]
        target: AdminArgs,
    },
    /// Remove a tenant that was added so. Its clients are disconnected
    Remove {
        /// Its id
        id: String,
        /// Server
        #[command(flatten)]
        target: AdminArgs,
    },
}

impl TenantsArgs {
    /// Which server is asked.
    #[must_use]
    pub const fn target(&self) -> &AdminArgs {
        match &self.action {
            TenantsAction::List { target, .. }
            | TenantsAction::Add { target, .. }
            | TenantsAction::Remove { target, .. } => target,
        }
    }
}

/// Lists, adds or removes tenants.
///
/// # Errors
/// See `ToolError`.
pub fn tenants(config: &Config, args: &TenantsArgs) -> Result<(), ToolError> {
    let mut client = admin_client(config, args.target())?;
    match &args.action {
        TenantsAction::List { json, .. } => list(&mut client, *json),
        TenantsAction::Add { file, .. } => {
            let tenant = read(file)?;
            let done = client.manage("POST", PATH, &tenant)?;
            println!("{}", told(&done));
            Ok(())
        }
        TenantsAction::Remove { id, .. } => {
            if !Tenant::is_id(id) {
                let text = "the id of a tenant is of lower-case letters, digits and `-`";
                return Err(ToolError::Usage(text.to_owned()));
            }
            let done = client.manage("DELETE", &format!("{PATH}/{id}"), &Value::Null)?;
            println!("{}", told(&done));
            Ok(())
        }
    }
}

fn list(client: &mut Client, as_json: bool) -> Result<(), ToolError> {
    let found = client.manage("GET", PATH, &Value::Null)?;
    let mut out = std::io::stdout().lock();
    let failed = |error| ToolError::file("standard output", error);
    let none = Vec::new();
    let tenants = found["tenants"].as_array().unwrap_or(&none);
    let mut table = Table::new(&["TENANT", "HOSTS", "CHANNEL SET", "ADDED BY", "REQUEST"]);
    for one in tenants {
        if as_json {
            writeln!(out, "{one}").map_err(failed)?;
            continue;
        }
        let hosts = one["hosts"].as_array().unwrap_or(&none);
        let hosts: Vec<String> = hosts.iter().map(text).collect();
        let by = match one["kept"].as_bool() {
            Some(true) => text(&one["changed_by"]),
            _ => "a file".to_owned(),
        };
        table.push(vec![
            text(&one["id"]),
            hosts.join(" "),
            text(&one["channel_set"]),
            by,
            text(&one["request_id"]),
        ]);
    }
    if !as_json {
        write!(out, "{}", table.text()).map_err(failed)?;
    }
    for one in found["left_out"].as_array().unwrap_or(&none) {
        eprintln!("{} is left out: {}", text(&one["id"]), text(&one["reason"]));
    }
    if found["complete"] == false {
        eprintln!("the durable log is not there: tenants that it keeps are missing here");
    }
    Ok(())
}

/// The keys of a tenant.
fn read(path: &Path) -> Result<Value, ToolError> {
    let name = path.display().to_string();
    let mut written = String::new();
    let outcome = match name.as_str() {
        "-" => std::io::stdin().read_to_string(&mut written).map(drop),
        _ => std::fs::read_to_string(path).map(|text| written = text),
    };
    outcome.map_err(|error| ToolError::file(&name, error))?;
    parse(&written).map_err(|why| ToolError::Usage(format!("{name}: {why}")))
}

/// TOML, or JSON where it begins like that. What is wrong is told without the text, which may hold a secret.
fn parse(written: &str) -> Result<Value, String> {
    if written.trim_start().starts_with('{') {
        return serde_json::from_str(written).map_err(|error| {
            format!(
                "not valid JSON: line {}, column {}",
                error.line(),
                error.column()
            )
        });
    }
    match written.parse::<toml::Table>() {
        Ok(table) => serde_json::to_value(table).map_err(|error| error.to_string()),
        Err(error) => Err(format!("not valid TOML: {}", error.message())),
    }
}

fn told(done: &Value) -> String {
    format!(
        "tenant {} is {} (request {})",
        text(&done["tenant"]),
        text(&done["change"]),
        text(&done["request_id"])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tenant_is_read_as_toml_or_as_json() {
        let expected = json!({ "id": "a", "token": { "issuer": "i" } });
        let toml = "id = \"a\"\n[token]\nissuer = \"i\"\n";
        assert_eq!(parse(toml), Ok(expected.clone()));
        assert_eq!(parse(&expected.to_string()), Ok(expected));
        for bad in ["id = \"secret", "{\"id\": \"secret\""] {
            let why = parse(bad).expect_err("it is neither");
            assert!(
                why.contains("not valid") && !why.contains("secret"),
                "{why}"
            );
        }
    }
}
