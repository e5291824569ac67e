//! The unit of systemd in `deploy/systemd`, and what the server tells the service manager.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{PATIENCE, Serving, capstan, command, folder, stderr, stdout};

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd")
}

/// Of 10, as systemd counts; `dev/test` installs systemd where it is missing.
#[test]
fn the_unit_is_exposed_little() {
    let service = unit().join("capstan.service");
    let mut analyze = Command::new("systemd-analyze");
    let output =
        analyze.args(["security", "--offline=true", "--threshold=15"]).arg(&service).output();
    let output = output.expect("systemd-analyze is in Debian's package systemd");
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    // A unit that is written wrongly: of everything but the program, which is not installed here.
    let text = std::fs::read_to_string(&service).unwrap();
    let program = env!("CARGO_BIN_EXE_capstan");
    let here = folder("systemd-unit").join("capstan.service");
    std::fs::write(&here, text.replace("/usr/bin/capstan", program)).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    let output = analyze.args(["verify", "--man=no"]).arg(&here).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success() && !said.contains("capstan.service"), "{said}");
    // What it starts is a command of the program.
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert_eq!(line, "/usr/bin/capstan serve --config /etc/capstan/capstan.toml");
}

#[test]
fn the_configuration_beside_the_unit_is_quiet() {
    let file = unit().join("capstan.toml").display().to_string();
    // What it names is on the machine where it is installed.
    let checked = capstan(&["config", "check", &file, "--no-files"]);
    assert_eq!(checked.status.code(), Some(0), "{}{}", stdout(&checked), stderr(&checked));
}

#[test]
fn the_service_manager_is_told_when_the_server_is_ready_and_stops() {
    let folder = folder("systemd-notify");
    let socket = folder.join("notify.sock");
    let _ = std::fs::remove_file(&socket);
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let mut serve = command(&["serve", "--demo", "--listen", "127.0.0.1:0", "--http", "none"]);
    let server = Serving::spawn(serve.env("NOTIFY_SOCKET", &socket), 1);
    assert_eq!(told(), "READY=1\n");
    let (code, log) = server.stop("-TERM");
    assert_eq!((told().as_str(), code), ("STOPPING=1\n", Some(0)), "{log}");
    // One that is gone does not stop a server.
    drop(manager);
    let mut serve = command(&["serve", "--demo", "--listen", "127.0.0.1:0", "--http", "none"]);
    let server = Serving::spawn(serve.env("NOTIFY_SOCKET", &socket), 1);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("the service manager is not told"), "{log}");
}
