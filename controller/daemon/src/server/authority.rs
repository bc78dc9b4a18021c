//! Which authority has a call on the Unix socket? One that HTTP/2 allows, whatever the client sends.
//!
//! A client of a Unix socket has no host to name, and several name the socket's path instead:
//! grpcio since 1.57 with `%2F` for each slash, grpc-java as it is. Neither is an authority (RFC 3986,
//! section 3.2), so the HTTP/2 library resets such a call before anybody here sees it
//! (<https://github.com/hyperium/h2/pull/487>). This reads the headers of each call on its way from
//! the socket to the library, and writes `localhost` for what is no authority.

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::uri::Authority;
use loona_hpack::Decoder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a call is given that names no host.
const LOCAL: &[u8] = b"localhost";

/// Bytes before a frame's payload (RFC 9113, section 4.1).
const HEAD: usize = 9;
/// The largest payload of a frame, because the server asks for no other (section 4.2).
const LARGEST: usize = 1 << 14;
/// Most bytes of one call's headers, before and after decoding. The server's own bound is below it.
const HEADERS: usize = 64 << 10;
/// Size of the table of headers, because the server asks for no other (section 6.5.2).
const TABLE: usize = 4096;

/// Kinds of frames that have headers (sections 6.2 and 6.10).
const KIND_HEADERS: u8 = 1;
const KIND_CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// A connection whose calls have authorities that HTTP/2 allows. What is written passes as it is.
pub(super) struct Authorities<S> {
    stream: S,
    /// Bytes to come that are not looked at.
    passing: usize,
    /// Bytes of a frame that has headers, or of a head.
    read: Vec<u8>,
    /// What takes their place, and how much of it has been handed on.
    written: Vec<u8>,
    handed: usize,
    /// The headers of a call that go on in another frame.
    block: Option<Block>,
    decoder: Decoder<'static>,
}

/// The headers of a call, as the client has coded them.
struct Block {
    /// Flags and stream of the first frame.
    flags: u8,
    stream: [u8; 4],
    coded: Vec<u8>,
}

impl<S> Authorities<S> {
    /// Looks at each frame after the first bytes of an HTTP/2 client, which are so many.
    pub(super) fn after(preface: usize, stream: S) -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(TABLE);
        Self {
            stream,
            passing: preface,
            read: Vec::new(),
            written: Vec::new(),
            handed: 0,
            block: None,
            decoder,
        }
    }

    /// How many bytes have to be there before [`Self::look`] can go on; 0: it can.
    fn missing(&self) -> usize {
        let wanted = match frame(&self.read) {
            Some((length, kind)) if has_headers(kind) => HEAD + length,
            _ => HEAD,
        };
        wanted.saturating_sub(self.read.len())
    }

    /// Deals with a head, or with a whole frame that has headers.
    fn look(&mut self) -> io::Result<()> {
        let Some((length, kind)) = frame(&self.read) else {
            return Ok(());
        };
        if !has_headers(kind) {
            self.passing = length;
            self.written.append(&mut self.read);
            return Ok(());
        }
        let read = std::mem::take(&mut self.read);
        let (flags, payload) = (read[4], &read[HEAD..]);
        let mut block = match (kind, self.block.take()) {
            (KIND_HEADERS, None) => Block {
                flags,
                stream: [read[5], read[6], read[7], read[8]],
                coded: fragment(flags, payload)
                    .ok_or_else(|| bad("padding"))?
                    .to_vec(),
            },
            (KIND_CONTINUATION, Some(mut block)) if block.stream == read[5..HEAD] => {
                block.coded.extend_from_slice(payload);
                block
            }
            _ => return Err(bad("a frame of headers out of its place")),
        };
        if block.coded.len() > HEADERS {
            return Err(bad("headers that are too long"));
        }
        if flags & END_HEADERS == 0 {
            self.block = Some(block);
            return Ok(());
        }
        block.coded = self.recode(&block.coded)?;
        write(&mut self.written, &block);
        Ok(())
    }

    /// Writes headers anew, without compression.
    fn recode(&mut self, coded: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(coded.len() * 2);
        let mut fits = true;
        let put = |name: Cow<'_, [u8]>, value: Cow<'_, [u8]>| {
            fits &= plain.len() + name.len() + value.len() <= HEADERS;
            if fits {
                // A literal without indexing, with a name of its own (RFC 7541, section 6.2.2).
                plain.push(0);
                text(&mut plain, &name);
                text(&mut plain, allowed(&name, &value));
            }
        };
        self.decoder
            .decode_with_cb(coded, put)
            .map_err(|error| bad(&format!("headers that can't be read: {error}")))?;
        if fits {
            Ok(plain)
        } else {
            Err(bad("headers that are too long"))
        }
    }
}

/// Length and kind of the frame that begins here.
fn frame(read: &[u8]) -> Option<(usize, u8)> {
    let head = read.first_chunk::<HEAD>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    Some((length as usize, head[3]))
}

