//! Steering datagrams among sockets that share a port (SO_REUSEPORT).
//!
//! The kernel gives each 5-tuple to one socket of the group by a hash. A classic BPF program, which
//! needs no privilege, sends STUN requests past the hash to the socket whose number their USERNAME
//! begins with (RFC 8445 §7.2.2: the fragment of who is asked comes first). It sees a datagram's
//! payload. A number that no socket has, such as what it returns for anything else, leaves the
//! choice to the hash. A message that ends before a USERNAME ends the program, too, and goes to the
//! first socket, whose shard hands it on.

use super::check;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Attributes of a request that are looked at. Browsers send USERNAME first or second.
const ATTRIBUTES: u8 = 8;

/// No socket has this number.
const BY_HASH: u32 = u32::MAX;

const STUN_COOKIE: u32 = 0x2112_a442;
const STUN_HEADER: u32 = 20;
const USERNAME: u32 = 0x0006;

/// Classes and modes of classic BPF (linux/bpf_common.h).
mod op {
    pub(super) const LD_B_ABS: u16 = 0x30;
    pub(super) const LD_W_ABS: u16 = 0x20;
    pub(super) const LD_H_IND: u16 = 0x48;
    pub(super) const LD_B_IND: u16 = 0x50;
    pub(super) const LDX_IMM: u16 = 0x01;
    pub(super) const ST: u16 = 0x02;
    pub(super) const ADD_K: u16 = 0x04;
    pub(super) const ADD_X: u16 = 0x0c;
    pub(super) const SUB_K: u16 = 0x14;
    pub(super) const AND_K: u16 = 0x54;
    pub(super) const LSH_K: u16 = 0x64;
    pub(super) const TAX: u16 = 0x07;
    pub(super) const JA: u16 = 0x05;
    pub(super) const JEQ_K: u16 = 0x15;
    pub(super) const JGT_K: u16 = 0x25;
    pub(super) const JGE_K: u16 = 0x35;
    pub(super) const LDX_MEM: u16 = 0x61;
    pub(super) const RET_K: u16 = 0x06;
    pub(super) const RET_A: u16 = 0x16;
}

/// Where a jump goes that is not the next instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Next,
    Found,
    ByHash,
}

struct Assembler {
    code: Vec<(libc::sock_filter, Target, Target)>,
}

impl Assembler {
    fn put(&mut self, code: u16, k: u32) {
        self.jump(code, k, Target::Next, Target::Next);
    }

    fn jump(&mut self, code: u16, k: u32, yes: Target, no: Target) {
        let filter = libc::sock_filter {
            code,
            jt: 0,
            jf: 0,
            k,
        };
        self.code.push((filter, yes, no));
    }
}

/// The program.
fn program() -> Vec<libc::sock_filter> {
    use Target::{ByHash, Found, Next};
    let mut a = Assembler { code: Vec::new() };
    // RFC 7983: STUN begins with 0 to 3. RFC 8489 §5: the cookie follows.
    a.put(op::LD_B_ABS, 0);
    a.jump(op::JGT_K, 3, ByHash, Next);
    a.put(op::LD_W_ABS, 4);
    a.jump(op::JEQ_K, STUN_COOKIE, Next, ByHash);
    a.put(op::LDX_IMM, STUN_HEADER);
    for _ in 0..ATTRIBUTES {
        a.put(op::LD_H_IND, 0);
        a.jump(op::JEQ_K, USERNAME, Found, Next);
        // RFC 8489 §14: attributes are padded to four bytes.
        a.put(op::LD_H_IND, 2);
        a.put(op::ADD_K, 4 + 3);
        a.put(op::AND_K, 0xffff_fffc);
        a.put(op::ADD_X, 0);
        a.put(op::TAX, 0);
    }
    a.put(op::RET_K, BY_HASH);
    let by_hash = a.code.len() - 1;
    let found = a.code.len();
    hex_digit(&mut a, 4);
    a.put(op::LSH_K, 4);
    a.put(op::ST, 0);
    hex_digit(&mut a, 5);
    a.put(op::LDX_MEM, 0);
    a.put(op::ADD_X, 0);
    a.put(op::RET_A, 0);
    let offset = |at: usize, target: Target| {
        let to = match target {
            Next => return 0,
            Found => found,
            ByHash => by_hash,
        };
        (to - at - 1) as u8
    };
    let code = a.code.iter().enumerate();
    code.map(|(at, (filter, yes, no))| libc::sock_filter {
        jt: filter.jt | offset(at, *yes),
        jf: filter.jf | offset(at, *no),
        ..*filter
    })
    .collect()
}

