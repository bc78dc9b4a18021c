//! What the daemon tells the service manager that started it.

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use wardline_tests::{
    Host,
    ward::{Guard, PATIENCE, Ward, policy, zone},
};

/// How long the daemon may take until ports are guarded: the kernel verifies the programs first.
const START: Duration = Duration::from_secs(180);

/// The service manager: what it is told, in this order.
struct Manager {
    told: Receiver<String>,
}

impl Manager {
    /// Listens all the time, because who tells has to wait for one that does not.
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let (hear, told) = mpsc::channel();
        thread::spawn(move || {
            let mut words = [0; 256];
            while let Ok(length) = socket.recv(&mut words) {
                let word = String::from_utf8_lossy(&words[..length]).trim().to_owned();
                if hear.send(word).is_err() {
                    return;
                }
            }
        });
        Self { told }
    }

    /// Waits until this is told.
    fn awaits(&self, expected: &str, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(told) if told == expected => return,
                Ok(_) => {}
                Err(_) => panic!("nobody said {expected}"),
            }
        }
    }
}

fn is_guarded(router: &Host) -> bool {
    let told = router.ip("link show dev lan1").unwrap();
    told.contains("xdp")
}

#[test]
fn a_service_manager_is_told_once_ports_are_guarded_and_that_the_engine_lives() {
    let ward = Ward::new("service");
    let _one = ward.device(1);
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", ", attach: xdp")], "tcp/7"));
    guard.daemon.terminate().unwrap();
    // As after a boot: nothing is left in the kernel.
    guard.daemon.detach().unwrap();
    assert!(!is_guarded(ward.lab.router()));

    let socket = ward.lab.dir().join("notify");
    let manager = Manager::at(&socket);
    for (name, value) in [
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
    ] {
        guard.daemon.set_environment(name, Some(value));
    }
    let router = ward.lab.router();
    let manager = thread::scope(|scope| {
        let first = scope.spawn(move || {
            manager.awaits("READY=1", START);
            (is_guarded(router), manager)
        });
        guard.daemon.restart().unwrap();
        let (guarded, manager) = first.join().unwrap();
        assert!(guarded, "ready before the port was guarded");
        manager
    });
    for _ in 0..5 {
        manager.awaits("WATCHDOG=1", PATIENCE);
    }
    guard.daemon.terminate().unwrap();
    manager.awaits("STOPPING=1", PATIENCE);
    assert!(is_guarded(router));
}
