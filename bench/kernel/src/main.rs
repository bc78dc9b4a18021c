//! The programs that the bench runs in the kernel beside the datapath: a generator of packets, a
//! floor to compare with, and a sink.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program is for the kernel: build it for bpfel-unknown-none");
}

#[cfg(target_arch = "bpf")]
mod load {
    #![expect(
        unsafe_code,
        reason = "packet memory and map values are raw pointers here"
    )]

    use aya_ebpf::{
        bindings::xdp_action,
        btf_maps::{Array, PerCpuArray, ProgramArray},
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use wardline_bench_kernel::traffic::{self, Traffic, WORDS};

    #[btf_map]
    static TRAFFIC: Array<Traffic, 1> = Array::new();
    #[btf_map]
    static THEN: ProgramArray<1> = ProgramArray::new();
    #[btf_map]
    static SUNK: PerCpuArray<u64, 1> = PerCpuArray::new();

    /// Writes the next packet's headers, then goes on with the program under test; without one the
    /// packet passes.
    #[xdp]
    fn generate(context: XdpContext) -> u32 {
        let Some(traffic) = TRAFFIC.get_ptr_mut(0) else {
            return xdp_action::XDP_ABORTED;
        };
        let (start, end) = (context.data(), context.data_end());
        if start + WORDS * 2 > end {
            return xdp_action::XDP_ABORTED;
        }
        // SAFETY: one processor generates; the packet has room for its headers, and the kernel
        // starts them at an even address.
        unsafe { *(start as *mut [u16; WORDS]) = traffic::next(&mut *traffic) };
        // SAFETY: the map holds programs of this type.
        unsafe { THEN.tail_call(&context, 0) };
        xdp_action::XDP_PASS
    }

    /// The least that a program can do.
    #[xdp]
    fn pass(_context: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// The least that a program does which checks what it passes: the form of IPv4 and UDP.
    #[xdp]
    fn parse(context: XdpContext) -> u32 {
        let (start, end) = (context.data(), context.data_end());
        if start + WORDS * 2 > end {
            return xdp_action::XDP_DROP;
        }
        // SAFETY: as in `generate`.
        let header = unsafe { &*(start as *const [u16; WORDS]) };
        let total = u16::from_be(header[8]) as usize;
        let is = |at: usize, mask: u16, value: u16| header[at] & mask.to_be() == value.to_be();
        if is(6, 0xffff, 0x0800)
            && is(7, 0xff00, 0x4500)
            && is(10, 0x3fff, 0)
            && is(11, 0x00ff, 17)
            && total <= end - start - 14
            && u16::from_be(header[19]) as usize == total - 20
        {
            xdp_action::XDP_PASS
        } else {
            xdp_action::XDP_DROP
        }
    }

    /// Counts generated packets that arrive, and not those of the hosts themselves; drops all.
    #[xdp]
    fn sink(context: XdpContext) -> u32 {
        let (start, end) = (context.data(), context.data_end());
        if start + WORDS * 2 > end {
            return xdp_action::XDP_DROP;
        }
        // SAFETY: as in `generate`.
        let header = unsafe { &*(start as *const [u16; WORDS]) };
        if header[6] == 0x0800_u16.to_be()
            && let Some(sunk) = SUNK.get_ptr_mut(0)
        {
            // SAFETY: this processor's own value.
            unsafe { *sunk += 1 };
        }
        xdp_action::XDP_DROP
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
