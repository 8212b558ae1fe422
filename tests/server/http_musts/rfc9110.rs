//! RFC 9110: methods, statuses and fields, section by section.

use super::Row;

pub(super) const RFC_9110: &[Row] = &[
    // Date
    Row(
        "6.6.1",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["200", "Date: *", "goes on"],
    ),
    Row(
        "6.6.1",
        "GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        &["404", "Date: *", "goes on"],
    ),
    Row(
        "6.6.1",
        "POST /connection/http_stream HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        &["200", "Date: *"],
    ),
    Row(
        "6.6.1",
        "GET / HTTP/1.1\r\n\r\n",
        &["400", "Date: *", "closes"],
    ),
    // Connection
    Row(
        "7.6.1",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n",
        &["200", "Connection: close", "closes"],
    ),
    Row(
        "7.6.1",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n",
        &["200", "closes"],
    ),
    // Upgrade
    Row(
        "7.8",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        &["200", "-Upgrade", "goes on"],
    ),
    Row(
        "7.8",
        "GET /connection/websocket HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "426",
            "Upgrade: websocket",
            "Connection: keep-alive, upgrade",
            "goes on",
        ],
    ),
    Row(
        "7.8",
        "GET /connection/uni_websocket HTTP/1.1\r\nHost: a\r\n\r\n",
        &["426", "Upgrade: websocket", "goes on"],
    ),
    Row(
        "7.8",
        "GET /connection/websocket HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        &["426", "closes"],
    ),
    // Content-Length
    Row(
        "8.6",
        "OPTIONS /emulation HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "204",
            "-Content-Length",
            "-Transfer-Encoding",
            "=",
            "goes on",
        ],
    ),
    Row(
        "8.6",
        "HEAD /connection/init HTTP/1.1\r\nHost: a\r\n\r\n",
        &["200", "Content-Length: 2", "=", "goes on"],
    ),
    // Methods
    Row(
        "9.1",
        "BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["501", "closes"],
    ),
    Row(
        "9.1",
        "get / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["501", "closes"],
    ),
    Row(
        "9.1",
        "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["405", "Allow: GET, HEAD", "goes on"],
    ),
    Row(
        "9.3.2",
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "200",
            "Content-Type: text/html; charset=utf-8",
            "=",
            "goes on",
        ],
    ),
    Row(
        "9.3.2",
        "HEAD /never HTTP/1.1\r\nHost: a\r\n\r\n",
        &["404", "Content-Length: 10", "=", "goes on"],
    ),
    Row(
        "9.3.2",
        "HEAD /emulation HTTP/1.1\r\nHost: a\r\n\r\n",
        &["405", "Allow: POST, OPTIONS", "=", "goes on"],
    ),
    Row(
        "9.3.2",
        "HEAD /connection/poll HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\r\n",
        &["403", "=", "goes on"],
    ),
    Row(
        "9.3.6",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        &["501", "closes"],
    ),
    Row(
        "9.3.7",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "204",
            "Allow: GET, HEAD, POST, OPTIONS",
            "-Content-Length",
            "goes on",
        ],
    ),
    Row(
        "9.3.8",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["405", "Allow: GET, HEAD", "goes on"],
    ),
    // Expect
    Row(
        "10.1.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        &["100"],
    ),
    Row(
        "10.1.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n{}",
        &["200", "goes on"],
    ),
    Row(
        "10.1.1",
        "POST /api/info HTTP/1.0\r\n{key}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        &["200", "closes"],
    ),
    Row(
        "10.1.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Expect: the-worst\r\nContent-Length: 2\r\n\r\n{}",
        &["417", "closes"],
    ),
    // Challenges
    Row(
        "11.6.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        &[
            "401",
            "WWW-Authenticate: ApiKey realm=\"server API\"",
            "goes on",
        ],
    ),
    Row(
        "11.6.1",
        "POST /api HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\nContent-Length: 2\r\n\r\n{}",
        &[
            "401",
            "WWW-Authenticate: ApiKey realm=\"server API\"",
            "goes on",
        ],
    ),
    Row(
        "11.6.1",
        "GET /connection/poll?channel=x&token=x.y.z HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "401",
            "WWW-Authenticate: Bearer realm=\"clients\"",
            "goes on",
        ],
    ),
    // Vary
    Row(
        "12.5.5",
        "GET /connection/init HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "200",
            "Vary: Origin",
            "-Access-Control-Allow-Origin",
            "goes on",
        ],
    ),
    Row(
        "12.5.5",
        "GET /connection/init HTTP/1.1\r\nHost: a\r\nOrigin: https://good.example\r\n\r\n",
        &[
            "200",
            "Vary: Origin",
            "Access-Control-Allow-Origin: https://good.example",
            "goes on",
        ],
    ),
    Row(
        "12.5.5",
        "GET /connection/sse HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\r\n",
        &[
            "403",
            "Vary: Origin",
            "-Access-Control-Allow-Origin",
            "goes on",
        ],
    ),
    // Statuses
    Row(
        "15.5.6",
        "GET /api/info HTTP/1.1\r\nHost: a\r\n\r\n",
        &["405", "Allow: POST", "goes on"],
    ),
    Row(
        "15.5.6",
        "PUT /connection/websocket HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        &["405", "Allow: GET", "goes on"],
    ),
    Row(
        "15.5.6",
        "DELETE /connection/sse HTTP/1.1\r\nHost: a\r\n\r\n",
        &["405", "Allow: GET, POST", "goes on"],
    ),
    Row(
        "15.5.6",
        "GET /connection/http_stream HTTP/1.1\r\nHost: a\r\n\r\n",
        &["405", "Allow: POST, OPTIONS", "goes on"],
    ),
    Row(
        "15.5.6",
        "POST /connection/poll HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        &["405", "Allow: GET, OPTIONS", "goes on"],
    ),
    Row(
        "15.5.6",
        "POST /connection/init HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        &["405", "Allow: GET, HEAD", "goes on"],
    ),
    Row(
        "15.5.14",
        "POST /emulation HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n",
        &["413", "Connection: close", "closes"],
    ),
    Row(
        "15.6.6",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        &["505", "closes"],
    ),
    Row(
        "15.6.6",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &["505", "closes"],
    ),
];
