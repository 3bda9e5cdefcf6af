//! The tests' own truth, tested: packets against the moments of the very calls that made them.

use observer_e2e::{
    capture::Capture,
    clock::Mark,
    http::Client,
    raw::{Listener, socket::pause},
    require,
    scratch::Scratch,
    servers::{Server, Stack},
    traffic::{self, Answer},
    truth,
};

/// Each packet of a request and of each token event passed while the call that sent it was under way.
#[test]
fn packets_pass_within_their_calls() {
    require!(tcpdump);
    let (scratch, listener) = (Scratch::new(), Listener::v4());
    let capture = Capture::start(listener.port(), &scratch);
    let mut sent: Vec<(String, Mark, Vec<Mark>, Mark)> = Vec::new();
    let link = listener.link();
    for round in 0..50 {
        let id = format!("truth-{round}");
        let answer = Answer::new(20, 5 + 400 * (round % 3));
        let asked = link.client.send(&traffic::chat(&id));
        let taken = link.server.take();
        assert_eq!(taken.bytes, traffic::chat(&id));
        // The client reads what is sent at once: unacknowledged small packets would soon fill the window and hold back
        // what is written after them.
        let mut received = Vec::new();
        let mut passed = |mark: Mark, count: usize| {
            received.extend(link.client.drain(count));
            mark
        };
        passed(link.server.write(&answer.head), answer.head.len());
        passed(link.server.write(&answer.role), answer.role.len());
        let mut tokens = Vec::new();
        for (index, token) in answer.tokens.iter().enumerate() {
            match index % 4 {
                // An event in two writes passed when its second half did.
                0 => {
                    let (begin, end) = token.split_at(token.len() / 2);
                    passed(link.server.write(begin), begin.len());
                    tokens.push(passed(link.server.write(end), end.len()));
                }
                // Two events in one write.
                1 => tokens.push(passed(link.server.writev(&[token, &answer.tokens[index + 1]]), 2 * token.len())),
                2 => tokens.push(tokens[index - 1]),
                _ => tokens.push(passed(link.server.write(token), token.len())),
            }
        }
        passed(link.server.write(&answer.tail), answer.tail.len());
        passed(link.server.write(&answer.done), answer.done.len());
        let end = passed(link.server.write(&answer.end), answer.end.len());
        assert_eq!(received, answer.bytes());
        sent.push((id, asked, tokens, end));
        pause(2);
    }
    let captured = capture.finish();
    let exchanges = truth::exchanges(&captured.packets, listener.port());
    assert_eq!(exchanges.len(), sent.len());
    println!("clock offset uncertain by {} ns", captured.uncertainty);
    let within = |time: u64, mark: &Mark, what: &str| {
        let time = (time as i64 - captured.offset) as u64;
        let slack = captured.uncertainty;
        Mark { from: mark.from - slack, to: mark.to + slack }.expect(Some(time), what);
    };
    for (exchange, (id, asked, tokens, end)) in exchanges.iter().zip(&sent) {
        assert_eq!(exchange.request_id.as_ref(), Some(id));
        assert_eq!((exchange.status, exchange.output_tokens), (200, Some(40)));
        assert_eq!(exchange.tokens.len(), tokens.len());
        within(exchange.arrive, asked, "arrival");
        exchange.tokens.iter().zip(tokens).for_each(|(time, mark)| within(*time, mark, "token event"));
        within(exchange.end, end, "end");
    }
}

/// The reader follows a real server's answers as its own client does.
#[test]
fn reads_what_a_real_server_sends() {
    require!(tcpdump, python);
    let scratch = Scratch::new();
    for stack in [Stack::Uvloop, Stack::H11] {
        let server = Server::python(stack);
        let capture = Capture::start(server.port(), &scratch);
        let mut client = Client::connect(server.address).expect("it listens");
        for round in 0..20_u64 {
            let request = traffic::sample_chat(&format!("r{round}"), 5 + round, 2, 3 + round);
            let answer = client.ask(&request).expect("an answer");
            assert_eq!(answer.text().matches("data:").count() as u64, 3 + round + 4, "role, stop, usage, [DONE]");
        }
        let captured = capture.finish();
        let exchanges = truth::exchanges(&captured.packets, server.port());
        assert_eq!(exchanges.len(), 20);
        for (round, exchange) in (0_u64..).zip(&exchanges) {
            assert_eq!(exchange.request_id, Some(format!("r{round}")));
            assert_eq!(exchange.client_port, client.local().expect("an address").port());
            assert_eq!(exchange.tokens.len() as u64, 3 + round);
            assert_eq!(exchange.output_tokens, Some(3 + round));
            assert!(exchange.tokens.is_sorted() && exchange.arrive < exchange.header);
            let first = exchange.tokens[0] - exchange.arrive;
            // uvloop's timers count whole milliseconds, from a time that was read before: up to one is missing.
            assert!((4 + round) * 1_000_000 <= first && first < 2_000_000_000, "first token after {first} ns");
        }
    }
}
