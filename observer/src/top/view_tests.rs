//! Whole screens, drawn on a terminal of ratatui's that remembers.

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use super::{
    FetchError,
    screen::{Screen, Theme},
    view,
};
use crate::export::summary::{Heatmap, ObserverSummary, Quantiles, ServerSummary, Summary};

fn server(workload: &str, model: &str, outcomes: &[(&str, u64)]) -> ServerSummary {
    ServerSummary {
        workload: workload.into(),
        server_port: workload.rsplit(':').next().unwrap().into(),
        model: model.into(),
        requests_per_second: 12.34,
        in_flight: 34,
        ttft: Quantiles { p50: Some(0.142), p95: Some(0.61), p99: Some(1.93), count: 740 },
        inter_chunk: Quantiles { p50: Some(0.0213), p95: Some(0.0341), p99: None, count: 9000 },
        output_tokens_per_second: Some(2260.0),
        token_events_per_second: 2300.0,
        outcomes: outcomes.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect(),
    }
}

fn summary(servers: Vec<ServerSummary>) -> Summary {
    let columns = (0..12).map(|at| vec![0, 5, u64::from(at == 9)]).collect();
    Summary {
        version: "0.1.0".into(),
        uptime_seconds: 11_520.0,
        window_seconds: 60.0,
        servers,
        ttft_heatmap: Heatmap { bounds: vec![0.1, 0.25], column_seconds: 10.0, columns },
        observer: ObserverSummary {
            events_per_second: 9342.0,
            connections: 57,
            cpu_ratio: 0.0113,
            resident_bytes: 38_123_456,
            probes: vec!["a".into(), "b".into()],
            scope: "ports 8000, 8001".into(),
            ..ObserverSummary::default()
        },
    }
}

fn screen(summary: Summary, colour: bool) -> Screen {
    Screen::new(summary, "http://h:9478".into(), Duration::from_secs(1), Theme::new(colour), Instant::now())
}

fn draw(screen: &Screen, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(screen, frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

fn rows(buffer: &Buffer) -> Vec<String> {
    let row = |cells: &[Cell]| cells.iter().map(Cell::symbol).collect::<String>().trim_end().to_owned();
    buffer.content().chunks(usize::from(buffer.area.width)).map(row).collect()
}

fn text(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    rows(&draw(screen, width, height))
}

/// The first cell of `what`.
fn cell<'a>(buffer: &'a Buffer, what: &str) -> &'a Cell {
    for (y, row) in (0..).zip(rows(buffer)) {
        if let Some(at) = row.find(what) {
            return &buffer[(u16::try_from(row[..at].chars().count()).unwrap(), y)];
        }
    }
    panic!("no {what:?} in {:#?}", rows(buffer));
}

#[test]
fn one_server_on_a_wide_terminal() {
    let outcomes = [
        ("ok", 48_211),
        ("http_error", 3),
        ("error_in_stream", 1),
        ("cancelled", 112),
        ("truncated", 5),
        ("incomplete", 2),
    ];
    let screen = screen(summary(vec![server("vllm:8000", "meta-llama/Llama-3.3-70B", &outcomes)]), false);
    assert_eq!(
        text(&screen, 150, 20),
        [
            "observer 0.1.0 · up 3h12m · ports 8000, 8001",
            "9.34k events/s · lost 0 · CPU 1.1% · RSS 36.4 MiB · 2 probes · 57 connections",
            "",
            "                                      req     in  time to first token ── between chunks ── tokens ────── requests since start ───────",
            "server    model                        /s flight    p50    p95    p99    p50    p95    p99     /s     ok  error cancel  trunc incompl",
            "vllm:8000 meta-llama/Llama-3.3-70B   12.3     34  142ms  610ms  1.93s 21.3ms 34.1ms      -  2.26k  48211      4    112      5       2",
            "",
            "Time to first token, all servers, last 2m   requests per 10s: ▒ 1+  ▓ 2+  █ 3+",
            " >250ms │                                    ▒▒▒▒",
            " ≤250ms │████████████████████████████████████████████████",
            "         -2m                                          now",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "q quit   p pause   s sort: busiest   ↑↓ scroll                                                            rates and quantiles: last 1m · http://h:9478",
        ]
    );
}

