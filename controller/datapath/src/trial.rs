//! Runs the programs on frames from memory, and clears the state that packets leave behind: for
//! tests and measurements.

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use wardline_ebpf::abi::{
    ADMISSIONS, ASKINGS, Address, Bucket, Clients, EventKey, FragmentKey, INQUIRERS, Inquiry,
    KNOWN_FOR, Named, gauge,
};

use crate::{
    Datapath, Hook,
    error::{Result, program_error},
    maps::{clear_array, clear_hash, program, set},
};

impl Datapath {
    /// Runs a hook's program on a frame, as if it were on an interface; returns whether the frame
    /// passed.
    ///
    /// `from` is the interface that a leaving frame came from; 0: the router sent it. A frame that
    /// the router sends on the loopback, whose index is 1, gets no context: the kernel assumes that
    /// interface by itself, and old kernels accept no other.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn run(&mut self, hook: Hook, ifindex: u32, from: u32, frame: &[u8]) -> Result<bool> {
        self.run_often(hook, ifindex, from, frame, 1)
    }

    /// Runs it `times` times with one call; returns whether the frame passed the last time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn run_often(
        &mut self,
        hook: Hook,
        ifindex: u32,
        from: u32,
        frame: &[u8],
        times: u32,
    ) -> Result<bool> {
        const LOOPBACK: u32 = 1;
        let name = hook.program();
        let mut out = vec![0; frame.len() + 512];
        let mut context = vec![0; if hook == Hook::Xdp { 24 } else { 192 }];
        let mut field = |at: usize, value: u32| {
            context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        match hook {
            Hook::Xdp => {
                // struct xdp_md: data, data_end, data_meta, ingress_ifindex.
                field(4, frame.len() as u32);
                field(12, ifindex);
            }
            Hook::TcIngress | Hook::TcEgress | Hook::Tags => {
                // struct __sk_buff: ingress_ifindex, ifindex.
                field(36, from);
                field(40, ifindex);
            }
        }
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: (ifindex != LOOPBACK || from != 0).then_some(context.as_slice()),
            repeat: times,
            ..TestRunOptions::default()
        };
        let answer = match hook {
            Hook::Xdp => program::<Xdp>(&mut self.ebpf, name)?.test_run(options),
            _ => program::<SchedClassifier>(&mut self.ebpf, name)?.test_run(options),
        };
        let value = answer.map_err(program_error(name))?.return_value;
        // XDP_PASS; TC_ACT_UNSPEC. Anything else is a drop.
        Ok(value == if hook == Hook::Xdp { 2 } else { u32::MAX })
    }

    /// Lets an interface adopt the flows that run through it, as if it had just been guarded; or ends
    /// that.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn adopt_now(&mut self, interface: u32, adopts: bool) -> Result<()> {
        self.hooks.set_adoption(interface, adopts)
    }

    /// Clears the state that packets leave behind: flows, learned addresses, limits of events.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forget(&mut self) -> Result<()> {
        const WORDS: usize = size_of::<Bucket>() / 8;
        const CLIENTS: usize = size_of::<Clients>() / 4;
        let (buckets, accounts) = (self.reader.buckets(), self.reader.size("QUOTAS") as u32);
        clear_array(&mut self.ebpf, "FLOWS", buckets, [0u64; WORDS])?;
        clear_array(&mut self.ebpf, "GAUGES", gauge::COUNT, 0u32)?;
        clear_array(&mut self.ebpf, "QUOTAS", accounts, [0u32; 4])?;
        let devices = self.reader.size("CLIENTS") as u32;
        clear_array(&mut self.ebpf, "CLIENTS", devices, [0u32; CLIENTS])?;
        clear_array(&mut self.ebpf, "NOTES", ADMISSIONS, 0u64)?;
        clear_hash::<u64, [u32; CLIENTS]>(&mut self.ebpf, "UNLISTED_CLIENTS", |_| true)?;
        clear_hash::<u32, [u64; 2 * ASKINGS]>(&mut self.ebpf, "ASKINGS", |_| true)?;
        clear_hash::<u64, [u64; 2 * ASKINGS]>(&mut self.ebpf, "UNLISTED_ASKINGS", |_| true)?;
        clear_hash::<FragmentKey, [u64; 2]>(&mut self.ebpf, "FRAGMENTS", |_| true)?;
        clear_hash::<Address, [u32; 2 * KNOWN_FOR]>(&mut self.ebpf, "RESOLVED", |_| true)?;
        clear_hash::<u64, Named>(&mut self.ebpf, "NAMED", |_| true)?;
        clear_hash::<u64, Inquiry>(&mut self.ebpf, "INQUIRIES", |_| true)?;
        clear_array(&mut self.ebpf, "INQUIRERS_AT", INQUIRERS, 0u64)?;
        for index in self.reader.counted_learned()? {
            set(&mut self.ebpf, "LEARNED_AT", index, 0u32)?;
        }
        clear_hash::<Address, [u64; 3]>(&mut self.ebpf, "LEARNED", |_| true)?;
        clear_hash::<u64, Address>(&mut self.ebpf, "HELD", |_| true)?;
        clear_hash::<EventKey, [u64; 6]>(&mut self.ebpf, "EVENT_LIMITS", |_| true)?;
        clear_hash::<u64, [u64; 3]>(&mut self.ebpf, "EVENT_BUDGETS", |_| true)
    }
}
