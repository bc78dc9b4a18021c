//! The metrics: current numbers, over plain HTTP.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use wardline_tests::eventually;

use super::{PATIENCE, POLICY, Ward};

/// Sends an HTTP request to the router's metrics port, and returns the whole answer.
fn scrape(ward: &Ward, request: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect("127.0.0.1:9643").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        // A refused client gets no answer.
        let _ = stream.read_to_string(&mut text);
        text
    };
    ward.lab.router().run(ask).unwrap()
}

#[test]
fn metrics_are_the_numbers_of_this_moment() {
    let ward = Ward::new("metrics");
    ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    assert_eq!(
        ward.ctl
            .apply("version: 1\nrules: [{name: r}]\n")
            .unwrap()
            .code,
        4
    );
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let text = scrape(&ward, request);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for line in [
        "wardline_router{router=\"lab-router\",version=\"0.1.0\"} 1",
        "wardline_revision 1",
        "wardline_calls_total{call=\"Apply\",outcome=\"ok\"} 1",
        "wardline_calls_total{call=\"Apply\",outcome=\"invalid_argument\"} 1",
        "wardline_packets_total{reason=\"no_rule\",verdict=\"drop\"} 0",
        "wardline_events_lost_total 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
    assert!(text.contains("wardline_table_size{table="), "{text}");
    assert!(
        text.contains("wardline_certificate_left_seconds "),
        "{text}"
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let text = scrape(&ward, request);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
    }
    // Silent clients are closed, and then others are served.
    let silent: Vec<TcpStream> = ward
        .lab
        .router()
        .run(|| {
            (0..40)
                .map(|_| TcpStream::connect("127.0.0.1:9643").unwrap())
                .collect()
        })
        .unwrap();
    let told = eventually(3 * PATIENCE, || {
        scrape(&ward, request).starts_with("HTTP/1.1 200")
    });
    assert!(told);
    drop(silent);
    ward.close();
}
