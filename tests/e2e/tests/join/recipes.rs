//! The recipes of docs/gpu.md, on a real Prometheus that scrapes a running observer, against values worked out by hand.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use observer_e2e::{
    http::Client,
    observer::Observer,
    prometheus::{Found, Prometheus},
    require,
    scratch::Scratch,
    servers::Server,
    traffic,
    wait::{self, SOON},
};
use sample_llm::load::Line;

use crate::host::{Load, Tree, driver, observe, set, tokens, within_1_percent};

/// What the recipes look back at, in place of five minutes; all of the load lies within.
const WINDOW: f64 = 30.0;
/// Steps of a second.
const STEPS: u64 = 20;
/// What each GPU spends in a step, in joules. The tree has the first two, the sample server the third.
const JOULES: [u64; 3] = [400, 200, 90];
/// How long the first GPU is held down in a step, in milliseconds.
const HELD: u64 = 150;
/// Upper bounds of times to first token, around those that are asked for.
const BOUNDS: [f64; 6] = [0.15, 0.25, 0.35, 0.5, 0.75, 1.0];

/// Expressions by their titles.
fn recipes() -> BTreeMap<String, String> {
    let text = fs::read_to_string(require::workspace().join("docs/gpu.md")).expect("the document");
    let recipes = text.split("\n## ").find(|section| section.starts_with("Recipes\n")).expect("the section");
    let recipe = |part: &str| {
        let (title, rest) = part.split_once('\n').expect("lines");
        let expression = rest.split_once("```promql\n").and_then(|(_, rest)| rest.split_once("```")).expect("a query");
        (title.to_owned(), expression.0.to_owned())
    };
    recipes.split("\n### ").skip(1).map(recipe).collect()
}

fn ask(server: &Server, id: &str, model: &str) {
    let mut body = traffic::sample_body(true, 260, 0, 1);
    body["model"] = model.into();
    let request = traffic::post("/v1/chat/completions", id, "", &body.to_string());
    let mut client = Client::connect(server.address).expect("it listens");
    assert_eq!(client.ask(&request).expect("an answer").status, 200);
}

/// The quantile as Prometheus works it out: by the bucket that it falls into, as if all lay evenly within.
fn quantile(q: f64, lines: &[Line]) -> f64 {
    let mut times: Vec<f64> = lines.iter().map(|line| line.ttft_ns.expect("streamed") as f64 / 1e9).collect();
    times.sort_by(f64::total_cmp);
    let rank = q * times.len() as f64;
    let below = |bound: f64| times.iter().filter(|time| **time <= bound).count() as f64;
    let bucket = BOUNDS.windows(2).find(|bounds| below(bounds[1]) >= rank).expect("none took longer");
    bucket[0] + (bucket[1] - bucket[0]) * (rank - below(bucket[0])) / (below(bucket[1]) - below(bucket[0]))
}

/// From the first request's begin to the last one's end, in seconds.
fn duration(lines: &[Line]) -> f64 {
    let begun = lines.iter().map(|line| line.start_ns).min().expect("requests");
    let ended = lines.iter().map(|line| line.start_ns + line.total_ns).max().expect("requests");
    (ended - begun) as f64 / 1e9
}

/// The value of each row, by this label.
fn by(found: Vec<Found>, label: &str) -> BTreeMap<String, f64> {
    let count = found.len();
    let rows: BTreeMap<_, _> = found.into_iter().map(|found| (found.labels[label].clone(), found.value)).collect();
    assert_eq!(rows.len(), count, "one row each");
    rows
}

fn name(observer: &Observer, id: &str) -> String {
    observer.line(id).workload
}

