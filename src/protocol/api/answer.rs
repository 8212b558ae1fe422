//! Answers to a service.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::error::ApiError;
use crate::model::{ChannelName, ClientId, ClientInfo, EventId, Publication, StreamPosition};
use crate::protocol::centrifuge::json::{client_info, tags};
use crate::wire::json::is_json;
use crate::wire::json::write::Members;

/// Result of one request.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiAnswer {
    /// Where it went; `None` in a channel without history.
    Publish(Option<ApiPublished>),
    /// One answer for each channel, in the request's order.
    Broadcast(Vec<Result<Option<ApiPublished>, ApiError>>),
    /// Done.
    Subscribe,
    /// Done.
    Unsubscribe,
    /// Done.
    Disconnect,
    /// Done.
    Refresh,
    /// Done.
    RevokeToken,
    /// Done.
    InvalidateUserTokens,
    /// Done.
    BlockUser,
    /// Done.
    UnblockUser,
    /// Who is there.
    Presence(Vec<Arc<ClientInfo>>, Option<ClientId>),
    /// How many are there.
    PresenceStats {
        /// Entries.
        num_clients: u32,
        /// Distinct users.
        num_users: u32,
    },
    /// Publications in the order asked for.
    History {
        /// Entries.
        publications: Vec<Arc<Publication>>,
        /// Top of the stream.
        position: StreamPosition,
    },
    /// Done.
    HistoryRemove,
    /// Active channels and their subscribers.
    Channels(Vec<(ChannelName, u32)>),
    /// Servers.
    Info(Vec<NodeInfo>),
    /// What the log's side says, a JSON object.
    Log(Bytes),
    /// One answer for each command, in the request's order.
    Batch(Vec<Result<ApiAnswer, ApiError>>),
}

/// A publication that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiPublished {
    /// Where it stands.
    pub position: StreamPosition,
    /// What it is called in the durable log.
    pub event: Option<EventId>,
    /// It stands nowhere yet: when it is published, Unix milliseconds. 0 where it stands at `position`.
    pub due_ms: u64,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Unique id of the process.
    pub uid: String,
    /// Name for people.
    pub name: String,
    /// Connections.
    pub num_clients: u64,
    /// Distinct users.
    pub num_users: u64,
    /// Channels with subscribers.
    pub num_channels: u64,
    /// Subscriptions.
    pub num_subs: u64,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// What it counts, by name, since the start.
    pub metrics: Vec<(&'static str, u64)>,
}

/// Where an answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiForm {
    /// Body of `/api/<method>`: `{"result":…}` or `{"error":…}`; a batch has neither around it.
    Single,
    /// The same in transport error mode: an error stands bare beside its HTTP status.
    Transport,
    /// Item of `replies`: `{"<method>":…}` or `{"error":…}`.
    BatchItem,
    /// Line of the legacy endpoint, with the command's id.
    Legacy(Option<u64>),
}

/// What a client is told who asks for a page of those who are in a channel.
#[must_use]
pub fn presence_json(infos: &[Arc<ClientInfo>], next: Option<ClientId>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + infos.len() * 128);
    let mut members = Members::open(&mut out);
    presence(&mut members, infos, next);
    members.close();
    out
}

fn presence(members: &mut Members<'_>, infos: &[Arc<ClientInfo>], next: Option<ClientId>) {
    let mut clients = members.object("presence");
    for info in infos {
        client_info(
            clients.name(str::from_utf8(&info.client.encode()).unwrap_or("")),
            info,
        );
    }
    clients.close();
    if let Some(next) = next {
        members.plain("cursor", &next.encode());
    }
}

/// Appends one answer.
pub fn encode_answer(out: &mut Vec<u8>, answer: &Result<ApiAnswer, ApiError>, shape: ApiForm) {
    if let (Err(error), ApiForm::Transport) = (answer, shape) {
        return self::error(Members::open(out), error);
    }
    if let (Ok(answer @ ApiAnswer::Batch(_)), ApiForm::Single | ApiForm::Transport) =
        (answer, shape)
    {
        return result(Members::open(out), answer);
    }
    let mut members = Members::open(out);
    if let ApiForm::Legacy(Some(id)) = shape {
        members.number("id", id);
    }
    match answer {
        Err(error) => self::error(members.object("error"), error),
        Ok(ApiAnswer::Log(json)) => members.raw("result", json),
        Ok(answer) => {
            let name = if shape == ApiForm::BatchItem {
                answer.method()
            } else {
                "result"
            };
            result(members.object(name), answer);
        }
    }
}

