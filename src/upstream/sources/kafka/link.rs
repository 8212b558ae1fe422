//! A connection to one server of the cluster: one question at a time.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::KAFKA_ANSWER_BYTES_MAX;
use crate::upstream::sources::offer::Fault;
use crate::upstream::sources::{CONNECT_TIME, PATIENCE};

/// Which versions a server knows: the question that every server takes.
const VERSIONS_VERSION: i16 = 0;
const HANDSHAKE_VERSION: i16 = 1;
const AUTHENTICATE_VERSIONS: (i16, i16) = (0, 2);
const MECHANISM: &str = "PLAIN";

/// Who says that he may read.
pub(super) struct Login {
    /// Empty for nobody.
    pub(super) user: String,
    pub(super) password: String,
}

/// See the module.
pub(super) struct Link {
    stream: TcpStream,
    address: String,
    asked: i32,
    versions: BTreeMap<i16, (i16, i16)>,
}

impl Link {
    /// Connects and logs in.
    pub(super) async fn open(address: &str, login: &Login) -> Result<Self, Fault> {
        let opened = timeout(CONNECT_TIME, async {
            let stream = TcpStream::connect(address).await;
            let stream = stream.map_err(|error| away(address, &error))?;
            // Questions are small, and nothing follows them before the answer.
            let _ = stream.set_nodelay(true);
            let mut link = Self {
                stream,
                address: address.to_owned(),
                asked: 0,
                versions: BTreeMap::new(),
            };
            link.learn_versions().await?;
            if !login.user.is_empty() {
                link.log_in(login).await?;
            }
            Ok(link)
        });
        let opened = opened.await;
        opened.unwrap_or_else(|_elapsed| Err(away(address, &"it does not answer")))
    }

    async fn learn_versions(&mut self) -> Result<(), Fault> {
        let request = ApiVersionsRequest::default();
        let answer: ApiVersionsResponse = self
            .ask(ApiKey::ApiVersions, VERSIONS_VERSION, &request)
            .await?;
        named(answer.error_code, || self.address.clone())?;
        let known = answer.api_keys.iter();
        self.versions = known
            .map(|one| (one.api_key, (one.min_version, one.max_version)))
            .collect();
        Ok(())
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), Fault> {
        let mut request = SaslHandshakeRequest::default();
        request.mechanism = StrBytes::from_static_str(MECHANISM);
        let answer: SaslHandshakeResponse = self
            .ask(ApiKey::SaslHandshake, HANDSHAKE_VERSION, &request)
            .await?;
        named(answer.error_code, || {
            format!("{}: logging in with PLAIN", self.address)
        })?;
        let version = self.version(ApiKey::SaslAuthenticate, AUTHENTICATE_VERSIONS)?;
        let mut request = SaslAuthenticateRequest::default();
        request.auth_bytes = Bytes::from(format!("\0{}\0{}", login.user, login.password));
        let answer: SaslAuthenticateResponse = self
            .ask(ApiKey::SaslAuthenticate, version, &request)
            .await?;
        named(answer.error_code, || {
            format!("{}: logging in as {}", self.address, login.user)
        })
    }

    /// The newest version that both sides know.
    pub(super) fn version(&self, key: ApiKey, (least, most): (i16, i16)) -> Result<i16, Fault> {
        let known = self.versions.get(&(key as i16)).copied();
        known
            .map(|(from, to)| (from.max(least), to.min(most)))
            .filter(|(from, to)| from <= to)
            .map(|(_, to)| to)
            .ok_or_else(|| {
                Fault::Unfit(format!(
                    "the Kafka server {} speaks no version of {key:?} from {least} to {most}",
                    self.address
                ))
            })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<Q, A>(
        &mut self,
        key: ApiKey,
        version: i16,
        question: &Q,
    ) -> Result<A, Fault>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.asked = self.asked.wrapping_add(1);
        let mut header = RequestHeader::default();
        header.request_api_key = key as i16;
        header.request_api_version = version;
        header.correlation_id = self.asked;
        header.client_id = Some(StrBytes::from_static_str("ringmain"));
        let mut out = BytesMut::from(&[0; 4][..]);
        let written = header
            .encode(&mut out, Q::header_version(version))
            .and_then(|()| question.encode(&mut out, version));
        written.map_err(|error| self.wrong(&error))?;
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
        let answer = timeout(PATIENCE, self.exchange(&out)).await;
        let answer = answer.map_err(|_elapsed| away(&self.address, &"it does not answer"))?;
        let mut answer = answer.map_err(|error| away(&self.address, &error))?;
        let header = ResponseHeader::decode(&mut answer, A::header_version(version));
        let header = header.map_err(|error| self.wrong(&error))?;
        if header.correlation_id != self.asked {
            return Err(self.wrong(&"an answer to another question"));
        }
        A::decode(&mut answer, version).map_err(|error| self.wrong(&error))
    }

    async fn exchange(&mut self, question: &[u8]) -> std::io::Result<Bytes> {
        self.stream.write_all(question).await?;
        let length = self.stream.read_u32().await? as usize;
        if length > KAFKA_ANSWER_BYTES_MAX {
            let text = format!("an answer of {length} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        Ok(Bytes::from(answer))
    }

    fn wrong(&self, why: &dyn std::fmt::Display) -> Fault {
        away(&self.address, why)
    }
}

fn away(address: &str, why: &dyn std::fmt::Display) -> Fault {
    Fault::Away(format!("the Kafka server {address}: {why}"))
}

/// An error of the protocol by its name.
pub(super) fn named(code: i16, about: impl FnOnce() -> String) -> Result<(), Fault> {
    match kafka_protocol::ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(Fault::Away(format!("{}: {error:?}", about()))),
    }
}
