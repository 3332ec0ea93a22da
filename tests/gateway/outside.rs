//! Clients and servers that others wrote: curl, `PyJWT`, grpcio.

use crate::support::outside::{curl, python, run_python};
use crate::support::{Gateway, HS256, SECRET, USERS, Upstream, get, routes};

#[test]
fn curl_speaks_with_it_in_every_version() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    for (flag, version) in [("--http1.0", "1.0"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let (response, spoken) = curl(&[flag, "--user", "user:userpassword", &gateway.url("/user/x?a=b")]);
        let spoken = if version == "1.0" { "1.0" } else { spoken.as_str() };
        assert_eq!((response.status, response.text().as_str(), spoken), (200, "hello", version));
        assert_eq!(upstream.last().target, "/user/x?a=b");
        let (response, _) = curl(&[flag, &gateway.url("/user/x")]);
        assert_eq!(response.status, 401, "{flag}");
        assert_eq!(response.all("www-authenticate").len(), 3, "{flag}");
    }
    let (response, _) = curl(&["--http2-prior-knowledge", "--data-binary", "some body", &gateway.url("/open/x")]);
    assert_eq!((response.status, upstream.last().body.as_slice()), (200, &b"some body"[..]));
    // cookies come in several fields over HTTP/2, and leave as one
    curl(&["--http2-prior-knowledge", "--cookie", "a=1; b=2", &gateway.url("/open/x")]);
    assert_eq!(upstream.last().all("Cookie"), ["a=1; b=2"]);
}

#[test]
fn curl_reads_the_refusal_of_an_upload_over_http2() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    for bytes in [1_000, 10_000, 200_000] {
        std::fs::write(&file, vec![b'x'; bytes]).unwrap();
        let body = format!("@{}", file.display());
        for turn in 0..5 {
            let (response, _) = curl(&["--http2-prior-knowledge", "--data-binary", &body, &gateway.url("/user/x")]);
            assert_eq!(response.status, 401, "{bytes} bytes, turn {turn}");
            assert!(response.text().contains("missing_credentials"));
        }
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn pyjwt_verifies_our_tokens_by_our_published_keys() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{}", routes(&upstream)));
    let keys = gateway.send(&get("/.well-known/jwks.json")).expect(200).text();
    let said = run_python(
        "
import json, sys, jwt
token, keys = sys.argv[1], {k['kid']: jwt.PyJWK(k) for k in json.loads(sys.argv[2])['keys']}
key = keys[jwt.get_unverified_header(token)['kid']]
claims = jwt.decode(token, key, algorithms=['EdDSA'], issuer='portcullis', options={'require': ['exp', 'iat', 'iss', 'sub']})
print(claims['sub'])
",
        &[&gateway.access("user"), &keys],
    );
    assert_eq!(said, "user");
}

#[test]
fn we_verify_pyjwts_tokens() {
    let upstream = Upstream::hello();
    let gateway = Gateway::start(&format!("{USERS}{HS256}{}", routes(&upstream)));
    let make = |change: &str| {
        run_python(
            &format!(
                "
import sys, time, jwt
claims = {{'iss': 'portcullis', 'sub': 'user', 'iat': int(time.time()), 'exp': int(time.time()) + 60}}
{change}
print(jwt.encode(claims, sys.argv[1], algorithm='HS256'))
"
            ),
            &[SECRET],
        )
    };
    gateway.send(&get("/user/x").bearer(&make(""))).expect(200);
    gateway.send(&get("/user/x").bearer(&make("claims['exp'] -= 600"))).refused(401, "invalid_token");
    gateway.send(&get("/user/x").bearer(&make("claims['sub'] = 'ghost'"))).refused(401, "invalid_token");
}

/// A server of gRPC that answers what it was asked, with metadata; its port is the first line that it prints.
const GRPC_SERVER: &str = "
import sys, grpc
from concurrent import futures
def who(context):
    return dict(context.invocation_metadata()).get('x-auth-user', '-')
def say(request, context):
    context.set_trailing_metadata((('x-sum', '7'),))
    return request + b' ' + who(context).encode()
def count(request, context):
    for n in range(int(request)):
        yield str(n).encode()
def add(requests, context):
    return str(sum(int(r) for r in requests)).encode()
def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'not now, \\u00e9')
methods = {'Say': grpc.unary_unary_rpc_method_handler(say), 'Count': grpc.unary_stream_rpc_method_handler(count),
           'Add': grpc.stream_unary_rpc_method_handler(add), 'Fail': grpc.unary_unary_rpc_method_handler(fail)}
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('echo.Echo', methods),))
print(server.add_insecure_port('127.0.0.1:0'), flush=True)
server.start()
sys.stdin.read()
";

const GRPC_CLIENT: &str = "
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1], options=[('grpc.enable_http_proxy', 0)])
meta = (('authorization', sys.argv[2]),)
say = channel.unary_unary('/echo.Echo/Say')
answer, call = say.with_call(b'hello', metadata=meta, timeout=20)
print(answer.decode(), dict(call.trailing_metadata()).get('x-sum'))
print([n.decode() for n in channel.unary_stream('/echo.Echo/Count')(b'3', metadata=meta, timeout=20)])
print(channel.stream_unary('/echo.Echo/Add')(iter([b'1', b'2', b'39']), metadata=meta, timeout=20).decode())
for method, m in (('Fail', meta), ('Say', ()), ('Say', (('authorization', sys.argv[3]),))):
    try:
        channel.unary_unary('/echo.Echo/' + method)(b'x', metadata=m, timeout=20)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
";

#[test]
fn grpc_passes_and_its_refusals_are_grpcs() {
    use std::io::{BufRead, BufReader};
    let mut server = python()
        .args(["-c", GRPC_SERVER])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let gateway = Gateway::start(&format!(
        "{USERS}
upstreams: {{ api: {{ servers: ['h2c://127.0.0.1:{}'] }} }}
routes: [{{ path: /echo.Echo/**, allow: [user], to: api }}]
",
        line.trim()
    ));
    let basic = crate::support::client::basic;
    let said = run_python(
        GRPC_CLIENT,
        &[&gateway.address().to_string(), &basic("user", "userpassword"), &basic("guest", "guestpassword")],
    );
    drop(server.stdin.take());
    server.wait().unwrap();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "hello user 7",
            "['0', '1', '2']",
            "42",
            "FAILED_PRECONDITION not now, \u{e9}",
            "UNAUTHENTICATED Authorization header is missing",
            "PERMISSION_DENIED Access forbidden: Insufficient permissions",
        ]
    );
}