impl ApiAnswer {
    /// Name of the method that is answered.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Broadcast(_) => "broadcast",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Disconnect => "disconnect",
            Self::Refresh => "refresh",
            Self::RevokeToken => "revoke_token",
            Self::InvalidateUserTokens => "invalidate_user_tokens",
            Self::BlockUser => "block_user",
            Self::UnblockUser => "unblock_user",
            Self::Presence(..) => "presence",
            Self::PresenceStats { .. } => "presence_stats",
            Self::History { .. } => "history",
            Self::HistoryRemove => "history_remove",
            Self::Channels(_) => "channels",
            Self::Info(_) => "info",
            Self::Log(_) => "log",
            Self::Batch(_) => "batch",
        }
    }
}

fn error(mut members: Members<'_>, error: &ApiError) {
    members.number("code", error.code());
    members.text("message", &error.message());
    if let Some(ms) = error.retry_after_ms() {
        members.number("retry_after_ms", ms);
    }
}

fn result(mut members: Members<'_>, answer: &ApiAnswer) {
    match answer {
        ApiAnswer::Subscribe
        | ApiAnswer::Unsubscribe
        | ApiAnswer::Disconnect
        | ApiAnswer::Refresh
        | ApiAnswer::RevokeToken
        | ApiAnswer::InvalidateUserTokens
        | ApiAnswer::BlockUser
        | ApiAnswer::UnblockUser
        | ApiAnswer::HistoryRemove
        | ApiAnswer::Log(_) => {}
        ApiAnswer::Publish(published) => self::published(&mut members, *published),
        ApiAnswer::Broadcast(responses) => {
            members.array("responses", responses, |out, response| {
                let mut item = Members::open(out);
                match response {
                    Err(error) => self::error(item.object("error"), error),
                    Ok(published) => {
                        let mut result = item.object("result");
                        self::published(&mut result, *published);
                    }
                }
            })
        }
        ApiAnswer::Presence(infos, next) => self::presence(&mut members, infos, *next),
        ApiAnswer::PresenceStats {
            num_clients,
            num_users,
        } => {
            members.number("num_clients", *num_clients);
            members.number("num_users", *num_users);
        }
        ApiAnswer::History {
            publications,
            position,
        } => {
            members.array("publications", publications, |out, item| {
                publication(out, item)
            });
            members.text("epoch", position.epoch.as_str());
            members.number("offset", position.offset.0);
        }
        ApiAnswer::Channels(channels) => {
            let mut names = members.object("channels");
            for (channel, num_clients) in channels {
                let mut item = Members::open(names.key(channel.name()));
                item.number("num_clients", *num_clients);
            }
        }
        ApiAnswer::Info(nodes) => members.array("nodes", nodes, node),
        ApiAnswer::Batch(replies) => {
            if !replies.is_empty() {
                members.array("replies", replies, |out, reply| {
                    encode_answer(out, reply, ApiForm::BatchItem)
                });
            }
        }
    }
}

fn published(members: &mut Members<'_>, published: Option<ApiPublished>) {
    let Some(published) = published else {
        return;
    };
    let ApiPublished {
        position,
        event,
        due_ms,
    } = published;
    if due_ms == 0 {
        members.number_some("offset", position.offset.0);
        members.text("epoch", position.epoch.as_str());
    }
    if let Some(event) = event {
        members.plain("event_id", &event.encode());
    }
    members.number_some("deliver_at", due_ms);
}

/// A publication as services see it: no epoch, and `b64data` in place of a payload that is not JSON.
fn publication(out: &mut Vec<u8>, publication: &Publication) {
    let mut members = Members::open(out);
    if is_json(&publication.data) {
        members.raw("data", &publication.data);
    } else {
        members.text("b64data", &STANDARD.encode(&publication.data));
    }
    members.number_some("offset", publication.offset.0);
    if let Some(info) = &publication.info {
        client_info(members.name("info"), info);
    }
    tags(&mut members, publication);
}