#[test]
fn a_narrow_terminal_keeps_what_tells_most() {
    let ok = screen(summary(vec![server("vllm:8000", "meta-llama/Llama-3.3-70B", &[("ok", 9)])]), false);
    let text_of_ok = text(&ok, 60, 20);
    assert_eq!(
        text_of_ok[3..6],
        [
            "                             req     in ─── TTFT ──── chunks",
            "server    model               /s flight    p50    p99    p50",
            "vllm:8000 Llama-3.3-70B     12.3     34  142ms  1.93s 21.3ms",
        ]
        .map(str::to_owned)
    );
    // Failures take the room of something else.
    let bad = screen(summary(vec![server("vllm:8000", "m", &[("http_error", 3), ("truncated", 5)])]), false);
    assert_eq!(
        text(&bad, 40, 20)[3..6],
        [
            "             req ─── TTFT ────  total",
            "server        /s    p50    p99 failed",
            "vllm:8000   12.3  142ms  1.93s      8",
        ]
        .map(str::to_owned)
    );
}

#[test]
fn nothing_seen_yet() {
    let text = text(&screen(summary(Vec::new()), true), 80, 24);
    assert_eq!(
        text[2..6],
        [
            "",
            "No LLM request seen yet.",
            "A request to a server in scope (ports 8000, 8001) shows up here when it ends.",
            "",
        ]
        .map(str::to_owned)
    );
    assert!(text[5..23].iter().all(String::is_empty), "{text:#?}");
}

#[test]
fn many_servers_scroll_and_leave_room_for_the_heatmap() {
    let servers = (0..40).map(|at| server(&format!("w{at}:{}", 8000 + at), "m", &[])).collect();
    let mut screen = screen(summary(servers), false);
    let top = text(&screen, 100, 30);
    assert!(top[5].starts_with("w0:8000 ") && top[21].starts_with("w16:8016 "), "{top:#?}");
    assert_eq!(top[22], "23 more below (↓)");
    assert!(top[24].starts_with("Time to first token"), "{top:#?}");
    screen.key(KeyEvent::from(KeyCode::PageDown));
    let middle = text(&screen, 100, 30);
    assert!(middle[5].starts_with("w10:8010 "), "{middle:#?}");
    assert_eq!(middle[22], "10 more above (↑), 13 below (↓)");
    screen.offset = 39;
    let end = text(&screen, 100, 30);
    assert!(end[21].starts_with("w39:8039 "), "the last page is full: {end:#?}");
    assert_eq!(end[22], "23 more above (↑)");
}

#[test]
fn models_of_one_port_share_what_is_in_flight() {
    let servers = vec![server("a:1", "x", &[]), server("a:1", "y", &[]), server("b:2", "x", &[])];
    let text = text(&screen(summary(servers), false), 100, 20);
    let in_flight: Vec<_> = text[5..8].iter().map(|row| row.split_whitespace().nth(3).unwrap()).collect();
    assert_eq!(in_flight, ["34", "″", "34"]);
}

#[test]
fn tokens_are_marked_where_they_are_chunks() {
    let mut chunks = server("a:1", "x", &[]);
    chunks.output_tokens_per_second = None;
    let mut silent = server("b:2", "x", &[]);
    (silent.output_tokens_per_second, silent.token_events_per_second) = (None, 0.0);
    let text = text(&screen(summary(vec![chunks, silent]), false), 160, 20);
    assert!(text[5].contains(" ~2.30k ") && text[6].contains("      -      0 "), "{text:#?}");
    assert!(text[19].contains("~ counts chunks: the server reports no usage"), "{text:#?}");
}