/// Loads the value of the hexadecimal digit at this offset from the attribute.
fn hex_digit(a: &mut Assembler, offset: u32) {
    a.put(op::LD_B_IND, offset);
    let digits = a.code.len();
    a.put(op::JGE_K, u32::from(b'a'));
    a.put(op::SUB_K, u32::from(b'0'));
    a.put(op::JA, 1);
    a.put(op::SUB_K, u32::from(b'a') - 10);
    // A letter skips the two instructions for digits.
    a.code[digits].0.jt = 2;
}

/// Attaches the program to the group of sockets that share this one's port.
///
/// # Errors
/// The kernel does not take it.
pub(crate) fn steer(socket: &UdpSocket) -> io::Result<()> {
    let mut code = program();
    let program = libc::sock_fprog {
        len: code.len() as u16,
        filter: code.as_mut_ptr(),
    };
    // SAFETY: the kernel reads a sock_fprog and the instructions that it points to, and keeps
    // neither.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::socket::{UdpOptions, bind_udp};
    use super::*;
    use std::net::SocketAddr;
    use std::time::Duration;

    const OPTIONS: UdpOptions = UdpOptions {
        receive_buffer: 1 << 18,
        send_buffer: 1 << 18,
        gro: false,
        packet_info: false,
        hardware_stamps: false,
        share_port: true,
    };

    /// Another attribute of requests.
    const PRIORITY: (u16, &[u8]) = (0x24, &[0; 4]);

    /// A binding request with attributes of these types and values.
    fn stun(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0];
        bytes.extend(STUN_COOKIE.to_be_bytes());
        bytes.extend([7; 12]);
        for (kind, value) in attributes {
            bytes.extend(kind.to_be_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// Sockets that share a port, in their order.
    fn group(address: &str, count: usize) -> Vec<UdpSocket> {
        let mut at: SocketAddr = address.parse().unwrap();
        let mut sockets = Vec::new();
        for _ in 0..count {
            let socket = bind_udp(at, &OPTIONS).unwrap();
            at = socket.local_addr().unwrap();
            steer(&socket).unwrap();
            socket.set_nonblocking(false).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            sockets.push(socket);
        }
        sockets
    }

    /// Which socket gets a datagram from `client`.
    fn receiver(sockets: &[UdpSocket], client: &UdpSocket, datagram: &[u8]) -> usize {
        client
            .send_to(datagram, sockets[0].local_addr().unwrap())
            .unwrap();
        let mut buffer = [0; 2_048];
        for _ in 0..5_000 {
            for (index, socket) in sockets.iter().enumerate() {
                if let Ok(len) = socket.recv(&mut buffer) {
                    assert_eq!(&buffer[..len], datagram);
                    return index;
                }
            }
        }
        panic!("it arrived nowhere");
    }

    #[test]
    fn requests_go_to_the_socket_that_their_user_names() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let sockets = group(address, 3);
            let client = UdpSocket::bind(address).unwrap();
            for shard in [0, 1, 2] {
                let name = format!("{shard:02x}abcd:peer");
                let first = stun(&[(6, name.as_bytes()), PRIORITY]);
                assert_eq!(receiver(&sockets, &client, &first), shard);
                let odd = stun(&[PRIORITY, (0xc057, &[1; 5]), (6, name.as_bytes())]);
                assert_eq!(receiver(&sockets, &client, &odd), shard, "behind others");
            }
        }
    }

    #[test]
    fn everything_else_goes_by_its_five_tuple() {
        let sockets = group("127.0.0.1:0", 3);
        let mut used = [0; 3];
        for _ in 0..40 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            let rtp = [0x80; 40];
            let index = receiver(&sockets, &client, &rtp);
            used[index] += 1;
            let others: [&[u8]; 4] = [
                &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &stun(&[(6, b"ffnobody:peer")]),
                &stun(&[PRIORITY; 9]),
                &[0x90; 1_200],
            ];
            for datagram in others {
                assert_eq!(
                    receiver(&sockets, &client, datagram),
                    index,
                    "always the same"
                );
            }
        }
        assert!(used.iter().all(|n| *n > 0), "all take their part: {used:?}");
    }
}
