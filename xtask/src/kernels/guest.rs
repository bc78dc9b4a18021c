//! A kernel in QEMU: the steps that it runs after booting, and the lines of its console.

use std::{
    env,
    fmt::Write as _,
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{
    image,
    packages::{Apt, Kernel},
    report::MARK,
};
use crate::setup;

const QEMU: &str = "qemu-system-x86_64";

/// The programs that a guest needs, and their packages.
const TOOLS: [(&str, &str); 3] = [
    (QEMU, "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
];

/// What a guest printed, and how it ended.
pub(crate) struct Console {
    pub(crate) lines: Vec<String>,
    /// Whether it ran to its end.
    pub(crate) ended: bool,
    /// Whether it had to be stopped.
    pub(crate) cut: bool,
}

/// Installs what is missing to run a guest.
///
/// The machine may have parts of QEMU from the backports of its release, and then needs the rest
/// from there too. `home` is where apt keeps the lists of the backports.
///
/// # Errors
/// When they are not available on this machine.
pub(crate) fn prepare(home: &Path) -> anyhow::Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "there are kernels for amd64 only"
    );
    let missing: Vec<&str> = TOOLS
        .into_iter()
        .filter(|(program, _)| image::find(program).is_none())
        .map(|(_, package)| package)
        .collect();
    if !missing.is_empty() && setup::is_debian() {
        setup::install_packages(&missing)
            .or_else(|why| Apt::open(home)?.install_backports(&missing).context(why))?;
    }
    image::needs(&[QEMU, "busybox", "xz", "ip", "ldd", "apt-get", "dpkg-deb"])
}

/// The guest's `/init`: sets up what a lab needs, then runs the steps, each between two marks.
pub(crate) fn init(kernel: &Kernel, live: &[&str]) -> String {
    let mut init = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /usr/bin\n\
         export PATH=/bin:/usr/bin\n\
         export WARDLINE_WARDLINED=/bin/wardlined WARDLINE_WARDCTL=/bin/wardctl RUST_BACKTRACE=0 WARDLINE_MAY_SET_CLOCK=1\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs dev /dev\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t tmpfs tmp /tmp\n\
         ip link set lo up\n\
         echo {MARK} kernel $(uname -r)\n\
         run() {{\n\
         \x20 echo {MARK} step $1\n\
         \x20 name=$1; shift\n\
         \x20 /bin/suite --test-threads=1 --color=never --show-output \"$@\" >/tmp/$name 2>&1\n\
         \x20 code=$?\n\
         \x20 cut -c1-400 /tmp/$name\n\
         \x20 echo {MARK} done $name $code $(cut -d. -f1 /proc/uptime)\n\
         }}\n"
    );
    for module in kernel.modules() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        // Writing to a string can't fail.
        let _ = writeln!(init, "insmod /modules/{name}");
    }
    // Kernels that accept no context for XDP judge on the loopback, whose index they assume.
    let _ = write!(
        init,
        "run programs packets::programs::takes_every_program\n\
         if grep -q '^skipped: context of XDP' /tmp/programs; then export WARDLINE_MATRIX_AT=lo; fi\n\
         if [ $code = 0 ]; then\n\
         \x20 run matrix packets::matrix::the_kernel_says_what_the_rows_say\n\
         \x20 run live {}\n\
         fi\n\
         echo {MARK} end\n\
         sync\n\
         poweroff -f\n",
        live.join(" ")
    );
    init
}

/// Boots a kernel and reads its console until it powers off or `time` has passed.
///
/// # Errors
/// When QEMU can't be started or read.
pub(crate) fn run(kernel: &Kernel, image: &Path, time: Duration) -> anyhow::Result<Console> {
    let mut qemu = Command::new(QEMU);
    qemu.args([
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1G",
    ]);
    qemu.args([
        "-nodefaults",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
    ]);
    qemu.arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(image);
    // Guards against speculation cost an emulated processor a third of its time. The timer's check
    // counts ticks against loops, and panics when the emulator has had to wait for a processor.
    qemu.args([
        "-append",
        "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check rdinit=/init",
    ]);
    let (reader, writer) = io::pipe()?;
    qemu.stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = qemu.spawn().with_context(|| format!("starting {QEMU}"))?;
    // It holds the writing ends, and the reader would never see the end.
    drop(qemu);
    let (sender, receiver) = mpsc::channel();
    let reading = thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(clean(&String::from_utf8_lossy(&line))).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + time;
    let mut lines = Vec::new();
    let in_time = loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !in_time {
        child.kill()?;
    }
    child.wait()?;
    // It ends when the last writing end is closed.
    let _ = reading.join();
    lines.extend(receiver.try_iter());
    let ended = in_time && lines.iter().any(|line| line == &format!("{MARK} end"));
    Ok(Console {
        lines,
        ended,
        cut: !in_time,
    })
}

/// A line without the firmware's control sequences.
fn clean(line: &str) -> String {
    let mut clean = String::new();
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if letter == '\x1b' {
            if letters.next() == Some('[') {
                let _ = letters.by_ref().find(char::is_ascii_alphabetic);
            }
        } else if !letter.is_control() || letter == '\t' {
            clean.push(letter);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_do_not_hide_a_line() {
        assert_eq!(
            clean("\x1bc\x1b[?7l\x1b[2J@@ kernel 6.1\r"),
            "@@ kernel 6.1"
        );
        assert_eq!(clean("plain"), "plain");
    }
}
