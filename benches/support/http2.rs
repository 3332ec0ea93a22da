//! Callers over HTTP/2, of as many bytes as it takes: one head, made once, sent again and again on new streams; of responses
//! the status is looked at, and where they end.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::load::{Done, Target, runtime};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// RFC 9113 6
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Bytes of responses that may be on their way; more than one run makes.
const WINDOW: u32 = 0x7fff_ffff - 65_535;

/// `:status: 200` of the static table (RFC 7541 A).
const STATUS_200: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A text as a literal (RFC 7541 5.2), not compressed.
fn literal(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    // an integer with a prefix of seven bits (RFC 7541 5.1)
    let mut rest = text.len();
    bytes.push(u8::try_from(rest.min(127)).unwrap());
    if rest >= 127 {
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// A GET of `path`: method and scheme by the static table, the others as fields that no table keeps.
pub(crate) fn head(path: &str, authorization: Option<&str>) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04];
    block.extend(literal(path));
    block.push(0x01);
    block.extend(literal("localhost"));
    if let Some(value) = authorization {
        // the name is 23 of the static table
        block.extend([0x0f, 23 - 15]);
        block.extend(literal(value));
    }
    block
}

/// Asks for `span` with so many connections, each with so many streams at a time.
pub(crate) fn ask(target: &Target, heads: &[Vec<u8>], connections: usize, streams: usize, span: Duration) -> Done {
    let end = Instant::now() + span;
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..connections {
            let (target, heads) = (target.clone(), heads.to_vec());
            tasks.spawn(async move { one_connection(&target, &heads, number, streams, end).await });
        }
        let mut done = Done::default();
        while let Some(ended) = tasks.join_next().await {
            match ended.unwrap() {
                Ok(one) => {
                    done.answers += one.answers;
                    done.errors += one.errors;
                    done.took.extend(one.took);
                }
                Err(_) => done.errors += streams,
            }
        }
        done
    })
}

async fn one_connection(
    target: &Target,
    heads: &[Vec<u8>],
    number: usize,
    streams: usize,
    end: Instant,
) -> std::io::Result<Done> {
    let mut connection = target.connect().await?;
    let window = frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
    connection.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &window].concat()).await?;
    let (mut done, mut next, mut open) = (Done::default(), 1_u32, 0);
    let mut begun: std::collections::HashMap<u32, Instant> = std::collections::HashMap::new();
    let (mut buffer, mut filled) = (vec![0; 64 * 1024], 0);
    let (mut sending, mut turn) = (Vec::new(), number);
    loop {
        while open < streams && Instant::now() < end {
            sending.extend(frame(HEADERS, END_STREAM | END_HEADERS, next, &heads[turn % heads.len()]));
            begun.insert(next, Instant::now());
            (next, open, turn) = (next + 2, open + 1, turn + 1);
        }
        if !sending.is_empty() {
            connection.write_all(&sending).await?;
            connection.flush().await?;
            sending.clear();
        }
        if open == 0 {
            return Ok(done);
        }
        let count = connection.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        let mut at = 0;
        while let Some(frame_head) = buffer[at..filled].first_chunk::<9>() {
            let &[l2, l1, l0, kind, flags, s3, s2, s1, s0] = frame_head;
            let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
            if filled - at < 9 + length {
                break;
            }
            let (payload, stream) = (&buffer[at + 9..at + 9 + length], u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]));
            at += 9 + length;
            match kind {
                HEADERS => done.errors += usize::from(!says_200(payload)),
                SETTINGS if flags & ACK == 0 => sending.extend(frame(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK == 0 => sending.extend(frame(PING, ACK, 0, payload)),
                GOAWAY => return Err(std::io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
            let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
            if kind == RST_STREAM {
                done.errors += 1;
            }
            if (ends || kind == RST_STREAM)
                && let Some(begun) = begun.remove(&stream)
            {
                open -= 1;
                done.answers += 1;
                done.took.push(begun.elapsed());
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// Of a block of fields, whose first is the status, behind what may be said of the table's size (RFC 7541 6.3).
fn says_200(block: &[u8]) -> bool {
    block.iter().find(|&&byte| byte & 0xe0 != 0x20) == Some(&STATUS_200)
}
