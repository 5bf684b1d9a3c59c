//! Addresses that a customer may write down and that must not be called: each row has a name, so that a guard that forgets one
//! says which.

use std::collections::BTreeSet;
use std::sync::Arc;

use afterwrite::clients::webhook::{CallError, Called, Caller};
use afterwrite::testkit::receiver::{Answer, Receiver};

use crate::zone::Zone;
use crate::{call, caller};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What must come of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Refused {
    /// The address is known not to be called.
    Forbidden,
    /// It is no address of http or https.
    NoUrl,
}
use Refused::{Forbidden, NoUrl};

/// (what it tries, the URL, why it is refused). Names are those of [`zone`].
#[rustfmt::skip]
const HOSTILE: &[(&str, &str, Refused)] = &[
    // This machine.
    ("loopback", "http://127.0.0.1/", Forbidden),
    ("loopback elsewhere in its network", "http://127.8.8.8:8080/", Forbidden),
    ("loopback in decimal", "http://2130706433/", Forbidden),
    ("loopback in octal", "http://0177.0.0.1/", Forbidden),
    ("loopback in octal with zeros", "http://00000177.0.0.01/", Forbidden),
    ("loopback in hex", "http://0x7f000001/", Forbidden),
    ("loopback in hex parts", "http://0x7f.0x0.0x0.0x1/", Forbidden),
    ("loopback in mixed parts", "http://0x7f.1/", Forbidden),
    ("loopback in two parts", "http://127.1/", Forbidden),
    ("loopback with a trailing dot", "http://127.0.0.1./", Forbidden),
    ("loopback in percent escapes", "http://%31%32%37.0.0.1/", Forbidden),
    ("loopback in full-width digits", "http://１２７.０.０.１/", Forbidden),
    ("loopback in circled digits", "http://①②⑦.⓪.⓪.①/", Forbidden),
    ("loopback with ideographic dots", "http://127。0。0。1/", Forbidden),
    ("loopback behind a tab", "http://127.0.\t0.1/", Forbidden),
    ("loopback behind blanks", "  http://127.0.0.1/", Forbidden),
    ("loopback over many slashes", "http:////127.0.0.1/", Forbidden),
    ("loopback over a backslash", "http:\\\\127.0.0.1\\", Forbidden),
    ("loopback over https", "https://127.0.0.1/", Forbidden),
    ("loopback in capitals of the scheme", "HTTP://127.0.0.1/", Forbidden),
    ("loopback in IPv6", "http://[::1]/", Forbidden),
    ("loopback in IPv6 written out", "http://[0000:0000:0000:0000:0000:0000:0000:0001]/", Forbidden),
    ("a database on this machine", "http://127.0.0.1:5432/", Forbidden),
    ("a shell on this machine", "http://127.0.0.1:22/", Forbidden),
    ("this machine's own name", "http://localhost/", Forbidden),
    ("this machine's own name with a dot", "http://localhost./", Forbidden),
    ("this machine's own name in capitals", "http://LOCALHOST:6379/", Forbidden),
    ("a name under localhost", "http://hook.localhost/", Forbidden),
    ("this network", "http://0.0.0.0/", Forbidden),
    ("this network in short", "http://0/", Forbidden),
    ("elsewhere in this network", "http://0.1.2.3/", Forbidden),
    ("nothing in IPv6", "http://[::]/", Forbidden),
    // Inside the house.
    ("private, ten", "http://10.0.0.1/", Forbidden),
    ("private, 172.16", "http://172.16.0.1/", Forbidden),
    ("private, the end of 172.16/12", "http://172.31.255.255/", Forbidden),
    ("private, 192.168", "http://192.168.1.1/", Forbidden),
    ("private, in decimal", "http://3232235777/", Forbidden),
    ("carrier-grade NAT", "http://100.64.0.1/", Forbidden),
    ("the end of carrier-grade NAT", "http://100.127.255.255/", Forbidden),
    ("unique local in IPv6", "http://[fd00::1]/", Forbidden),
    ("the other half of unique local", "http://[fc00::1]/", Forbidden),
    ("site local, which is no more", "http://[fec0::1]/", Forbidden),
    ("link local in IPv6", "http://[fe80::1]/", Forbidden),
    ("link local with a zone", "http://[fe80::1%25eth0]/", NoUrl),
    ("link local with a bare zone", "http://[fe80::1%eth0]/", NoUrl),
    // What clouds tell their machines.
    ("metadata of most clouds", "http://169.254.169.254/latest/meta-data/", Forbidden),
    ("metadata in decimal", "http://2852039166/", Forbidden),
    ("metadata in hex", "http://0xa9fea9fe/", Forbidden),
    ("metadata in octal", "http://0251.0376.0251.0376/", Forbidden),
    ("metadata as IPv4-mapped", "http://[::ffff:169.254.169.254]/", Forbidden),
    ("metadata of Amazon in IPv6", "http://[fd00:ec2::254]/", Forbidden),
    ("credentials of Amazon's containers", "http://169.254.170.2/", Forbidden),
    ("metadata of Alibaba", "http://100.100.100.200/", Forbidden),
    ("metadata of Oracle", "http://192.0.0.192/", Forbidden),
    ("the platform of Azure, which looks public", "http://168.63.129.16/machine?comp=goalstate", Forbidden),
    ("metadata of Google by name", "http://metadata.google.internal/computeMetadata/v1/", Forbidden),
    // One address inside another.
    ("IPv4-mapped loopback", "http://[::ffff:127.0.0.1]/", Forbidden),
    ("IPv4-mapped loopback in hex", "http://[::ffff:7f00:1]/", Forbidden),
    ("IPv4-mapped, although public", "http://[::ffff:93.184.216.34]/", Forbidden),
    ("IPv4-compatible loopback", "http://[::127.0.0.1]/", Forbidden),
    ("IPv4-translated loopback", "http://[::ffff:0:127.0.0.1]/", Forbidden),
    ("NAT64 to loopback", "http://[64:ff9b::7f00:1]/", Forbidden),
    ("NAT64 to metadata", "http://[64:ff9b::169.254.169.254]/", Forbidden),
    ("NAT64 of one's own network", "http://[64:ff9b:1::a00:1]/", Forbidden),
    ("6to4 to loopback", "http://[2002:7f00:1::]/", Forbidden),
    ("6to4 to a private address", "http://[2002:c0a8:101::1]/", Forbidden),
    ("Teredo", "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", Forbidden),
    ("the anycast of 6to4", "http://192.88.99.1/", Forbidden),
    // Nobody's.
    ("multicast", "http://224.0.0.1/", Forbidden),
    ("the end of multicast", "http://239.255.255.250:1900/", Forbidden),
    ("multicast in IPv6", "http://[ff02::1]/", Forbidden),
    ("broadcast", "http://255.255.255.255/", Forbidden),
    ("reserved", "http://240.0.0.1/", Forbidden),
    ("benchmarks", "http://198.18.0.1/", Forbidden),
    ("the second half of benchmarks", "http://198.19.255.254/", Forbidden),
    ("documentation, one", "http://192.0.2.1/", Forbidden),
    ("documentation, two", "http://198.51.100.1/", Forbidden),
    ("documentation, three", "http://203.0.113.1/", Forbidden),
    ("documentation in IPv6", "http://[2001:db8::1]/", Forbidden),
    ("newer documentation in IPv6", "http://[3fff::1]/", Forbidden),
    ("discard in IPv6", "http://[100::1]/", Forbidden),
    ("ORCHID", "http://[2001:20::1]/", Forbidden),
    ("segment routing", "http://[5f00::1]/", Forbidden),
    // Whose host is it?
    ("a public name as user", "http://public.example@127.0.0.1/", Forbidden),
    ("a public name and port as user and password", "http://public.example:80@127.0.0.1/", Forbidden),
    ("two at signs", "http://a@public.example@127.0.0.1/", Forbidden),
    ("an escaped at sign", "http://public.example%40x@127.0.0.1/", Forbidden),
    ("a user before IPv6", "http://public.example@[::1]/", Forbidden),
    // Names.
    ("a name that leads to loopback", "http://loopback.example/", Forbidden),
    ("a name that leads to loopback, with a dot", "http://loopback.example./", Forbidden),
    ("a name that leads to a private address", "http://private.example:8443/", Forbidden),
    ("a name that leads to metadata", "https://metadata.example/", Forbidden),
    ("a name that leads to carrier-grade NAT", "http://cgnat.example/", Forbidden),
    ("a name that leads to unique local", "http://ula.example/", Forbidden),
    ("a name that leads to an IPv4-mapped address", "http://mapped.example/", Forbidden),
    ("a name that leads to NAT64", "http://nat64.example/", Forbidden),
    ("a name that leads to nothing", "http://zero.example/", Forbidden),
    ("a name of which the last address is private", "http://mixed.example/", Forbidden),
    ("a name of which the first address is private", "http://mixed-first.example/", Forbidden),
    ("a name that was public when it was looked at", "http://rebound.example/", Forbidden),
    ("a short name of the cluster", "http://postgres:5432/", Forbidden),
    ("a service of the cluster", "http://kubernetes.default.svc.cluster.local/", Forbidden),
    ("a name in other letters", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", Forbidden),
    ("a socket's path as host", "http://unix:/var/run/docker.sock", Forbidden),
    // No http.
    ("a file", "file:///etc/passwd", NoUrl),
    ("a socket", "unix:///var/run/docker.sock", NoUrl),
    ("a socket over http", "http+unix://%2Fvar%2Frun%2Fdocker.sock/info", NoUrl),
    ("gopher", "gopher://127.0.0.1:6379/_INFO", NoUrl),
    ("ftp", "ftp://127.0.0.1/", NoUrl),
    ("dict", "dict://127.0.0.1:11211/stat", NoUrl),
    ("data", "data:text/plain,hello", NoUrl),
    ("a script", "javascript:alert(1)", NoUrl),
    ("a web socket", "ws://127.0.0.1/", NoUrl),
    ("no scheme", "127.0.0.1/", NoUrl),
    ("no host", "http://", NoUrl),
    ("a port beyond the last", "http://127.0.0.1:65536/", NoUrl),
    ("a port that is a word", "http://127.0.0.1:http/", NoUrl),
    ("a part of an address beyond the last", "http://256.0.0.1/", NoUrl),
    ("a blank in the host", "http://127.0.0.1 .example/", NoUrl),
    ("nothing", "", NoUrl),
];

/// Public, as far as anybody knows; nothing is ever sent there.
const PUBLIC: &str = "93.184.216.34";

fn zone() -> Arc<Zone> {
    let zone = Zone::of(&[
        ("localhost", &[&["127.0.0.1", "::1"]]),
        ("localhost.", &[&["127.0.0.1"]]),
        ("hook.localhost", &[&["::1"]]),
        ("metadata.google.internal", &[&["169.254.169.254"]]),
        ("loopback.example", &[&["127.0.0.1"]]),
        ("loopback.example.", &[&["127.0.0.1"]]),
        ("private.example", &[&["192.168.0.7"]]),
        ("metadata.example", &[&["169.254.169.254"]]),
        ("cgnat.example", &[&["100.64.9.9"]]),
        ("ula.example", &[&["fd12:3456::1"]]),
        ("mapped.example", &[&["::ffff:10.0.0.1"]]),
        ("nat64.example", &[&["64:ff9b::a00:1"]]),
        ("zero.example", &[&["0.0.0.0"]]),
        ("mixed.example", &[&[PUBLIC, "2606:2800:220:1::1", "10.0.0.1"]]),
        ("mixed-first.example", &[&["10.0.0.1", PUBLIC]]),
        ("postgres", &[&["172.18.0.2"]]),
        ("kubernetes.default.svc.cluster.local", &[&["10.96.0.1"]]),
        ("unix", &[&["127.0.0.1"]]),
        // Somebody asked it before, to check it.
        ("rebound.example", &[&[PUBLIC], &["127.0.0.1"]]),
    ]);
    Arc::new(zone)
}

fn is_refused_as(called: &Called, refused: Refused) -> bool {
    match refused {
        Forbidden => matches!(called, Called::Impossible(CallError::Forbidden)),
        NoUrl => matches!(called, Called::Impossible(CallError::Url)),
    }
}

#[tokio::test]
async fn no_hostile_address_is_called() {
    let zone = zone();
    let caller = caller(&zone, &[]);
    assert_eq!(
        afterwrite::clients::webhook::Lookup::addresses(&*zone, "rebound.example")
            .await
            .unwrap()
            .len(),
        1
    );
    let mut called = Vec::new();
    for (tries, url, refused) in HOSTILE {
        let answer = caller.call(&call(url, SECRET)).await;
        if !is_refused_as(&answer, *refused) {
            called.push(format!("{tries}: {url:?} came to {answer:?} instead of {refused:?}"));
        }
    }
    assert!(called.is_empty(), "\n{}\n", called.join("\n"));
}

#[test]
fn every_hostile_address_has_a_name_of_its_own_and_there_are_many() {
    let names: BTreeSet<&str> = HOSTILE.iter().map(|(name, ..)| *name).collect();
    let urls: BTreeSet<&str> = HOSTILE.iter().map(|(_, url, _)| *url).collect();
    assert_eq!((names.len(), urls.len()), (HOSTILE.len(), HOSTILE.len()));
    assert!(HOSTILE.len() >= 40, "{}", HOSTILE.len());
}

#[tokio::test]
async fn what_only_looks_hostile_goes_where_it_says() {
    for (url, host) in [
        ("http://127.0.0.1@public.example/", "public.example"),
        ("http://public.example\\@127.0.0.1/", "public.example"),
        ("http://public.example/@127.0.0.1/", "public.example"),
        ("http://public.example#@127.0.0.1/", "public.example"),
        ("http://public.example?@127.0.0.1/", "public.example"),
        ("http://127.0.0.1.nip.example/", "127.0.0.1.nip.example"),
        ("http://PUBLIC.example:8080/", "public.example"),
    ] {
        // The names lead nowhere: what counts is which one was asked for.
        let zone = Arc::new(Zone::default());
        let called = caller(&zone, &[]).call(&call(url, SECRET)).await;
        assert!(
            matches!(called, Called::Failed(CallError::Resolve(_))),
            "{url}: {called:?}"
        );
        assert_eq!(*zone.asked.lock().unwrap(), [host], "{url}");
    }
}

#[tokio::test]
async fn a_name_is_asked_once_a_connection_and_what_it_answered_then_is_what_is_called() {
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    let url = format!("http://rebinding.example:{port}/");
    // Good when it is checked, bad from then on: the moment between check and connection is where rebinding lives.
    let zone = Arc::new(Zone::of(&[("rebinding.example", &[&["127.0.0.1"], &["127.0.0.2"]])]));
    let caller = caller(&zone, &["127.0.0.1/32"]);
    let called = caller.call(&call(&url, SECRET)).await;
    assert!(matches!(called, Called::Delivered(_)), "{called:?}");
    assert_eq!(
        zone.questions(),
        1,
        "the address that was checked is the one that was called"
    );
    let again = caller.call(&call(&url, SECRET)).await;
    assert!(matches!(again, Called::Impossible(CallError::Forbidden)), "{again:?}");
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let elsewhere = Receiver::start().await;
    for code in [301, 302, 303, 307, 308] {
        for location in [
            elsewhere.url("/"),
            "http://169.254.169.254/".to_owned(),
            "//elsewhere.example/".to_owned(),
        ] {
            let receiver = Receiver::start().await;
            receiver.script("/", [Answer::status(code).header("location", &location)]);
            let zone = Arc::new(Zone::default());
            let called = caller(&zone, &["127.0.0.1/32"])
                .call(&call(&receiver.url("/"), SECRET))
                .await;
            assert!(
                matches!(&called, Called::Refused { answer, .. } if answer.code == code),
                "{code} to {location}: {called:?}"
            );
            assert_eq!((receiver.requests().len(), zone.questions()), (1, 0));
        }
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_network_that_is_allowed_opens_nothing_else() {
    let receiver = Receiver::start().await;
    let caller = caller(&zone(), &["127.0.0.1/32"]);
    let called = caller.call(&call(&receiver.url("/"), SECRET)).await;
    assert!(matches!(called, Called::Delivered(_)), "{called:?}");
    let port = receiver.address().port();
    for host in ["127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"] {
        let called = caller.call(&call(&format!("http://{host}:{port}/"), SECRET)).await;
        assert!(is_refused_as(&called, Forbidden), "{host}: {called:?}");
    }
    assert_eq!(receiver.requests().len(), 1);
}
