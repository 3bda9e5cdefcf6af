use clap::CommandFactory;

use super::*;
use crate::config::settings::SETTINGS;

fn run(line: &str) -> RunArgs {
    match Cli::try_parse_from(line.split(' ')).unwrap().command {
        Command::Run(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_holds() {
    Cli::command().debug_assert();
}

#[test]
fn flags_reach_their_settings() {
    let args = run(
        "observer run --listen 127.0.0.1:1 --web.config.file w.yml --ports 8000,8001 --pids 5 --cgroups /a,/b --log-format json \
         --log-level debug --log-kernel --for 20s --request-log - --request-log-chunks --gpu off --socket-hook sys-exit",
    );
    assert_eq!(args.run_for, Some(Duration::from_secs(20)));
    let sources = Sources { flags: args.flags(), ..Sources::default() };
    let loaded = load(&sources).unwrap();
    let config = &loaded.config;
    assert_eq!(config.scope.ports, [8000, 8001]);
    assert_eq!(config.scope.pids, [5]);
    assert_eq!(config.scope.cgroups.len(), 2);
    assert!(config.log.kernel && config.request_log.chunks);
    assert_eq!(config.kernel.socket_hook.as_str(), "sys-exit");
    for setting in SETTINGS.iter().filter(|setting| !setting.flag.is_empty()) {
        assert_eq!(loaded.origin(setting.key), format!("flag {}", setting.flag));
    }
}

#[test]
fn every_flag_of_the_table_exists() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    for setting in SETTINGS.iter().filter(|setting| !setting.flag.is_empty()) {
        let name = setting.flag.trim_start_matches('-');
        assert!(run.get_arguments().any(|argument| argument.get_long() == Some(name)), "{}", setting.flag);
    }
}

#[test]
fn no_flags_change_nothing() {
    assert!(run("observer run").flags().is_empty());
}

#[test]
fn usage_errors_exit_with_2_and_help_names_the_codes() {
    let error = Cli::try_parse_from(["observer", "run", "--nonsense"]).unwrap_err();
    assert_eq!(error.exit_code(), i32::from(EXIT_USAGE));
    let help = Cli::try_parse_from(["observer", "run", "--help"]).unwrap_err();
    assert_eq!(help.exit_code(), i32::from(EXIT_OK));
    assert!(help.to_string().contains("Exit codes: 0 success, 1 failure, 2"));
}

#[test]
fn record_takes_what_run_takes() {
    let line = "observer record out.rec --ports 8000 --for 5s --max-bytes 2M --payload --listen 127.0.0.1:1";
    let Command::Record(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!() };
    assert_eq!((args.file.to_str(), args.max_bytes, args.payload, args.force), (Some("out.rec"), 2 << 20, true, false));
    assert_eq!((args.run.run_for, args.run.flags().len()), (Some(Duration::from_secs(5)), 2));
    for bad in ["--max-bytes=1", "--max-bytes=x", "--max-bytes=99999999999G"] {
        assert!(Cli::try_parse_from(["observer", "record", "f", bad]).is_err(), "{bad}");
    }
    assert!(Cli::try_parse_from(["observer", "record"]).is_err(), "there is no default file");
    assert_eq!(size("1024K"), size("1M"));
}

#[test]
fn replay_prints_a_table() {
    let Command::Replay(args) = Cli::try_parse_from(["observer", "replay", "-"]).unwrap().command else { panic!() };
    assert_eq!((args.format.as_str(), args.metrics), ("table", None));
    assert!(Cli::try_parse_from(["observer", "replay", "f", "--format", "xml"]).is_err());
}

#[test]
fn gpu_takes_a_command() {
    let line = ["observer", "gpu", "release", "--url", "http://127.0.0.1:1"];
    let Command::Gpu(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
    let GpuCommand::Release(target) = args.command else { panic!() };
    assert_eq!(target.url, "http://127.0.0.1:1");
    assert!(Cli::try_parse_from(["observer", "gpu"]).is_err());
    assert!(Cli::try_parse_from(["observer", "run", "--gpu", "on"]).is_err());
}

#[test]
fn health_asks_where_clients_can() {
    let cases = [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:2", "[::1]:2"), ("10.1.2.3:4", "10.1.2.3:4")];
    for (listen, asked) in cases {
        assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
    }
    let line = ["observer", "health", "--url", "http://h:1", "--ready"];
    let Command::Health(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
    assert_eq!((args.url.as_deref(), args.ready), (Some("http://h:1"), true));
    assert_eq!(args.settings().unwrap(), None);
}

#[test]
fn overhead_measures_for_some_time() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' '));
    let Command::Overhead(args) = parse("observer overhead").unwrap().command else { panic!() };
    assert_eq!((args.time, args.pid, args.format.as_str()), (Duration::from_secs(10), None, "table"));
    let Command::Overhead(args) = parse("observer overhead --for 30s --pid 7 --format json").unwrap().command else {
        panic!()
    };
    assert_eq!((args.time, args.pid, args.format.as_str()), (Duration::from_secs(30), Some(7), "json"));
    assert!(parse("observer overhead --for 1ms").is_err() && parse("observer overhead --format xml").is_err());
}

#[test]
fn top_and_doctor_have_defaults() {
    let Command::Top(top) = Cli::try_parse_from(["observer", "top"]).unwrap().command else { panic!() };
    assert_eq!((top.url.as_str(), top.interval), ("http://127.0.0.1:9478", Duration::from_secs(1)));
    let line = ["observer", "doctor", "--json", "--ports", "1", "--for", "5s"];
    let Command::Doctor(doctor) = Cli::try_parse_from(line).unwrap().command else { panic!() };
    assert!(doctor.json && doctor.scope.flags().len() == 1 && doctor.count_for == Some(Duration::from_secs(5)));
}