#[test]
fn recipes_yield_what_was_worked_out_by_hand() {
    require!(kernel, python, sample, prometheus);
    let (tree, other, scratch) = (Tree::start(), Server::sample(&[]), Scratch::new());
    let mut fake = driver(&scratch, &tree);
    let memory = |gpu: u64, used: u64| {
        [(format!("gpu{gpu}.mem_total"), 80_000_000_000_u64), (format!("gpu{gpu}.mem_used"), used * 1_000_000_000)]
    };
    let memory: Vec<_> = [memory(0, 40), memory(1, 70), memory(2, 5)].into_iter().flatten().collect();
    for (key, value) in memory {
        fake.set(&[(&key, &value.to_string())]).expect("a state");
    }
    let process = format!("{}:5000000000", other.process.pid());
    let busy = [("gpu0.util", "85"), ("gpu1.util", "80"), ("gpu2.procs", &process), ("gpu0.violation0_ns", "7")];
    fake.set(&busy).expect("a state");
    let observer = observe(&fake, &[tree.server.port(), other.port()]);
    ask(&tree.server, "large", "large");
    ask(&other, "small", "small");
    wait::until("the workloads' GPUs", SOON, || {
        (observer.metrics().select("llm_workload_gpu_info", &[]).len() == 3).then_some(())
    });
    let (of_tree, of_other) = (name(&observer, "large"), name(&observer, "small"));

    let prometheus = Prometheus::scraping(observer.address());
    let has = |expression: &str, count: f64| prometheus.value(&format!("count({expression})")) == Some(count);
    wait::until("Prometheus to have seen both, twice", SOON, || {
        let both =
            has("llm_workload_energy_joules_total", 2.0) && has("llm_tokens_total{gen_ai_token_type='output'}", 2.0);
        (both && prometheus.value("min(count_over_time(llm_tokens_total[1m]))") >= Some(2.0)).then_some(())
    });

    // 20 s each; half of the bucket's width is left for a machine that is busy with other things.
    let shape = r#"{"ttft_ms": 290, "interval_ms": 10, "tokens": 24}"#;
    let load = |server: &Server, model: &str, concurrency: &str, requests: &str| {
        let arguments = ["--model", model, "--sample", shape, "--concurrency", concurrency, "--requests", requests];
        Load::start(&scratch, server, &arguments)
    };
    let (large, small) = (load(&tree.server, "large", "4", "152"), load(&other, "small", "2", "76"));
    for step in 1..=STEPS {
        let energy = |(gpu, joules): (u64, u64)| {
            (format!("gpu{gpu}.energy_mj"), ((gpu + 1) * 1_000_000 + step * joules * 1000).to_string())
        };
        let mut values: Vec<_> = (0..).zip(JOULES).map(energy).collect();
        values.push(("gpu0.violation0_ns".to_owned(), (7 + step * HELD * 1_000_000).to_string()));
        let values: Vec<_> = values.iter().map(|(key, value)| (&**key, &**value)).collect();
        fake.set(&values).expect("a state");
        thread::sleep(Duration::from_secs(1));
    }
    let (large, small) = (large.lines(), small.lines());
    set(&mut fake, &[]);
    // Rates reach to both ends of the window: looked at just after a scrape, these are the first and the last one in it.
    let scraped = || prometheus.value("timestamp(up)").expect("it is scraped");
    let first = scraped();
    let last = wait::until("two more scrapes", SOON, || Some(scraped()).filter(|last| *last >= first + 1.9));
    for (title, expression) in recipes() {
        let expression = expression.replace("[5m]", &format!("[{WINDOW}s]"));
        let found = prometheus.all_at(&expression, last + 0.005).expect("it answers");
        let rows = |told: &[(&str, f64)], label: &str| {
            let seen = by(found.clone(), label);
            assert_eq!(seen.len(), told.len(), "{title}: {seen:?}");
            for (row, told) in told {
                within_1_percent(*seen.get(*row).unwrap_or(&f64::NAN), *told, &format!("{title}, {row}"));
            }
        };
        let (tree, other) = (&*of_tree, &*of_other);
        let spent = |gpus: &[u64]| (gpus.iter().sum::<u64>() * STEPS) as f64;
        match &*title {
            "Joules per output token, by model" => {
                let large = spent(&JOULES[..2]) / tokens(&large);
                rows(&[("large", large), ("small", spent(&JOULES[2..]) / tokens(&small))], "gen_ai_request_model");
            }
            "Output tokens per second and GPU" => {
                let (of_two, of_one) = (tokens(&large) / WINDOW / 2.0, tokens(&small) / WINDOW);
                rows(&[(tree, of_two), (other, of_one)], "workload");
            }
            "Share of time held down" => {
                let share = (STEPS * HELD) as f64 / 1000.0 / WINDOW;
                let seen = by(found.clone(), "workload");
                assert_eq!(seen.get(other), Some(&0.0));
                within_1_percent(seen[tree], share, &title);
            }
            "Time to first token, p99, where GPUs are held down" => rows(&[(tree, quantile(0.99, &large))], "workload"),
            "GPUs idle with requests in flight" => {
                // Known as of each poll: as much is not known at either end.
                let (seen, told) = (by(found.clone(), "workload"), duration(&small) / WINDOW);
                println!("{title}: seen {seen:?}, told {told}");
                assert!(seen.len() == 1 && (seen[other] - told).abs() < 0.2 / WINDOW + 0.01 * told, "{seen:?} {told}");
            }
            "Memory headroom" => rows(&[(tree, 1e10), (other, 7.5e10)], "workload"),
            _ => panic!("{title} has no case here"),
        }
    }
    assert_eq!(recipes().len(), 6);
    prometheus.stop();
}
