//! A server's processes that fork and replace their program, one after the other.

use std::process::Command;

use observer_e2e::{
    process::Process,
    require,
    scratch::Scratch,
    servers::{Server, listening},
    wait::{self, SOON},
};

use super::{
    form,
    scene::{Scene, losses},
};

/// Loops that fork and replace their program at the same time.
const LOOPS: usize = 2;

/// A storm of short-lived processes, all of them the workload's: none stays on a list, and the server's requests are
/// measured as ever.
#[test]
fn fork_and_exec_storm() {
    require!(kernel, sample);
    let files = Scratch::new();
    let each = form(1000, 20_000);
    let script = format!(
        "storm() {{ while [ ! -e \"$0\" ]; do sleep 0.02; done; i=0; while [ $i -lt {each} ]; do /bin/true; \
         i=$((i+1)); done; echo over >> \"$1\"; }}\n\
         n=0; while [ $n -lt {LOOPS} ]; do storm \"$2\" & n=$((n+1)); done\n\
         exec \"$1\" serve --listen 127.0.0.1:0"
    );
    let mut command = Command::new("sh");
    let (go, over) = (files.file("go"), files.write("over", ""));
    command.args(["-c", &script]).arg(&go).arg(require::sample()).arg(&over);
    let mut process = Process::spawn("sh", command);
    let address = listening(&mut process);
    let mut scene = Scene::of_processes(Server { process, address });
    let map = |scene: &Scene, map: &str| scene.observer.metrics().sum("observer_map_entries", &[("map", map)]);
    let members = (LOOPS + 1) as f64;
    wait::until("the workload's processes to be known", SOON, || {
        (map(&scene, "members") >= members && map(&scene, "pids") >= members).then_some(())
    });
    let load = scene.load(&["--concurrency", "8", "--for", form("3s", "60s")]);
    let _go = files.write("go", "");
    let storm = || std::fs::read_to_string(&over).is_ok_and(|text| text.lines().count() == LOOPS).then_some(());
    let ended = wait::try_until(form(6, 30) * SOON, storm);
    assert!(ended.is_some(), "the storm goes on");
    let clients = load.lines();
    let tally = scene.compare_whole(&clients);
    assert!(losses(&scene.observer.metrics()).is_empty());
    assert_eq!(scene.observer.metrics().sum("observer_map_insert_failures_total", &[]), 0.0);
    // The loops themselves have ended, too.
    wait::until("all that ended to be forgotten", SOON, || {
        (map(&scene, "members") == 1.0 && map(&scene, "pids") == 1.0).then_some(())
    });
    scene.ends(&format!("{} processes, {} requests measured, none missing", LOOPS * each, tally.measured));
}
