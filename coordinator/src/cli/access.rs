//! `kulprit token …`, `kulprit join`, `kulprit agent revoke` and the like.

use super::args::{JoinArgs, RevokeArgs, To, TokenCreateArgs, TokenListArgs, TokenRevokeArgs, WhoamiArgs};
use super::bisect::{print, write_text};
use super::client::Coordinator;
use super::failure::Failure;
use super::say::say;
use super::story::{one_line, since};
use super::{credentials, tables};
use kulprit_common::access::{Member, Role, TokenText};
use kulprit_proto::tls::{self, TlsError};
use kulprit_proto::v1;
use serde_json::{Value, json};
use std::io::Read as _;

pub async fn create(args: TokenCreateArgs) -> Result<u8, Failure> {
    let request = v1::TokenCreateRequest {
        role: args.role.to_string(),
        name: args.name.as_ref().map(ToString::to_string),
        labels: args.labels,
        ttl_ms: u64::try_from(args.ttl.as_millis()).unwrap_or(u64::MAX),
    };
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let made = coordinator.token_create(request).await?;
    let left = since(tables::now_ms(), made.expires_ms);
    say(&format!("a token for one {}, valid for {left}, id {}:", args.role, made.id));
    let value = || json!({ "token": made.token, "id": made.id, "expires_ms": made.expires_ms });
    print(args.output, || format!("{}\n", made.token), value)?;
    Ok(0)
}

pub async fn list(args: TokenListArgs) -> Result<u8, Failure> {
    let tokens = Coordinator::dial(&args.to).await?.tokens().await?;
    print(
        args.output,
        || table(&tokens, tables::now_ms()),
        || Value::Array(tokens.iter().map(value).collect()),
    )?;
    Ok(0)
}

pub async fn revoke_token(args: TokenRevokeArgs) -> Result<u8, Failure> {
    let id = Coordinator::dial(&args.to).await?.token_revoke(&args.id).await?;
    print(args.output, || format!("token {id} is revoked\n"), || json!({ "id": id }))?;
    Ok(0)
}

pub async fn revoke(role: Role, args: RevokeArgs) -> Result<u8, Failure> {
    let member = Member { role, name: args.name };
    Coordinator::dial(&args.to).await?.revoke(&member).await?;
    print(args.output, || format!("{member} is revoked\n"), || json!({ "revoked": member.to_string() }))?;
    Ok(0)
}

pub async fn join(args: JoinArgs) -> Result<u8, Failure> {
    let text = match args.token.as_str() {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(4096).read_to_string(&mut text);
            read.map_err(|error| Failure::internal("read the token from standard input", error))?;
            text
        }
        text => text.to_owned(),
    };
    let token: TokenText = text.parse().map_err(|error| Failure::Input(format!("TOKEN: {error}")))?;
    if !args.coordinator.starts_with("https://") {
        return Err(Failure::Input(format!("--coordinator {}: write https://HOST:PORT", args.coordinator)));
    }
    let dir = credentials::directory(args.credentials.as_deref())?;
    let name = credentials::user_name(args.name.as_ref())?;
    let joined = tls::join(&args.coordinator, &token, &name, &dir).await;
    let joined = joined.map_err(|error| match error {
        TlsError::Refused(why) => Failure::Input(why),
        other => Failure::Internal(other.into()),
    })?;
    credentials::keep(&joined, &dir, &args.coordinator)?;
    let dir = dir.display();
    let mut text = format!("joined as {}; credentials in {dir}\n", joined.member);
    if joined.member.role == Role::Agent {
        text +=
            &format!("this is an agent's certificate: give it to kulprit-agent with --credentials {dir}\n");
    }
    write_text(&text)?;
    Ok(0)
}

pub fn whoami(args: WhoamiArgs) -> Result<u8, Failure> {
    let to = To { coordinator: None, credentials: args.credentials };
    let current = credentials::open(&to)?.current();
    let (member, until) = (&current.member, current.validity.until);
    let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
    let ca = tls::certificates(&current.ca_pem, tls::CA_FILE)
        .map_err(|error| Failure::internal("read the CA's certificate", error))?;
    let fingerprint = ca.first().map(|it| tls::fingerprint(it).to_string());
    let text = || {
        let left = since(tables::now_ms(), until_ms);
        format!("{member}, for another {left}\nCA {}\n", fingerprint.as_deref().unwrap_or("unknown"))
    };
    let value = || {
        json!({
            "role": member.role.to_string(),
            "name": member.name.to_string(),
            "expires_ms": until_ms,
            "ca": fingerprint,
        })
    };
    print(args.output, text, value)?;
    Ok(0)
}

fn table(tokens: &[v1::TokenView], now_ms: u64) -> String {
    if tokens.is_empty() {
        return "there are no tokens\n".into();
    }
    let mut table = tables::table(["TOKEN", "ROLE", "NAME", "STATE", "BY", "MADE", "VALID", "LABELS"]);
    for token in tokens {
        let made = format!("{} ago", since(token.created_ms, now_ms));
        let valid = match token.state.as_str() {
            "open" => since(now_ms, token.expires_ms),
            _ => String::new(),
        };
        let state = match token.used_by.as_str() {
            "" => token.state.clone(),
            member => format!("used by {member}"),
        };
        let name = token.name.clone().unwrap_or_default();
        let labels = token.labels.join(",");
        table.add_row(
            [&token.id, &token.role, &name, &state, &token.by, &made, &valid, &labels].map(|it| one_line(it)),
        );
    }
    tables::render(&table)
}

fn value(token: &v1::TokenView) -> Value {
    json!({
        "id": token.id,
        "role": token.role,
        "name": token.name,
        "labels": token.labels,
        "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
        "by": token.by,
        "state": token.state,
        "used_by": (!token.used_by.is_empty()).then_some(&token.used_by),
    })
}
