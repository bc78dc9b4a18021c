//! The programs on the running kernel: whether it loads them, how large they are, and which
//! features it lacks.
//!
//! `cargo xtask kernels` reads the lines that this prints, one kernel after the other.

use std::{error::Error, io};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions, Xdp,
        XdpMode,
        links::FdLink,
        tc::{NlOptions, TcAttachOptions, qdisc_add_clsact},
    },
};
use wardline_datapath::load::OBJECT;
use wardline_tests::Lab;

use super::judge;

const LOOPBACK: u32 = 1;
const FRAME: [u8; 64] = [0; 64];
/// Lines at the end of the verifier's log, which give the reason.
const LOG_TAIL: usize = 8;

#[test]
fn takes_every_program() {
    let mut ebpf = EbpfLoader::new().load(OBJECT).unwrap();
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    let mut refused = Vec::new();
    for name in names {
        match load(&mut ebpf, &name) {
            Ok((instructions, verified)) => {
                // Kernels before 5.16 don't say how much they verified.
                let verified = verified.map_or("?".to_owned(), |count| count.to_string());
                println!("program {name}: {instructions} instructions, {verified} verified");
            }
            Err(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => {
                let log = verifier_log.to_string();
                let log: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
                let tail = &log[log.len().saturating_sub(LOG_TAIL)..];
                println!("program {name}: refused: {io_error}: {}", tail.join(" | "));
                refused.push(name);
            }
            Err(error) => {
                println!("program {name}: refused: {error}");
                refused.push(name);
            }
        }
    }
    if refused.is_empty() {
        tell_what_it_lacks(&mut ebpf);
    }
    assert!(
        refused.is_empty(),
        "the kernel refuses {}",
        refused.join(", ")
    );
}

#[test]
fn programs_stay_within_their_budgets() {
    // Recorded on 6.18, with some room: a program that grows past it is looked at.
    const BUDGETS: [(&str, u32, u32); 7] = [
        ("xdp_ingress", 22_200, 560_000),
        ("tc_ingress", 21_900, 620_000),
        ("tc_egress", 25_600, 790_000),
        ("tag_ingress", 1_100, 4_500),
        ("sweep", 400, 5_000),
        ("clock", 40, 20),
        ("carry", 2_900, 21_000),
    ];
    for size in judge::datapath().sizes().unwrap() {
        println!(
            "{}: {} instructions, {} verified",
            size.name, size.instructions, size.verified
        );
        let (_, instructions, verified) = BUDGETS
            .into_iter()
            .find(|(name, ..)| *name == size.name)
            .unwrap();
        assert!(
            size.instructions <= instructions,
            "{size:?} of at most {instructions}"
        );
        assert!(
            size.verified <= verified,
            "{size:?} of at most {verified} verified"
        );
    }
}

/// Loads a program; its instructions, and how many the verifier looked at.
fn load(ebpf: &mut Ebpf, name: &str) -> Result<(u32, Option<u32>), ProgramError> {
    let program = ebpf.program_mut(name).unwrap();
    match program {
        aya::programs::Program::Xdp(program) => program.load()?,
        aya::programs::Program::SchedClassifier(program) => program.load()?,
        other => panic!("{name} is of another type: {other:?}"),
    }
    let info = program.info()?;
    let verified = info
        .verified_instruction_count()
        .filter(|count| *count != 0);
    Ok((info.size_translated().unwrap_or(0) / 8, verified))
}

/// Tries features that old kernels lack, in a namespace of its own.
fn tell_what_it_lacks(ebpf: &mut Ebpf) {
    let lab = Lab::new("kernel").unwrap();
    lab.router()
        .run(|| {
            tell(
                "context of XDP in a test run",
                context(ebpf, true, &[(4, 64), (12, LOOPBACK)]),
            );
            tell(
                "interface at TC in a test run",
                context(ebpf, false, &[(40, LOOPBACK)]),
            );
            tell(
                "origin at TC in a test run",
                context(ebpf, false, &[(36, LOOPBACK)]),
            );
            tell("link at XDP", xdp_link(ebpf));
            tell("TCX", tcx(ebpf));
            tell("clsact", clsact(ebpf));
        })
        .unwrap();
    lab.close().unwrap();
}

fn tell(name: &str, tried: Result<(), Box<dyn Error>>) {
    if let Err(error) = tried {
        assert!(says_unsupported(error.as_ref()), "{name}: {error:?}");
        println!("skipped: {name}: {}", root(error.as_ref()));
    }
}

/// Whether the error of the kernel, or of the loader, means that the feature is missing.
fn says_unsupported(error: &(dyn Error + 'static)) -> bool {
    let root = root(error);
    let Some(error) = root.downcast_ref::<io::Error>() else {
        return root.is::<aya::programs::links::LinkError>();
    };
    let code = error.raw_os_error();
    matches!(code, Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT))
}

/// The error below all others.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

/// Runs a program with 32-bit fields in its context.
fn context(ebpf: &mut Ebpf, xdp: bool, fields: &[(usize, u32)]) -> Result<(), Box<dyn Error>> {
    // struct xdp_md and struct __sk_buff.
    let mut context = vec![0; if xdp { 24 } else { 192 }];
    for (at, value) in fields {
        context[*at..*at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let mut out = [0; FRAME.len() + 512];
    let options = TestRunOptions {
        data_in: Some(&FRAME),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    if xdp {
        ingress(ebpf).test_run(options)?;
    } else {
        clock(ebpf).test_run(options)?;
    }
    Ok(())
}

/// Without a link, an attachment at XDP ends with the daemon.
fn xdp_link(ebpf: &mut Ebpf) -> Result<(), Box<dyn Error>> {
    let program = ingress(ebpf);
    let id = program.attach_to_if_index(LOOPBACK, XdpMode::Skb)?;
    FdLink::try_from(program.take_link(id)?)?;
    Ok(())
}

fn tcx(ebpf: &mut Ebpf) -> Result<(), Box<dyn Error>> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let program = clock(ebpf);
    let id = program.attach_with_options("lo", TcAttachType::Ingress, options)?;
    program.detach(id)?;
    Ok(())
}

fn clsact(ebpf: &mut Ebpf) -> Result<(), Box<dyn Error>> {
    qdisc_add_clsact("lo")?;
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let program = clock(ebpf);
    let id = program.attach_with_options("lo", TcAttachType::Ingress, options)?;
    program.detach(id)?;
    Ok(())
}

fn ingress(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut("xdp_ingress").unwrap().try_into().unwrap()
}

/// A program at TC that passes every packet.
fn clock(ebpf: &mut Ebpf) -> &mut SchedClassifier {
    ebpf.program_mut("clock").unwrap().try_into().unwrap()
}
