//! `docs`: Swagger UI on the document of `openapi`, whole from the binary.
//!
//! A page runs on the origin of the API that it documents, so what it may do is stated narrowly: scripts and styles from
//! here and nowhere else, none inline, requests to this origin alone, no frame around it. Nothing of the configuration is
//! in the page but the last segment of its own path, and nothing of a request.

use bytes::Bytes;

use super::file::{File, Kept};
use super::openapi;

/// What the page may do. Swagger UI has its images in its style sheet as `data:`; it sets styles by script, which needs no
/// permission (CSP3 8.1).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const BUNDLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui-bundle.js.gz");
const STYLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui.css.gz");
const START: &[u8] = include_bytes!("../../assets/start.js");

/// The page at `path`, and what it loads, each with its own path.
pub fn files(path: &str, document: &Bytes) -> Vec<(Box<str>, File)> {
    let bundle = File::packed("text/javascript", Kept::ForGood, BUNDLE);
    let style = File::packed("text/css", Kept::ForGood, STYLE);
    let start = File::plain("text/javascript", Kept::ForGood, Bytes::from_static(START));
    let bundle_name = format!("swagger-ui-bundle.{}.js", bundle.digest());
    let style_name = format!("swagger-ui.{}.css", style.digest());
    let start_name = format!("start.{}.js", start.digest());
    let inside = if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
    let page = page(path, [&bundle_name, &style_name, &start_name]);
    let page = File::plain("text/html; charset=utf-8", Kept::WhileSame, page.into()).under(POLICY);
    [
        (path.to_owned(), page),
        (format!("{inside}openapi.json"), openapi::file(document)),
        (format!("{inside}{bundle_name}"), bundle),
        (format!("{inside}{style_name}"), style),
        (format!("{inside}{start_name}"), start),
    ]
    .map(|(path, file)| (path.into(), file))
    .into()
}

/// The page at `path` that loads these, which stand below it.
fn page(path: &str, [bundle, style, start]: [&str; 3]) -> String {
    // relative, so that the page also works behind a proxy that has put it under a prefix
    let folder = match path.rsplit('/').next().unwrap_or_default() {
        "" => String::new(),
        last => format!("{}/", escaped(last)),
    };
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="./{folder}{style}">
<script src="./{folder}{bundle}"></script>
<script src="./{folder}{start}"></script>
<body>
<div id="swagger-ui"></div>
</html>
"#
    )
}

/// A segment of a path inside an attribute of HTML.
fn escaped(segment: &str) -> String {
    segment.replace('&', "&amp;").replace('\'', "&#39;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    #[test]
    fn what_is_vendored_is_what_the_package_has() {
        let listed = include_str!("../../assets/swagger-ui/README.md");
        for (name, packed) in [("swagger-ui-bundle.js", BUNDLE), ("swagger-ui.css", STYLE)] {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
            let digest = digest(&SHA256, &plain);
            let line = listed.lines().find(|line| line.ends_with(&format!("  {name}"))).unwrap();
            let expected = line.trim().split(' ').next().unwrap();
            let written: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(written.concat(), expected, "{name}");
        }
    }

    #[test]
    fn parts_stand_below_the_page_and_are_named_from_it() {
        for (path, below, link) in
            [("/auth/docs", "/auth/docs/", "./docs/"), ("/help/", "/help/", "./"), ("/d's", "/d's/", "./d&#39;s/")]
        {
            let files = files(path, &Bytes::from_static(b"{}"));
            assert_eq!(&*files[0].0, path);
            assert!(files[1..].iter().all(|(part, _)| part.starts_with(below) && !part.contains("//")), "{path}");
            let page = page(path, [&files[2].0, &files[3].0, &files[4].0].map(|part| part.rsplit('/').next().unwrap()));
            assert_eq!(page.matches(&format!("=\"{link}s")).count(), 3, "{page}");
        }
    }

    #[test]
    fn no_path_leaves_its_attribute() {
        assert_eq!(escaped("it's&\"<b>"), "it&#39;s&amp;&quot;&lt;b>");
    }
}