fn node(out: &mut Vec<u8>, node: &NodeInfo) {
    let mut members = Members::open(out);
    members.text("uid", &node.uid);
    members.text("name", &node.name);
    members.text("version", env!("CARGO_PKG_VERSION"));
    members.number("num_clients", node.num_clients);
    members.number("num_users", node.num_users);
    members.number("num_channels", node.num_channels);
    members.number("num_subs", node.num_subs);
    members.number("uptime", node.uptime_s);
    if !node.metrics.is_empty() {
        let mut metrics = members.object("metrics");
        metrics.number("interval", node.uptime_s);
        let mut items = metrics.object("items");
        for (name, value) in &node.metrics {
            items.number(name, *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::{ClientId, Epoch, Offset};

    const CLIENT: ClientId = ClientId::from_random(7);

    fn encoded(answer: Result<ApiAnswer, ApiError>, shape: ApiForm) -> String {
        let mut out = Vec::new();
        encode_answer(&mut out, &answer, shape);
        String::from_utf8(out).unwrap()
    }

    fn single(answer: ApiAnswer) -> String {
        encoded(Ok(answer), ApiForm::Single)
    }

    fn at(offset: u64) -> StreamPosition {
        StreamPosition {
            epoch: Epoch(*b"abcdEFGH"),
            offset: Offset(offset),
        }
    }

    fn stands(offset: u64) -> ApiPublished {
        ApiPublished {
            position: at(offset),
            event: None,
            due_ms: 0,
        }
    }

    #[test]
    fn what_is_published_later_has_a_time_and_no_place() {
        let id = EventId(7);
        let later = ApiPublished {
            position: StreamPosition::default(),
            event: Some(id),
            due_ms: 1_800_000_000_000,
        };
        let members = format!(r#"{{"event_id":"{id}","deliver_at":1800000000000}}"#);
        let answer = ApiAnswer::Publish(Some(later));
        assert_eq!(single(answer), format!(r#"{{"result":{members}}}"#));
    }

    #[test]
    fn publication_of_a_durable_channel_says_what_it_is_called() {
        let published = ApiPublished {
            event: Some(EventId(7)),
            ..stands(5)
        };
        let id = EventId(7);
        let members = format!(r#"{{"offset":5,"epoch":"abcdEFGH","event_id":"{id}"}}"#);
        let answer = ApiAnswer::Publish(Some(published));
        assert_eq!(single(answer.clone()), format!(r#"{{"result":{members}}}"#));
        assert_eq!(
            encoded(Ok(answer), ApiForm::BatchItem),
            format!(r#"{{"publish":{members}}}"#)
        );
        assert_eq!(
            single(ApiAnswer::Broadcast(vec![Ok(Some(published))])),
            format!(r#"{{"result":{{"responses":[{{"result":{members}}}]}}}}"#)
        );
    }

    fn somebody() -> ClientInfo {
        ClientInfo {
            user: "u".into(),
            client: CLIENT,
            conn_info: Bytes::from_static(b"{}"),
            chan_info: Bytes::new(),
        }
    }

    fn published(offset: u64, data: &'static [u8]) -> Publication {
        Publication {
            offset: Offset(offset),
            epoch: Epoch(*b"abcdEFGH"),
            data: Bytes::from_static(data),
            json: true,
            info: None,
            tags: Box::default(),
            unix_ms: 0,
            tells_time: false,
            patch: None,
            delta: false,
        }
    }

    #[test]
    fn errors_have_the_codes_messages_and_statuses_of_the_table() {
        let table = [
            (ApiError::Internal, 100, "internal server error", 500),
            (ApiError::UnknownChannel, 102, "unknown channel", 404),
            (ApiError::NotFound, 104, "not found", 404),
            (ApiError::LimitExceeded, 106, "limit exceeded", 500),
            (ApiError::BadRequest, 107, "bad request", 400),
            (ApiError::NotAvailable, 108, "not available", 400),
            (ApiError::TooManyRequests, 111, "too many requests", 500),
            (
                ApiError::UnrecoverablePosition,
                112,
                "unrecoverable position",
                416,
            ),
        ];
        for (error, code, message, status) in table {
            let bare = format!(r#"{{"code":{code},"message":"{message}"}}"#);
            assert_eq!(
                encoded(Err(error.clone()), ApiForm::Single),
                format!(r#"{{"error":{bare}}}"#)
            );
            assert_eq!(
                encoded(Err(error.clone()), ApiForm::BatchItem),
                format!(r#"{{"error":{bare}}}"#)
            );
            assert_eq!(encoded(Err(error.clone()), ApiForm::Transport), bare);
            assert_eq!(
                encoded(Err(error.clone()), ApiForm::Legacy(Some(3))),
                format!(r#"{{"id":3,"error":{bare}}}"#)
            );
            assert_eq!(error.http_status(), status);
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn each_shape_wraps_the_result_in_its_own_way() {
        let answer = || Ok(ApiAnswer::Publish(Some(stands(5))));
        let result = r#"{"offset":5,"epoch":"abcdEFGH"}"#;
        assert_eq!(
            encoded(answer(), ApiForm::Single),
            format!(r#"{{"result":{result}}}"#)
        );
        assert_eq!(
            encoded(answer(), ApiForm::Transport),
            format!(r#"{{"result":{result}}}"#)
        );
        assert_eq!(
            encoded(answer(), ApiForm::BatchItem),
            format!(r#"{{"publish":{result}}}"#)
        );
        assert_eq!(
            encoded(answer(), ApiForm::Legacy(None)),
            format!(r#"{{"result":{result}}}"#)
        );
        assert_eq!(
            encoded(answer(), ApiForm::Legacy(Some(7))),
            format!(r#"{{"id":7,"result":{result}}}"#)
        );
    }

    #[test]
    fn empty_results_keep_their_methods_key_in_a_batch() {
        for (answer, method) in [
            (ApiAnswer::Publish(None), "publish"),
            (ApiAnswer::Subscribe, "subscribe"),
            (ApiAnswer::Unsubscribe, "unsubscribe"),
            (ApiAnswer::Disconnect, "disconnect"),
            (ApiAnswer::Refresh, "refresh"),
            (ApiAnswer::HistoryRemove, "history_remove"),
        ] {
            assert_eq!(single(answer.clone()), r#"{"result":{}}"#);
            assert_eq!(
                encoded(Ok(answer), ApiForm::BatchItem),
                format!(r#"{{"{method}":{{}}}}"#)
            );
        }
    }

    #[test]
    fn broadcast_answers_for_each_channel_in_order() {
        let responses = vec![Ok(Some(stands(2))), Err(ApiError::UnknownChannel), Ok(None)];
        let wanted = r#"{"result":{"responses":[{"result":{"offset":2,"epoch":"abcdEFGH"}},{"error":{"code":102,"message":"unknown channel"}},{"result":{}}]}}"#;
        assert_eq!(single(ApiAnswer::Broadcast(responses.clone())), wanted);
        assert_eq!(
            encoded(Ok(ApiAnswer::Broadcast(responses)), ApiForm::Transport),
            wanted
        );
    }

    #[test]
    fn batch_has_replies_and_no_result() {
        let replies = vec![
            Ok(ApiAnswer::Unsubscribe),
            Err(ApiError::NotFound),
            Ok(ApiAnswer::Publish(Some(stands(1)))),
        ];
        let wanted = r#"{"replies":[{"unsubscribe":{}},{"error":{"code":104,"message":"not found"}},{"publish":{"offset":1,"epoch":"abcdEFGH"}}]}"#;
        for shape in [ApiForm::Single, ApiForm::Transport] {
            assert_eq!(
                encoded(Ok(ApiAnswer::Batch(replies.clone())), shape),
                wanted
            );
        }
        assert_eq!(single(ApiAnswer::Batch(Vec::new())), "{}");
    }

    #[test]
    fn fields_that_services_insist_on_are_there_when_empty() {
        assert_eq!(
            single(ApiAnswer::Presence(Vec::new(), None)),
            r#"{"result":{"presence":{}}}"#
        );
        assert_eq!(
            single(ApiAnswer::Channels(Vec::new())),
            r#"{"result":{"channels":{}}}"#
        );
        assert_eq!(
            single(ApiAnswer::Info(Vec::new())),
            r#"{"result":{"nodes":[]}}"#
        );
        assert_eq!(
            single(ApiAnswer::Broadcast(Vec::new())),
            r#"{"result":{"responses":[]}}"#
        );
        assert_eq!(
            single(ApiAnswer::PresenceStats {
                num_clients: 0,
                num_users: 0
            }),
            r#"{"result":{"num_clients":0,"num_users":0}}"#
        );
        assert_eq!(
            single(ApiAnswer::History {
                publications: Vec::new(),
                position: at(0)
            }),
            r#"{"result":{"publications":[],"epoch":"abcdEFGH","offset":0}}"#
        );
    }

    #[test]
    fn presence_is_keyed_by_client() {
        assert_eq!(
            single(ApiAnswer::Presence(vec![Arc::new(somebody())], None)),
            format!(
                r#"{{"result":{{"presence":{{"{CLIENT}":{{"user":"u","client":"{CLIENT}","conn_info":{{}}}}}}}}}}"#
            )
        );
    }

    #[test]
    fn history_prints_info_and_tags_but_no_epoch_inside() {
        let publication = Publication {
            info: Some(Arc::new(somebody())),
            tags: Box::new([("k".into(), "v".into())]),
            ..published(1, b"[\n1]")
        };
        let answer = ApiAnswer::History {
            publications: vec![Arc::new(publication)],
            position: at(9),
        };
        assert_eq!(
            single(answer),
            format!(
                r#"{{"result":{{"publications":[{{"data":[1],"offset":1,"info":{{"user":"u","client":"{CLIENT}","conn_info":{{}}}},"tags":{{"k":"v"}}}}],"epoch":"abcdEFGH","offset":9}}}}"#
            )
        );
    }

    #[test]
    fn payload_that_is_not_json_is_given_as_base64() {
        let publications = vec![
            Arc::new(published(2, b"\x00\xff")),
            Arc::new(published(3, b"")),
        ];
        assert_eq!(
            single(ApiAnswer::History {
                publications,
                position: at(3)
            }),
            r#"{"result":{"publications":[{"b64data":"AP8=","offset":2},{"b64data":"","offset":3}],"epoch":"abcdEFGH","offset":3}}"#
        );
    }

    #[test]
    fn channels_are_keyed_by_name() {
        let channels = vec![
            (ChannelName::from_whole("a\"b"), 3),
            (ChannelName::from_whole("c"), 0),
        ];
        assert_eq!(
            single(ApiAnswer::Channels(channels)),
            r#"{"result":{"channels":{"a\"b":{"num_clients":3},"c":{"num_clients":0}}}}"#
        );
    }

    #[test]
    fn info_prints_every_field_that_the_python_service_library_insists_on() {
        let node = NodeInfo {
            uid: "x".into(),
            name: "n".into(),
            num_clients: 0,
            num_users: 1,
            num_channels: 2,
            num_subs: 3,
            uptime_s: 4,
            metrics: vec![("accepted", 5)],
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            single(ApiAnswer::Info(vec![node])),
            format!(
                r#"{{"result":{{"nodes":[{{"uid":"x","name":"n","version":"{version}","num_clients":0,"num_users":1,"num_channels":2,"num_subs":3,"uptime":4,"metrics":{{"interval":4,"items":{{"accepted":5}}}}}}]}}}}"#
            )
        );
    }

    proptest! {
        #[test]
        fn answers_read_back_as_written_and_stand_on_one_line(
            user: String, tag: String, channel: String, offset in 1u64.., id in 1u64.., data: Vec<u8>,
        ) {
            let info = ClientInfo { user: user.as_str().into(), conn_info: Bytes::new(), ..somebody() };
            let publication = Publication {
                info: Some(Arc::new(info)),
                tags: Box::new([(tag.as_str().into(), channel.as_str().into())]),
                data: Bytes::copy_from_slice(&serde_json::to_vec_pretty(&data).unwrap()),
                ..published(offset, b"")
            };
            let line = encoded(
                Ok(ApiAnswer::History { publications: vec![Arc::new(publication)], position: at(offset) }),
                ApiForm::Legacy(Some(id)),
            );
            prop_assert!(!line.contains(['\n', '\r']));
            let item = json!({
                "data": data, "offset": offset, "tags": {tag: channel},
                "info": {"user": user, "client": CLIENT.to_string()},
            });
            let wanted = json!({"id": id, "result": {"publications": [item], "epoch": "abcdEFGH", "offset": offset}});
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), wanted);
        }
    }
}