fn has_headers(kind: u8) -> bool {
    matches!(kind, KIND_HEADERS | KIND_CONTINUATION)
}

/// The headers in the payload of a frame, without padding and priority.
fn fragment(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, others) = rest.split_first()?;
        (padding, rest) = (usize::from(*first), others);
    }
    if flags & PRIORITY != 0 {
        rest = rest.get(5..)?;
    }
    rest.get(..rest.len().checked_sub(padding)?)
}

/// The value of a header, unless it is an authority that HTTP/2 does not allow.
fn allowed<'a>(name: &[u8], value: &'a [u8]) -> &'a [u8] {
    if name == b":authority" && Authority::try_from(value).is_err() {
        LOCAL
    } else {
        value
    }
}

/// Writes a string: its length (RFC 7541, section 5.1) and its bytes.
fn text(plain: &mut Vec<u8>, string: &[u8]) {
    let mut rest = string.len();
    if rest < 127 {
        plain.push(rest as u8);
    } else {
        plain.push(127);
        rest -= 127;
        while rest >= 128 {
            plain.push(rest as u8 | 128);
            rest >>= 7;
        }
        plain.push(rest as u8);
    }
    plain.extend_from_slice(string);
}

/// Writes the frames of a call's headers.
fn write(written: &mut Vec<u8>, block: &Block) {
    let mut kind = KIND_HEADERS;
    let mut flags = block.flags & END_STREAM;
    let mut rest = block.coded.as_slice();
    loop {
        let (now, later) = rest.split_at(rest.len().min(LARGEST));
        if later.is_empty() {
            flags |= END_HEADERS;
        }
        let [_, length @ ..] = (now.len() as u32).to_be_bytes();
        written.extend_from_slice(&length);
        written.extend_from_slice(&[kind, flags]);
        written.extend_from_slice(&block.stream);
        written.extend_from_slice(now);
        if later.is_empty() {
            return;
        }
        (kind, flags, rest) = (KIND_CONTINUATION, 0, later);
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a client sent {what}"))
}

impl<S: AsyncRead + Unpin> AsyncRead for Authorities<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.handed < this.written.len() {
                let rest = &this.written[this.handed..];
                let count = rest.len().min(buffer.remaining());
                buffer.put_slice(&rest[..count]);
                this.handed += count;
                return Poll::Ready(Ok(()));
            }
            this.written.clear();
            this.handed = 0;
            if this.passing > 0 {
                let count = this.passing.min(buffer.remaining());
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(count));
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
                let count = part.filled().len();
                buffer.advance(count);
                this.passing -= count;
                return Poll::Ready(Ok(()));
            }
            let missing = this.missing();
            if missing == 0 {
                this.look()?;
                continue;
            }
            if missing > LARGEST {
                return Poll::Ready(Err(bad("a frame that is too long")));
            }
            let mut bytes = [0; 1024];
            let room = missing.min(bytes.len());
            let mut part = ReadBuf::new(&mut bytes[..room]);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
            if part.filled().is_empty() {
                // The end; what is not a whole frame is nothing that the server could use.
                return Poll::Ready(Ok(()));
            }
            this.read.extend_from_slice(part.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Authorities<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::io::Cursor;

    use loona_hpack::Encoder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PATH: &str = "%2Frun%2Fwardline%2Fapi.sock";

    fn put(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        bytes.extend_from_slice(&[0, (payload.len() >> 8) as u8, payload.len() as u8]);
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        bytes.extend_from_slice(payload);
    }

    fn headers(authority: &str) -> Vec<(&[u8], &[u8])> {
        vec![
            (b":method", b"POST"),
            (b":path", b"/wardline.v1.Segmentation/GetStatus"),
            (b":authority", authority.as_bytes()),
            (b"te", b"trailers"),
        ]
    }

    /// What the server reads of what a client sends, at once or byte by byte.
    async fn read(sent: &[u8]) -> io::Result<Vec<u8>> {
        let mut at_once = Vec::new();
        let mut stream = Authorities::after(PREFACE.len(), Cursor::new(sent.to_vec()));
        stream.read_to_end(&mut at_once).await?;
        let (mut client, near) = duplex(1);
        let bytes = sent.to_vec();
        let writes = tokio::spawn(async move { client.write_all(&bytes).await });
        let mut slowly = Vec::new();
        let mut stream = Authorities::after(PREFACE.len(), near);
        stream.read_to_end(&mut slowly).await?;
        writes.await??;
        assert_eq!(slowly, at_once);
        Ok(at_once)
    }

    /// Names and values.
    type Headers = Vec<(Vec<u8>, Vec<u8>)>;

    /// The headers of the calls in what the server reads, and the other frames.
    fn calls(mut got: &[u8]) -> (Vec<Headers>, Vec<Vec<u8>>) {
        got = got.strip_prefix(PREFACE).unwrap();
        let (mut calls, mut others, mut coded) = (Vec::new(), Vec::new(), Vec::new());
        while let Some((length, kind)) = frame(got) {
            let (now, later) = got.split_at(HEAD + length);
            got = later;
            if has_headers(kind) {
                coded.extend_from_slice(&now[HEAD..]);
                if now[4] & END_HEADERS != 0 {
                    // The library's own decoder has a table that nothing was put into.
                    calls.push(Decoder::new().decode(&coded).unwrap());
                    coded.clear();
                }
            } else {
                others.push(now.to_vec());
            }
        }
        assert!(got.is_empty());
        (calls, others)
    }

    fn owned(headers: &[(&[u8], &[u8])]) -> Headers {
        let owned = |(name, value): &(&[u8], &[u8])| (name.to_vec(), value.to_vec());
        headers.iter().map(owned).collect()
    }

    #[tokio::test]
    async fn a_path_becomes_a_host_and_all_else_stays() {
        let mut encoder = Encoder::new();
        let mut sent = PREFACE.to_vec();
        put(&mut sent, 4, 0, 0, &[]);
        // The second call has what the first has put into the table; the third is padded, has a
        // priority, and comes in two frames.
        for stream in [1, 3] {
            let coded = encoder.encode(headers(PATH));
            put(&mut sent, KIND_HEADERS, END_HEADERS, stream, &coded);
            put(&mut sent, 0, END_STREAM, stream, b"body");
        }
        let coded = encoder.encode(headers("router.example:7443"));
        let (first, rest) = coded.split_at(coded.len() / 2);
        let padded = [&[2, 0, 0, 0, 0, 9], first, &[0, 0]].concat();
        put(&mut sent, KIND_HEADERS, PADDED | PRIORITY, 5, &padded);
        put(&mut sent, KIND_CONTINUATION, END_HEADERS, 5, rest);
        for path in ["/run/wardline/api.sock", ""] {
            let coded = encoder.encode(headers(path));
            put(&mut sent, KIND_HEADERS, END_HEADERS | END_STREAM, 7, &coded);
        }

        let (calls, others) = calls(&read(&sent).await.unwrap());
        let local = owned(&headers("localhost"));
        let named = owned(&headers("router.example:7443"));
        assert_eq!(
            calls,
            [&local, &local, &named, &local, &local].map(Vec::clone)
        );
        let mut bodies = Vec::new();
        put(&mut bodies, 4, 0, 0, &[]);
        put(&mut bodies, 0, END_STREAM, 1, b"body");
        put(&mut bodies, 0, END_STREAM, 3, b"body");
        assert_eq!(others.concat(), bodies);
    }

    #[tokio::test]
    async fn headers_longer_than_a_frame_are_told_apart() {
        let long = "x".repeat(LARGEST + 300);
        let mut all = headers(PATH);
        all.push((b"grpc-metadata", long.as_bytes()));
        let coded = Encoder::new().encode(all);
        let (first, rest) = coded.split_at(LARGEST);
        let mut sent = PREFACE.to_vec();
        put(&mut sent, KIND_HEADERS, END_STREAM, 1, first);
        put(&mut sent, KIND_CONTINUATION, END_HEADERS, 1, rest);
        let (calls, _) = calls(&read(&sent).await.unwrap());
        let mut wanted = headers("localhost");
        wanted.push((b"grpc-metadata", long.as_bytes()));
        assert_eq!(calls, [owned(&wanted)]);
    }

    #[tokio::test]
    async fn what_can_not_be_read_ends_the_connection() {
        // One long entry in the table, then as many references to it as a frame holds.
        let value = "y".repeat(3000);
        let mut bomb = Encoder::new().encode([(b"a".as_slice(), value.as_bytes())]);
        bomb.resize(bomb.len() + 100, 0x80 | 62);
        let cases: [(&str, u8, u8, &[u8]); 5] = [
            ("padding", KIND_HEADERS, END_HEADERS | PADDED, &[9, 0x82]),
            ("out of its place", KIND_CONTINUATION, END_HEADERS, &[0x82]),
            (
                "can't be read",
                KIND_HEADERS,
                END_HEADERS,
                &[0xff, 0xff, 0xff],
            ),
            ("too long", KIND_HEADERS, END_HEADERS, &bomb),
            (
                "can't be read",
                KIND_HEADERS,
                END_HEADERS,
                &[0x3f, 0xe1, 0xff, 0x7f, 0x82],
            ),
        ];
        for (why, kind, flags, payload) in cases {
            let mut sent = PREFACE.to_vec();
            put(&mut sent, kind, flags, 1, payload);
            let error = read(&sent).await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        // A frame that is longer than any that the server asks for.
        let head = [0xff, 0xff, 0xff, KIND_HEADERS, 0, 0, 0, 0, 1];
        let error = read(&[PREFACE, &head].concat()).await.unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