#[test]
fn losses_are_told_by_reason_and_stand_out_only_when_there_are_any() {
    for colour in [false, true] {
        let mut lossy =
            summary(vec![server("a:1", "x", &[("incomplete", 77)]), server("b:2", "x", &[("incomplete", 0)])]);
        let calm = draw(&screen(summary(vec![server("a:1", "x", &[("ok", 5)])]), colour), 150, 24);
        lossy.observer.lost = [("recursion".into(), 3), ("ring_full".into(), 412), ("other".into(), 0)].into();
        lossy.observer.incomplete = [("token_gap".into(), 77)].into();
        lossy.observer.opaque = [("tls".into(), 3)].into();
        let lossy = draw(&screen(lossy, colour), 150, 24);
        assert_eq!(
            rows(&lossy)[2..5],
            [
                "415 events lost: ring_full 412, recursion 3",
                "77 incomplete requests: token_gap 77",
                "3 opaque connections: tls 3"
            ]
            .map(str::to_owned)
        );
        let loud =
            |cell: &Cell| if colour { cell.fg == Color::LightRed } else { cell.modifier.contains(Modifier::REVERSED) };
        for what in ["lost 415", "415 events", "77 incomplete"] {
            assert!(loud(cell(&lossy, what)), "{what}, colour: {colour}");
        }
        assert!(!loud(cell(&lossy, "3 opaque")), "nothing is lost by what cannot be read");
        let last_column = |server: &str| {
            let (y, row) = (0..).zip(rows(&lossy)).find(|(_, row)| row.starts_with(server)).unwrap();
            loud(&lossy[(u16::try_from(row.chars().count()).unwrap() - 1, y)])
        };
        assert_eq!((last_column("a:1"), last_column("b:2")), (true, false), "colour: {colour}");
        assert!(!loud(cell(&calm, "lost 0")));
        assert!(calm.content().iter().all(|cell| cell.fg != Color::LightRed));
        assert!(calm.content().iter().all(|cell| colour || (cell.fg == Color::Reset && cell.bg == Color::Reset)));
    }
}

#[test]
fn silence_and_pause_are_said_and_the_data_stays() {
    let mut screen = screen(summary(vec![server("vllm:8000", "m", &[])]), false);
    screen.key(KeyEvent::from(KeyCode::Char('p')));
    let paused = text(&screen, 100, 24).swap_remove(0);
    assert!(paused.contains("ports 8000, 8001  ") && paused.ends_with(" paused"), "{paused}");
    let refused = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
    let now = Instant::now();
    screen.answer(Err(FetchError::Io(refused)), now);
    screen.tick(now + Duration::from_secs(3));
    let silent = text(&screen, 100, 24);
    assert!(silent[0].ends_with(" paused · no answer for 3s (connection refused)"), "{silent:#?}");
    assert!(silent[5].starts_with("vllm:8000 "), "{silent:#?}");
    assert!(silent[23].contains("p go on"), "{silent:#?}");
    // Where there is little room, it is the scope that goes.
    assert_eq!(text(&screen, 48, 24)[0], "  paused · no answer for 3s (connection refused)");
}

#[test]
fn any_size_can_be_drawn() {
    let mut bad =
        summary((0..7).map(|at| server(&format!("工作:{at}"), "模型/模型-7B", &[("truncated", 1)])).collect());
    bad.observer.lost = [("ring_full".into(), 1)].into();
    let mut screen = screen(bad, true);
    screen.offset = 3;
    for width in 1..90 {
        for height in 1..32 {
            draw(&screen, width, height);
        }
    }
    assert!(text(&screen, 20, 4)[0].starts_with("observer 0.1.0"));
}

#[test]
fn a_model_cannot_write_to_the_terminal() {
    let screen = screen(summary(vec![server("a:1", "x\x1b[2Jy\n", &[])]), false);
    let drawn = text(&screen, 100, 20);
    assert!(drawn[5].contains("x\u{fffd}[2Jy\u{fffd} "), "{drawn:#?}");
}
