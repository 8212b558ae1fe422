//! Publishing over the HTTP server API, pipelined on one connection.

/// Appends a publish request.
pub(super) fn publish(host: &str, key: &str, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
    let head = format!("{{\"channel\":\"{channel}\",\"data\":");
    let length = head.len() + payload.len() + 1;
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{head}"
    );
    out.extend_from_slice(request.as_bytes());
    out.extend_from_slice(payload);
    out.push(b'}');
}

/// Reads whole answers: the bytes used and how many answers were refusals.
pub(super) fn answers(bytes: &[u8]) -> (usize, u64) {
    let (mut used, mut refused) = (0, 0);
    while let Some((len, is_fine)) = answer(&bytes[used..]) {
        used += len;
        refused += u64::from(!is_fine);
    }
    (used, refused)
}

fn answer(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).ok()? else {
        return None;
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = length
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .unwrap_or(0);
    let body = bytes.get(head..head.checked_add(length)?)?;
    let is_fine = response.code == Some(200) && memchr::memmem::find(body, b"\"error\":").is_none();
    Some((head + length, is_fine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_announces_the_length_of_its_body() {
        let mut out = Vec::new();
        publish("h", "k", "bench:0", b"{\"b\":1}", &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    #[test]
    fn pipelined_answers_are_counted_whole() {
        let fine = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"result\":{}}";
        let error = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"error\":{\"code\":107}}";
        let denied = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        let text = format!("{fine}{error}{denied}{fine}");
        assert_eq!(answers(text.as_bytes()), (text.len(), 2));
        assert_eq!(
            answers(&text.as_bytes()[..text.len() - 1]),
            (text.len() - fine.len(), 2)
        );
    }
}
